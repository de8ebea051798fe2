"""Energy per image and mean power, idle and under load, from the machine's meters (RAPL, INA3221, NVML).

A meter includes other processes: `idle_power_w` is its reading before the load starts.
"""

from __future__ import annotations

import time

from ..measure import sensors
from ..measure.context import MetricContext
from ..result import Reading

IDLE_S, WORK_S = 1.0, 2.0
NO_METER = "this machine has no readable power meter (RAPL, often only for root; INA3221; NVML)"


def measure(context: MetricContext) -> Reading:
    """Return `image_energy_j`, `power_w` under load and `idle_power_w`."""
    meters = [sensor for sensor in sensors.find_sensors() if sensor.quantity in ("energy_j", "power_w")]
    if not meters:
        return Reading("energy", missing=NO_METER)
    with context.process() as process:
        process.ask("warm", most_s=IDLE_S)
        with sensors.watch(meters) as idle:
            time.sleep(IDLE_S)
        with sensors.watch(meters) as work:
            samples = process.ask("run", seconds=WORK_S)["samples"]
    return _reading(idle.power_w(), work.power_w(), sum(samples) / len(samples) / context.subject.batch)


def _reading(idle_w: float | None, work_w: float | None, image_s: float) -> Reading:
    """Combine the readings; `image_s` is the time per image in seconds."""
    if idle_w is None or work_w is None:
        return Reading("energy", missing="the meter returned no values during the measurement")
    notes = (
        ()
        if work_w > idle_w
        else ("power under load is not above idle power: the meter is too coarse, or other processes ran",)
    )
    return Reading(
        "energy", {"image_energy_j": work_w * image_s, "power_w": work_w, "idle_power_w": idle_w}, notes=notes
    )
