"""Time of a cold start by stage: start the interpreter, import, load (or deserialise), first call.

The values are medians over the fresh processes of the latency measurement; files are in the page cache.
"""

from __future__ import annotations

from statistics import median

from ..measure.context import MetricContext
from ..result import Reading


def measure(context: MetricContext) -> Reading:
    """Return `interpreter_s`, `import_s`, `load_s`, `first_call_s` and their sum `total_s`."""
    stages = context.timings.stages
    if not stages:
        return Reading("cold_start", missing=context.timings.failure or "not measured")
    values = {name: median(one[name] for one in stages) for name in stages[0]}
    totals = [sum(one.values()) for one in stages]
    values["total_s"] = median(totals)
    return Reading("cold_start", values, {"total_s": (min(totals), max(totals))}, (tuple(totals),))
