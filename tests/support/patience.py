"""How long a test waits for what has to happen: no verdict, only the end of what hangs; a busy machine is slow."""

import time
from collections.abc import Callable

PATIENCE_S = 900.0  # less than pytest's own limit of a test, so that what hung is named


def until(condition: Callable[[], object]) -> bool:
    """Wait until a condition holds; False where it never does."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
