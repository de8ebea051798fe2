"""How often would the gate cry wolf: gates simulated from recorded pairs of one version with itself.

Both sides of such a pair run the same network, started and measured in random order, so that a log ratio and its
opposite are equally likely. A simulated gate therefore draws pairs with replacement and turns each around by the toss
of a coin; `slowdown` is added to see how often it would be found. Thousands of gates cost nothing, but they know no
more than the recorded pairs: the pool itself is resampled too, and the bounds hold 95 % of what other pools of this
size would have said. What never happened in n pairs happens in at most 3 / n of them (at 95 %); a gate rests on the
mean and the spread of its pairs, so that a single wild one widens the interval instead of moving it out.
Pairs that are near in time are taken as independent: `autocorrelation` says whether they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgesmith.bench import stats
from edgesmith.bench.gate.gate import LEAST_PAIRS, LOOK_LEVEL, MOST_PAIRS, Rule

SLOWER, SAME, FASTER, OPEN = 1, 0, -1, 2


@dataclass(frozen=True)
class Simulated:
    """The share of alarms with its bounds, of gates left undecided, and the median number of pairs to an answer."""

    slowdown: float
    alarms: float
    low: float
    high: float
    undecided: float
    pairs: float
    pool: int
    gates: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def simulate(
    logs: Sequence[float], slowdown: float, rule: Rule, *, pools: int = 200, gates: int = 1000, seed: int = 0
) -> Simulated:
    """Simulate gates on the log ratios of a version with itself, made slower by so much.

    Args:
        logs: The log ratios of recorded pairs.
        slowdown: 0.03: 3 %.
        rule: What the gate goes by.
        pools: How often the pool itself is resampled.
        gates: Simulated gates for each of them.
        seed: Of the draws.
    """
    rng, own = np.random.default_rng(seed), np.asarray(logs, dtype=np.float64)
    answers, used = _gates(own, slowdown, rule, rng, 10 * gates)
    others = [_gates(rng.choice(own, len(own)), slowdown, rule, rng, gates)[0] for _ in range(pools)]
    low, high = np.percentile([float((one == SLOWER).mean()) for one in others], [2.5, 97.5])
    return Simulated(
        slowdown, float((answers == SLOWER).mean()), float(low), float(high), float((answers == OPEN).mean()),
        float(np.median(used)), len(own), 10 * gates,
    )  # fmt: skip


def _gates(logs: stats.Floats, slowdown: float, rule: Rule, rng: np.random.Generator, count: int) -> tuple[Any, Any]:
    most = min(rule.most_pairs, MOST_PAIRS)
    draws = rng.choice(logs, (count, most)) * rng.choice([-1.0, 1.0], (count, most)) + math.log1p(slowdown)
    return judge(draws, rule)


def judge(draws: stats.Floats, rule: Rule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Judge gates, one a row of log ratios in the order they came: return their answers and the pairs they took."""
    looks = np.arange(LEAST_PAIRS, draws.shape[1] + 1)
    centred = draws - draws[:, :1]
    sums, squares = centred.cumsum(1)[:, looks - 1], np.square(centred).cumsum(1)[:, looks - 1]
    spread = np.sqrt(np.maximum(squares - sums * sums / looks, 0.0) / (looks - 1) / looks)
    reach = spread * np.array([stats.t_quantile(1 - LOOK_LEVEL / 2, int(count) - 1) for count in looks])
    middle = sums / looks + draws[:, :1]
    low, high = middle - reach, middle + reach
    limit, doubt = math.log1p(rule.threshold), math.log1p(rule.threshold / 2)
    told = np.full(low.shape, OPEN)
    told[high < -doubt] = FASTER
    told[low > doubt] = SLOWER
    told[(low > -limit) & (high < limit)] = SAME
    known = told != OPEN
    first = np.where(known.any(1), known.argmax(1), len(looks) - 1)
    return told[np.arange(len(draws)), first], looks[first]


def autocorrelation(logs: Sequence[float]) -> float:
    """Return the correlation of each log ratio with the next one; within ±2/√n for independent pairs."""
    values = np.asarray(logs, dtype=np.float64) - np.mean(logs)
    total = float(values @ values)
    return float(values[:-1] @ values[1:]) / total if total else 0.0
