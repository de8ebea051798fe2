"""Energy for one image and mean power, from the machine's own meters (RAPL, INA3221, NVML), idle and at work.

A meter counts all that its part does, other work too: `idle_power_w` tells what it shows before the work begins.
"""

from __future__ import annotations

import time

from ..measure import sensors
from ..measure.context import MetricContext
from ..measure.process import Process
from ..result import Reading

IDLE_S, WORK_S = 1.0, 2.0
NO_METER = "this machine has no readable power meter (RAPL, often only for root; INA3221; NVML)"


def measure(context: MetricContext) -> Reading:
    """Return `image_energy_j`, `power_w` at work and `idle_power_w`."""
    meters = [sensor for sensor in sensors.find_sensors() if sensor.quantity in ("energy_j", "power_w")]
    if not meters:
        return Reading("energy", missing=NO_METER)
    with Process(context.target, timeout_s=context.timeout_s) as process:
        process.ask("warm", most_s=IDLE_S)
        with sensors.watch(meters) as idle:
            time.sleep(IDLE_S)
        with sensors.watch(meters) as work:
            samples = process.ask("run", seconds=WORK_S)["samples"]
    return _reading(idle.power_w(), work.power_w(), sum(samples) / len(samples) / context.subject.batch)


def _reading(idle_w: float | None, work_w: float | None, image_s: float) -> Reading:
    """Put the figures together; `image_s` are seconds for one image."""
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
