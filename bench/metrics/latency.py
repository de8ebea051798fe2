"""Latency of one inference and throughput, from warm fresh processes measured in random order.

Percentiles are over all samples; the intervals are hierarchical bootstraps (processes, then samples), at 95 %.
"""

from __future__ import annotations

import numpy as np

from .. import stats
from ..measure import stability
from ..measure.context import MetricContext
from ..measure.environment import here
from ..result import Reading

PERCENTILES = (50, 90, 95, 99)


def measure(context: MetricContext) -> Reading:
    """Return `p50_s`, `p90_s`, `p95_s`, `p99_s`, `min_s`, `mean_s` and `throughput_per_s` (images per second)."""
    timings = context.timings
    if timings.failure or not timings.samples:
        return Reading("latency", missing=timings.failure or "not measured")
    groups = timings.samples
    flat = [value for group in groups for value in group]
    values = {f"p{q}_s": stats.percentile(flat, q) for q in PERCENTILES}
    mean = sum(flat) / len(flat)
    values |= {"min_s": min(flat), "mean_s": mean, "throughput_per_s": context.subject.batch / mean}
    verdict = stability.judge_samples(groups, timings.warm, timings.other_load, here().cores, timings.disturbed)
    return Reading(
        "latency", values | {"samples_count": float(len(flat))}, _intervals(groups),
        tuple(map(tuple, groups)), verdict.problems,
    )  # fmt: skip


def _intervals(groups: stats.Groups) -> dict[str, tuple[float, float]]:
    def every(rows: stats.Floats) -> stats.Floats:
        return np.vstack([np.percentile(rows, PERCENTILES, axis=1), rows.mean(axis=1)])

    bounds = np.percentile(stats.draws(groups, every, np.random.default_rng(0), 400), [2.5, 97.5], axis=1)
    names = [*(f"p{q}_s" for q in PERCENTILES), "mean_s"]
    return {name: (float(low), float(high)) for name, low, high in zip(names, *bounds, strict=True)}
