"""The GPU's own seconds of a call: copies to it, computing and copies back, separated by CUDA events.

What Python, the driver and waiting take is in `latency` and not in these; copies are not overlapped with computing.
"""

from __future__ import annotations

import numpy as np

from ...runtime.errors import NotAvailable
from ..measure.context import MetricContext
from ..measure.process import Process
from ..result import Reading

ON_REQUEST = True
COUNT = 100


def measure(context: MetricContext) -> Reading:
    """Return the medians `copy_in_s`, `compute_s`, `copy_out_s`, and `compute_p99_s`.

    Raises:
        NotAvailable: The backend keeps no clock on a GPU.
    """
    if context.target.backend != "trt":
        raise NotAvailable("only engines can be timed by the GPU's clock", got=f"backend {context.target.backend}")
    with Process(context.target, timeout_s=context.timeout_s) as process:
        process.ask("warm", most_s=1.0)
        seconds: dict[str, list[float]] = process.ask("device_time", count=COUNT)
    values = {name: float(np.median(series)) for name, series in seconds.items()}
    values["compute_p99_s"] = float(np.percentile(seconds["compute_s"], 99))
    return Reading("device_time", values, samples=(tuple(seconds["compute_s"]),))
