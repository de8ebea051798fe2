"""How near a latency is to what the machine could do: the roofline of its own measured ceilings.

limit = max(multiply-accumulates / highest rate, bytes of weights / memory bandwidth), with the multiply-accumulates of
the file's operators. The weights stay in a large cache from call to call, so the second term is rarely what
counts for small networks; activations are left out: the limit is a lower bound.
"""

from __future__ import annotations

from pathlib import Path

from .. import ceilings
from ..context import Context
from ..layers import profilable
from ..process import Process
from ..result import Reading


def measure(context: Context) -> Reading:
    """Return `limit_s`, `share_ratio` (limit / p50), `run_macs_count`, `peak_macs_per_s` and `peak_bytes_per_s`."""
    subject, latency = context.subject, [value for group in context.timings.samples for value in group]
    profilable(context.target)  # before a process is started for nothing
    with Process(context.target, timeout_s=context.timeout_s) as process:
        macs = sum(row["macs"] or 0 for row in process.ask("layers", count=1, optimise=False)["rows"])
    found = ceilings.measure(subject.threads)
    precision = "int8" if subject.precision == "int8" else "fp32"
    size = Path(context.artifact).stat().st_size
    limit = found.limit_s(macs, size, precision)
    values = {
        "limit_s": limit, "run_macs_count": float(macs), "peak_macs_per_s": found.macs_per_s[precision],
        "peak_bytes_per_s": found.bytes_per_s,
    }  # fmt: skip
    if latency:
        values["share_ratio"] = limit / sorted(latency)[len(latency) // 2]
    return Reading("limit", values)
