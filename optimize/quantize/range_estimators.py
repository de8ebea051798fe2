"""Which range a tensor's integers cover: five methods on what calibration counted, and the best for each tensor.

min-max          the smallest and the largest value seen
moving-average   each image's extremes, averaged with weight 0.01 for the next image (Jacob et al. 2018)
percentile       leaves 0.01 % of the values out at either end
entropy          the clipping that keeps most of the distribution, by Kullback-Leibler divergence (Migacz 2017)
mse              the clipping with the least mean squared error
auto             for each tensor the one with the least error on the values of the quantised network
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...runtime.common.plugins import did_you_mean
from ...runtime.errors import UsageError
from ..calibration.histogram import Histogram
from ..calibration.statistics import Stats
from .quant_params import QuantParams, quant_params

METHODS = ("min-max", "moving-average", "percentile", "entropy", "mse")
AUTO = "auto"
PERCENTILE = 0.9999
SHARES = np.linspace(1.0, 0.2, 41)
Range = tuple[float, float]


def check_method(name: str) -> str:
    """Return the name of a method.

    Raises:
        UsageError: There is no such method.
    """
    known = (AUTO, *METHODS)
    if name not in known:
        do = did_you_mean(name, known) or "choose one of these"
        raise UsageError(f"unknown range method {name!r}", expected=", ".join(known), do=do)
    return name


def candidates(stats: Stats, kind: str) -> dict[str, Range]:
    """Return the (low, high) that each method gives one tensor; only min-max where nothing was counted."""
    if stats.histogram is None or not stats.histogram.counts.any():
        return {"min-max": (stats.low, stats.high)}
    return {method: _range(stats, stats.histogram, method, kind) for method in METHODS}


def _range(stats: Stats, histogram: Histogram, method: str, kind: str) -> Range:
    """Return the (low, high) of one tensor by one method."""
    if method == "moving-average":
        return stats.average
    if method == "percentile":
        return _inside(stats, histogram.quantile(1 - PERCENTILE), histogram.quantile(PERCENTILE))
    if method == "entropy":
        return _least(stats, kind, lambda ends: divergence(histogram, ends))
    if method == "mse":
        return _least(stats, kind, lambda ends: error(histogram, quant_params(ends[0], ends[1], kind)))
    return stats.low, stats.high


def choose(stats: Stats, method: str, kind: str) -> Range:
    """Return the (low, high) of one tensor by a method; "auto" takes the least squared error on the histogram."""
    histogram = stats.histogram
    if histogram is None or not histogram.counts.any():
        return stats.low, stats.high
    if method != AUTO:
        return _range(stats, histogram, method, kind)
    ranges = candidates(stats, kind)
    return min(ranges.values(), key=lambda ends: error(histogram, quant_params(ends[0], ends[1], kind)))


def error(histogram: Histogram, at: QuantParams) -> float:
    """Return the mean squared error of rounding and clipping the counted values to a grid."""
    used = histogram.counts > 0
    values, counts = histogram.centres[used], histogram.counts[used]
    return float(np.square(at.rounded(values) - values) @ counts / max(int(counts.sum()), 1))


def divergence(histogram: Histogram, ends: Range) -> float:
    """Return the Kullback-Leibler divergence of the counted values from what 255 levels keep of them, in nats.

    Args:
        histogram: The values.
        ends: What the levels cover; what lies outside counts at its ends.
    """
    inside = np.flatnonzero(
        (histogram.centres >= ends[0] - histogram.width) & (histogram.centres <= ends[1] + histogram.width)
    )
    if len(inside) < 2:
        return float("inf")
    first, last = int(inside[0]), int(inside[-1])
    kept = histogram.counts[first : last + 1].astype(np.float64)
    seen = kept.copy()
    seen[0] += histogram.counts[:first].sum()
    seen[-1] += histogram.counts[last + 1 :].sum()
    level = np.arange(len(kept)) * min(255, len(kept)) // len(kept)
    used = kept > 0
    each = np.bincount(level, kept) / np.maximum(np.bincount(level, used), 1)
    approximate = np.where(used, each[level], 0.0)
    if not approximate.sum():
        return float("inf")
    p, q = seen / seen.sum(), np.maximum(approximate / approximate.sum(), 1e-12)
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


def _least(stats: Stats, kind: str, score: Callable[[Range], float]) -> Range:
    """Return the clipped range with the least score: one limit for a symmetric grid, else one end after the other."""
    low, high = min(stats.low, 0.0), max(stats.high, 0.0)
    if kind == "symmetric":
        limits = max(-low, high) * SHARES
        return min(((max(low, -limit), min(high, limit)) for limit in limits.tolist()), key=score)
    high = min((high * SHARES).tolist(), key=lambda end: score((low, end)))
    return min((low * SHARES).tolist() if low else [low], key=lambda end: score((end, high))), high


def _inside(stats: Stats, low: float, high: float) -> Range:
    return max(low, stats.low), min(high, stats.high)
