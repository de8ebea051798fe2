"""Ratio of the roofline limit, from the machine's measured peak rates, to the latency.

limit = max(multiply-accumulates / highest rate, bytes of weights / memory bandwidth), with the multiply-accumulates of
the file's operators. A large cache keeps the weights between calls, so the second term rarely matters
for small networks. Activations are ignored: the limit is a lower bound. If a network is faster than its limit, the peak
was measured too low: the limit is then the network's latency, and a note says so.
"""

from __future__ import annotations

from pathlib import Path

from ..measure import machine_peaks
from ..measure.context import MetricContext
from ..measure.layer_profile import profilable
from ..result import Reading


def measure(context: MetricContext) -> Reading:
    """Return `limit_s`, `share_ratio` (limit / p50, at most 1), `run_macs_count` and the two `peak_*_per_s`."""
    subject, latency = context.subject, [value for group in context.timings.samples for value in group]
    profilable(context.target)  # before a process is started for nothing
    with context.process() as process:
        macs = sum(row["macs"] or 0 for row in process.ask("layers", count=1, optimise=False)["rows"])
    peaks = machine_peaks.measure_peaks(subject.threads)
    precision = "int8" if subject.precision == "int8" else "fp32"
    size = Path(context.artifact).stat().st_size
    values = {
        "limit_s": peaks.limit_s(macs, size, precision), "run_macs_count": float(macs),
        "peak_macs_per_s": peaks.macs_per_s[precision], "peak_bytes_per_s": peaks.bytes_per_s,
    }  # fmt: skip
    if not latency:
        return Reading("roofline_share", values)
    limit, median = values["limit_s"], sorted(latency)[len(latency) // 2]
    values |= {"limit_s": min(limit, median), "share_ratio": min(limit / median, 1.0)}
    note = (
        f"{limit / median:.2f} times as fast as the measured ceiling allows: its weights stay in the cache, or the "
        "ceiling was measured while the machine was slow; reported as 100 %"
    )
    return Reading("roofline_share", values, notes=(note,) if median < limit else ())
