"""Temperature, clock and throttling under load: whether the latency is that of a cool machine at full clock."""

from __future__ import annotations

import numpy as np

from ..measure import sensors
from ..measure.context import MetricContext
from ..result import Reading

WORK_S = 1.0
SLOWED = 0.9  # a clock that falls below this share of its highest while working is worth a note


def measure(context: MetricContext) -> Reading:
    """Return what there is of `temperature_c` (highest), `clock_hz` (mean), `least_clock_hz`, `throttled_count`."""
    probes = [one for one in sensors.find_sensors() if one.quantity in ("temperature_c", "clock_hz", "throttled_count")]
    if not probes:
        return Reading("thermal", missing="this machine reports neither temperature nor clock")
    with context.process() as process:
        process.ask("warm", most_s=WORK_S)
        with sensors.watch(probes) as trace:
            process.ask("run", seconds=WORK_S)
    return _reading(trace)


def _reading(trace: sensors.Trace) -> Reading:
    values: dict[str, float] = {}
    if degrees := trace.values("temperature_c"):
        values["temperature_c"] = max(degrees)
    # Idle cores clock down: the fastest core at each moment is the one that works.
    if series := [[value for _, value in one] for _, one in trace.of("clock_hz")]:
        fastest = np.max([one[: min(map(len, series))] for one in series], axis=0)
        values |= {"clock_hz": float(fastest.mean()), "least_clock_hz": float(fastest.min())}
    if (rose := trace.rise("throttled_count")) is not None:
        values["throttled_count"] = rose
    if not values:
        return Reading("thermal", missing="the sensors returned no values during the measurement")
    return Reading("thermal", values, notes=_notes(values))


def _notes(values: dict[str, float]) -> tuple[str, ...]:
    notes = []
    if values.get("throttled_count"):
        notes.append("the processor throttled because of heat; do: cool it, lower the clocks")
    if values.get("least_clock_hz", 1.0) < SLOWED * values.get("clock_hz", 1.0):
        notes.append("the clock fell during the measurement; do: lock the clocks (governor performance, jetson_clocks)")
    return tuple(notes)
