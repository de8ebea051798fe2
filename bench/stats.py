"""Statistics for latencies in numpy: intervals that are valid for few processes and for skewed samples.

A measurement has two levels: processes, and samples inside a process. Samples of one process share its memory layout,
so they are not independent; every interval here resamples processes first.

Sources: Efron & Tibshirani, «An Introduction to the Bootstrap» (1993), chapter 13 (percentile interval); Kalibera &
Jones, «Rigorous Benchmarking in Reasonable Time» (2013, ratio of means over several levels); Mann &
Whitney (1947); Student (1908).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtime.common.proportion import wilson as wilson

Floats = NDArray[np.float64]
Groups = Sequence[Sequence[float]]  # one inner sequence of samples for each process
Statistic = Callable[[Floats], Any]  # of each row
REPEATS = 2000
CHUNK = 1 << 20  # values drawn at once


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval at `level` (0.95: 95 %)."""

    estimate: float
    low: float
    high: float
    level: float = 0.95

    @property
    def half_width(self) -> float:
        """Half the distance between the bounds, relative to the estimate."""
        return (self.high - self.low) / 2 / self.estimate if self.estimate else math.inf


def percentile(samples: Sequence[float], q: float) -> float:
    """Return the q-th percentile (0 to 100), linear between order statistics (Hyndman & Fan's type 7)."""
    return float(np.percentile(np.asarray(samples, dtype=np.float64), q))


def trusted_percentile(count: int) -> float:
    """Return the highest percentile that `count` samples can estimate: ten samples must lie above it."""
    return max(0.0, 100.0 * (1 - 10 / count)) if count else 0.0


def resamples(groups: Groups, rng: np.random.Generator, repeats: int = REPEATS) -> Iterator[Floats]:
    """Yield hierarchical bootstrap samples, one per row: processes with replacement, then samples in each.

    Every process has the same weight, independent of its number of samples.
    """
    sizes = np.array([len(group) for group in groups])
    padded = np.zeros((len(groups), sizes.max()))
    for row, group in zip(padded, groups, strict=True):
        row[: len(group)] = group
    rows = max(1, CHUNK // (len(groups) * int(sizes.mean())))
    for start in range(0, repeats, rows):
        choice = rng.integers(0, len(groups), (min(rows, repeats - start), len(groups), 1))
        inside = rng.random((*choice.shape[:2], int(sizes.mean()))) * sizes[choice]
        yield padded[choice, inside.astype(np.int64)].reshape(len(choice), -1)


def draws(groups: Groups, statistic: Statistic, rng: np.random.Generator, repeats: int = REPEATS) -> Floats:
    """Return a statistic of each bootstrap sample; `statistic` maps (rows, samples) to (..., rows)."""
    return np.concatenate([np.asarray(statistic(chunk)) for chunk in resamples(groups, rng, repeats)], axis=-1)


def median(rows: Floats) -> Floats:
    """Return the median of each row."""
    return np.asarray(np.median(rows, axis=1))


def bootstrap(
    groups: Groups, statistic: Statistic = median, *, level: float = 0.95, seed: int = 0, repeats: int = REPEATS
) -> Interval:
    """Return a hierarchical bootstrap percentile interval of a statistic over processes and their samples."""
    values = draws(groups, statistic, np.random.default_rng(seed), repeats)
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    return Interval(_of_all(groups, statistic), float(low), float(high), level)


def ratio(
    base: Groups, new: Groups, statistic: Statistic = median, *, level: float = 0.95, seed: int = 0,
    repeats: int = REPEATS,
) -> Interval:  # fmt: skip
    """Return the interval of statistic(new) / statistic(base), both resampled on both levels, independently."""
    rng = np.random.default_rng(seed)
    ratios = draws(new, statistic, rng, repeats) / draws(base, statistic, rng, repeats)
    low, high = np.percentile(ratios, [50 * (1 - level), 50 * (1 + level)])
    return Interval(_of_all(new, statistic) / _of_all(base, statistic), float(low), float(high), level)


def _of_all(groups: Groups, statistic: Statistic) -> float:
    return float(statistic(np.concatenate([np.asarray(group, dtype=np.float64) for group in groups])[None])[0])


def mean_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return Student's t interval of a mean, which is valid for as few as three independent values."""
    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return Interval(float(sample.mean()), -math.inf, math.inf, level)
    reach = t_quantile(0.5 + level / 2, len(sample) - 1) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    centre = float(sample.mean())
    return Interval(centre, centre - reach, centre + reach, level)


def t_cdf(t: float, degrees: float) -> float:
    """Return the probability that Student's t with `degrees` of freedom is at most `t`.

    With t = sqrt(v)·tan(a) the density becomes cos(a)^(v-1), which 64 Gauss-Legendre points integrate to 1e-12.
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(math.pi)
    nodes, weights = _gauss()
    area = angle / 2 * float(weights @ np.cos(angle / 2 * (nodes + 1)) ** (degrees - 1)) * scale
    return 0.5 + math.copysign(area, t)


@functools.cache
def _gauss() -> tuple[Floats, Floats]:
    return np.polynomial.legendre.leggauss(64)


@functools.lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: float) -> float:
    """Return the quantile of Student's t at the given probability (bisection, to 1e-10)."""
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, 2.0
    while t_cdf(high, degrees) < probability and high < 1e12:
        low, high = high, high * 2
    while high - low > 1e-10 * max(1.0, high):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def mann_whitney(base: Sequence[float], new: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann-Whitney U test (normal approximation with ties, 8 values or more)."""
    n, m = len(base), len(new)
    ranks, ties = _ranks(np.concatenate([np.asarray(base, float), np.asarray(new, float)]))
    u = float(ranks[:n].sum()) - n * (n + 1) / 2
    total = n + m
    spread = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    if spread == 0:
        return 1.0
    return 2 * NormalDist().cdf(-max(0.0, abs(u - n * m / 2) - 0.5) / spread)


def _ranks(values: Floats) -> tuple[Floats, float]:
    """Mid-ranks from 1, and the sum of t³ - t over groups of t equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse], float((counts**3.0 - counts).sum())


def mad(samples: Sequence[float]) -> float:
    """Return the median absolute deviation, scaled to the standard deviation of a normal distribution."""
    values = np.asarray(samples, dtype=np.float64)
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
