"""Time from an image file to the answer by stage: decode, preprocess, compute, postprocess.

The image is a seeded 640x480 JPEG. On a CPU nothing is copied to a device; with an engine, copy in, copy out and
launch are separate stages.
"""

from __future__ import annotations

from statistics import median

from ..measure.context import MetricContext
from ..result import Reading

ON_REQUEST = True
COLD, COUNT = 3, 40


def measure(context: MetricContext) -> Reading:
    """Return the medians `decode_s`, `preprocess_s`, `compute_s`, `postprocess_s` and that of their sum, `total_s`.

    Engines have `copy_in_s`, `copy_out_s` and `launch_s` too.
    """
    with context.process() as process:
        process.ask("warm", most_s=1.0)
        seconds: dict[str, list[float]] = process.ask("end_to_end", count=COLD + COUNT)
    stages = {name: series[COLD:] for name, series in seconds.items()}
    totals = [sum(parts) for parts in zip(*stages.values(), strict=True)]
    values = {name: median(series) for name, series in stages.items()} | {"total_s": median(totals)}
    return Reading("end_to_end", values, samples=(tuple(totals),))
