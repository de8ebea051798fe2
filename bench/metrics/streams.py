"""Throughput of several threads that call one session concurrently, as on a server or a multi-camera device."""

from __future__ import annotations

from ..measure.context import MetricContext
from ..result import Reading

ON_REQUEST = True
COUNTS = (1, 2, 4)
SECONDS = 1.0


def measure(context: MetricContext) -> Reading:
    """Return `one_stream_per_s`, `two_streams_per_s`, `four_streams_per_s`: images per second in total."""
    values: dict[str, float] = {}
    with context.process() as process:
        process.ask("warm", most_s=SECONDS)
        for count, name in zip(COUNTS, ("one_stream", "two_streams", "four_streams"), strict=True):
            counts = process.ask("streams", count=count, seconds=SECONDS)
            values[f"{name}_per_s"] = counts["calls"] * context.subject.batch / counts["seconds"]
    return Reading("streams", values)
