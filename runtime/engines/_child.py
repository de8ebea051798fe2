"""The process that builds one engine, so that a crash or hang of the native library does not affect the caller.

One JSON line comes in on standard input: the request. JSON lines go out on standard output: progress, then `done` or
`failed`. The library's output goes to standard error. If standard input closes, the parent has ended: stop.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from ..common import isolation
from ..errors import EdgesmithError
from . import _network


def main() -> None:
    """Serve one request."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(event: dict[str, Any]) -> None:
        with lock:
            events.write(json.dumps(event) + "\n")
            events.flush()

    request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        isolation.limit_memory(isolation.Limits.from_environment(None).bytes)
        send({"event": "done", **_network.run_build(request, send)})
    except EdgesmithError as error:
        parts = {"what": error.what, "got": error.got, "expected": error.expected, "do": error.do}
        send({"event": "failed", "kind": type(error).__name__, **parts})
    except (OSError, MemoryError) as error:
        send({"event": "failed", "kind": "BuildError", "what": "the build stopped", "got": str(error)})
    events.close()
    os._exit(0)  # the library's own clean-up at exit may crash and has nothing left to do


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
