"""How often do gates cry wolf, and how often do they miss: several rules judged on the same recorded pairs.

A pool of pairs is recorded once for each known slowdown. A gate of ours is replayed on pairs drawn from the pool, and
on the pool in the order of time, cut into gates as they would have run. The rivals get processes of the same pool, but
as they work: base first and new later, so that base and new of one judgement come from different pairs.

    stored 10 %        one process each; alarm when the median grew by more than 10 %
    Mann-Whitney       one process each, base then new; alarm at p < 0.05 and a larger median
    pytest-benchmark   one process each; alarm as `--benchmark-compare-fail=min:5%`
    pyperf             20 processes each, 3 values of a process; alarm when `compare_to` calls it significant and slower
                       (two-sample t test at 95 %)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from edgesmith.bench import stats
from edgesmith.bench.gate.gate import MOST_PAIRS, LatencyPair, Rule, gate_answer
from edgesmith.runtime.errors import UsageError

Judge = Callable[[Sequence[LatencyPair], np.random.Generator], bool]


@dataclass(frozen=True)
class Rate:
    """How one rule did on one slowdown: the share of alarms with Wilson's bounds, and the pairs it took."""

    rule: str
    slowdown: float
    alarms: float
    low: float
    high: float
    judgements: int
    undecided: float = 0.0
    processes: float = 2.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def rates(
    pool: Sequence[LatencyPair], slowdown: float, rule: Rule, *, repeats: int = 1000, seed: int = 0
) -> list[Rate]:
    """Judge one pool by every rule; our gate stops at `rule.most_pairs`.

    Raises:
        UsageError: The pool is too small.
    """
    if len(pool) < MOST_PAIRS:
        expected = f"at least {MOST_PAIRS}, so that no pair is drawn twice"
        raise UsageError("too few pairs to judge rules by", got=str(len(pool)), expected=expected)
    rng = np.random.default_rng(seed)
    replayed = [_replay([pool[i] for i in rng.permutation(len(pool))[:MOST_PAIRS]], rule) for _ in range(repeats)]
    found = [_rate("edgesmith gate", slowdown, replayed)]
    found.append(_rate("edgesmith gate, as they ran", slowdown, in_order(pool, rule)))
    for name, (judge, processes) in RIVALS.items():
        alarms = [judge(pool, rng) for _ in range(repeats)]
        low, high = stats.wilson(sum(alarms), repeats)
        found.append(Rate(name, slowdown, sum(alarms) / repeats, low, high, repeats, 0.0, processes))
    return found


def in_order(pool: Sequence[LatencyPair], rule: Rule) -> list[tuple[str, int]]:
    """Cut a pool into gates as they would have run one after the other; an unfinished last one is left out."""
    told, rest = [], list(pool)
    while len(rest) >= 4:
        name, used = _replay(rest[:MOST_PAIRS], rule)
        if name == "cannot tell" and len(rest) < rule.most_pairs:
            break
        told.append((name, used))
        rest = rest[used:]
    return told


def _replay(pairs: Sequence[LatencyPair], rule: Rule) -> tuple[str, int]:
    pairs = pairs[: rule.most_pairs]
    for count in range(4, len(pairs) + 1):
        if (told := gate_answer(pairs[:count], rule)) != "cannot tell":
            return told, count
    return "cannot tell", len(pairs)


def _rate(name: str, slowdown: float, told: Sequence[tuple[str, int]]) -> Rate:
    count = max(1, len(told))
    alarms = sum(answer == "slower" for answer, _ in told)
    low, high = stats.wilson(alarms, count)
    undecided = sum(answer == "cannot tell" for answer, _ in told) / count
    processes = 2 * float(np.median([used for _, used in told])) if told else math.nan
    return Rate(name, slowdown, alarms / count, low, high, len(told), undecided, processes)


def _one_each(pool: Sequence[LatencyPair], rng: np.random.Generator) -> tuple[stats.Floats, stats.Floats]:
    """Return the samples of one base process and of a new one from another pair."""
    first, second = rng.choice(len(pool), 2, replace=False)
    return np.concatenate(pool[first].base), np.concatenate(pool[second].new)


def _stored(pool: Sequence[LatencyPair], rng: np.random.Generator) -> bool:
    base, new = _one_each(pool, rng)
    return bool(np.median(new) > 1.10 * np.median(base))


def _mann_whitney(pool: Sequence[LatencyPair], rng: np.random.Generator) -> bool:
    base, new = _one_each(pool, rng)
    return bool(np.median(new) > np.median(base) and stats.mann_whitney(base.tolist(), new.tolist()) < 0.05)


def _pytest_benchmark(pool: Sequence[LatencyPair], rng: np.random.Generator) -> bool:
    base, new = _one_each(pool, rng)
    return bool(new.min() > 1.05 * base.min())


def _pyperf(pool: Sequence[LatencyPair], rng: np.random.Generator) -> bool:
    chosen = [rng.permutation(len(pool))[:20] for _ in range(2)]
    base = np.array([_thirds(np.concatenate(pool[i].base)) for i in chosen[0]]).ravel()
    new = np.array([_thirds(np.concatenate(pool[i].new)) for i in chosen[1]]).ravel()
    spread = math.sqrt((base.var(ddof=1) + new.var(ddof=1)) / len(base))
    t = (new.mean() - base.mean()) / spread if spread else 0.0
    return bool(t > stats.t_quantile(0.975, 2 * len(base) - 2))


def _thirds(samples: stats.Floats) -> list[float]:
    return [float(part.mean()) for part in np.array_split(samples, 3)]


RIVALS: dict[str, tuple[Judge, int]] = {
    "stored baseline, 10 %": (_stored, 2),
    "Mann-Whitney, sequential": (_mann_whitney, 2),
    "pytest-benchmark, min:5%": (_pytest_benchmark, 2),
    "pyperf compare_to": (_pyperf, 40),
}
