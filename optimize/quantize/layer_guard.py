"""One layer that cannot be quantised goes to float with its reason; it does not end the run.

Each step that looks at one layer stands in `LayerGuard.step`. What goes wrong there is kept by the layer's name, the
other layers go on, and the graph is made again with those layers in float (`pipeline.convert`). A step over the whole
graph stands in `whole_step`: the graph is made again without it. What a user can mend, and running out of memory, is no
layer's fault and goes on up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from ...runtime.errors import DataError, UsageError

PASSED_ON = (DataError, UsageError, MemoryError)


@dataclass
class LayerGuard:
    """Layers that a step went wrong for -> the step and its error."""

    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def step(self, layer: str, what: str) -> Iterator[None]:
        """Run one step for one layer.

        Args:
            layer: The node's name.
            what: What the step does, after «cannot».
        """
        try:
            yield
        except PASSED_ON:
            raise
        except Exception as error:  # whatever it is: the layer stays in float, and its reason says so
            self.failed.setdefault(layer, f"cannot {what}: {reason(error)}")


def reason(error: Exception) -> str:
    """Return an error's class and text on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def guarded(guard: LayerGuard | None, layer: str, what: str) -> AbstractContextManager[None]:
    """Return a guard's step; without one errors go on up."""
    return guard.step(layer, what) if guard else nullcontext()


class StepError(Exception):
    """A step over the whole graph that went wrong, and the settings without it."""

    def __init__(self, text: str, without: dict[str, Any]) -> None:
        super().__init__(text)
        self.without = without


@contextmanager
def whole_step(what: str, **without: Any) -> Iterator[None]:
    """Run a step that the graph can do without; what goes wrong there becomes a note."""
    try:
        yield
    except PASSED_ON:
        raise
    except Exception as error:  # whatever it is: the graph is quantised without this step, and the report says so
        raise StepError(f"could not {what}, so that was left out: {reason(error)}", without) from error
