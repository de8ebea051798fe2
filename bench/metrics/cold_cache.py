"""Latency with cold caches: that of the first image after a pause or after other work.

Before each call a buffer of twice the last-level cache (64 MB where the system does not report its size) is written, so
that weights and code come from memory. Source: /sys/devices/system/cpu/cpu0/cache (sysfs-devices-system-cpu).
"""

from __future__ import annotations

from pathlib import Path

from .. import stats
from ..measure.context import MetricContext
from ..result import Reading

ON_REQUEST = True
SECONDS, LEAST, FALLBACK_BYTES = 2.0, 20, 1 << 26
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def measure(context: MetricContext) -> Reading:
    """Return `p50_s`, `p90_s` and `mean_s` with cold caches, and `slower_ratio`: cold median / warm median."""
    with context.process() as process:
        process.ask("warm", most_s=1.0)
        samples = process.ask("cold", seconds=SECONDS, least=LEAST, evict_bytes=2 * last_level())["samples"]
    values = {f"p{q}_s": stats.percentile(samples, q) for q in (50, 90)} | {"mean_s": sum(samples) / len(samples)}
    if warm := [value for group in context.timings.samples for value in group]:
        values["slower_ratio"] = values["p50_s"] / stats.percentile(warm, 50)
    bounds = stats.bootstrap([samples])
    return Reading("cold_cache", values, {"p50_s": (bounds.low, bounds.high)}, (tuple(samples),))


def last_level(caches: Path = CACHES) -> int:
    """Return the size in bytes of the largest cache that the system reports, otherwise FALLBACK_BYTES / 2."""
    sizes = [_bytes(path.read_text().strip()) for path in caches.glob("index*/size")]
    return max(sizes, default=0) or FALLBACK_BYTES // 2


def _bytes(text: str) -> int:
    """Parse a size such as «32768K» into bytes."""
    number, unit = text.rstrip("KMG"), UNITS.get(text[-1:], 1)
    return int(number) * unit if number.isdigit() else 0
