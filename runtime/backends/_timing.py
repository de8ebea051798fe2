"""Timing of a call on a GPU: copies and compute by CUDA events, layers by TensorRT's profiler.

An event is queued into the stream like a copy or a kernel, and the GPU records its clock when it reaches the event, so
Python and the driver are not included (CUDA runtime API, "Event Management").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..engines import gpu


@dataclass(frozen=True)
class Split:
    """Seconds of one call by the GPU's clock."""

    copy_in_s: float
    compute_s: float
    copy_out_s: float


class Stopwatch:
    """Events in a stream, and the seconds between consecutive ones.

    Args:
        cuda: cuda-python's runtime module.
        stream: The stream of the work.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._events: list[Any] = []

    def mark(self) -> None:
        """Queue an event at the end of the stream.

        Raises:
            RunError: CUDA refuses.
        """
        self._events.append(gpu.call(self._cuda.cudaEventCreate))
        gpu.call(self._cuda.cudaEventRecord, self._events[-1], self._stream)

    def seconds(self) -> list[float]:
        """Wait for the last event, and return the seconds between consecutive ones; the resolution is about 0.5 us.

        Raises:
            RunError: Queued work failed.
        """
        gpu.call(self._cuda.cudaEventSynchronize, self._events[-1])
        pairs = zip(self._events, self._events[1:], strict=False)
        return [1e-3 * float(gpu.call(self._cuda.cudaEventElapsedTime, *pair)) for pair in pairs]

    def free(self) -> None:
        """Release the events."""
        for event in self._events:
            self._cuda.cudaEventDestroy(event)
        self._events = []


def layer_clock(trt: Any) -> Any:
    """Return a profiler for an execution context; its `spent` maps each layer's name to its milliseconds, summed."""

    class Clock(trt.IProfiler):  # type: ignore[misc]
        """Add a time that TensorRT reports."""

        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.spent: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.spent[layer_name] = self.spent.get(layer_name, 0.0) + ms

    return Clock()
