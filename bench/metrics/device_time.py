"""Seconds of a call by the GPU's clock: copies to the GPU, compute, copies back, separated by CUDA events.

Time in Python, in the driver and waiting is in `latency` only; copies do not overlap with compute.
"""

from __future__ import annotations

import numpy as np

from ...runtime.errors import NotAvailable
from ..measure.context import MetricContext
from ..result import Reading

ON_REQUEST = True
COUNT = 100


def measure(context: MetricContext) -> Reading:
    """Return the medians `copy_in_s`, `compute_s`, `copy_out_s`, and `compute_p99_s`.

    Raises:
        NotAvailable: The backend has no GPU clock.
    """
    if context.target.backend != "trt":
        raise NotAvailable("only engines can be timed by the GPU's clock", got=f"backend {context.target.backend}")
    with context.process() as process:
        process.ask("warm", most_s=1.0)
        seconds: dict[str, list[float]] = process.ask("device_time", count=COUNT)
    values = {name: float(np.median(series)) for name, series in seconds.items()}
    values["compute_p99_s"] = float(np.percentile(seconds["compute_s"], 99))
    return Reading("device_time", values, samples=(tuple(seconds["compute_s"]),))
