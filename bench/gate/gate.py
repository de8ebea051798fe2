"""The latency gate: measures both versions in pairs of fresh processes until the answer is known.

Each pair of processes gives one number, the median over short blocks of log(new slice / base slice). Blocks run in the
order base-new or new-base at random, on one core, so that other load affects both. Pairs are independent: after each
pair the rule of `decide_ratio` is applied to Student's t interval of their mean.

Repeated looks raise the error rate. With confidence `LOOK_LEVEL` at each look, the probability that any of the 21 looks
from the 4th to the 24th pair has an interval without the true value is 4.7 % for normal pairs and 3.5 % for Student's t
with 3 degrees of freedom (20,000 simulated gates; one level at every look as in Pocock, 1977). The hierarchical
bootstrap is only reported: with so few clusters its interval is too narrow to decide on.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...runtime.errors import EdgesmithError
from .. import stats
from ..measure import clock
from ..measure.cpu_affinity import shared_core
from ..measure.process import Process
from ..measure.workload import BenchTarget
from ..stats import Interval
from .compare import EXIT, THRESHOLD, Answer, decide_ratio

LOOK_LEVEL = 0.008
LEAST_PAIRS, MOST_PAIRS = 4, 24


@dataclass(frozen=True)
class Rule:
    """Threshold and time limit of a gate.

    `threshold` is the smallest slowdown that counts (0.03: 3 %); `most_s` ends the gate with «cannot tell»; a pair of
    processes is measured in `blocks` of two slices of `slice_s` seconds, after at most `warm_up_s` seconds of warm-up.
    """

    threshold: float = THRESHOLD
    most_s: float = 120.0
    most_pairs: int = MOST_PAIRS
    blocks: int = 16
    slice_s: float = 0.03
    warm_up_s: float = 1.0
    timeout_s: float = 120.0


@dataclass(frozen=True)
class LatencyPair:
    """Result of one pair of fresh processes: for each block the samples (seconds) of base and new."""

    base: tuple[tuple[float, ...], ...]
    new: tuple[tuple[float, ...], ...]

    @functools.cached_property
    def log_ratio(self) -> float:
        """The median over the blocks of log(new / base)."""
        return float(np.median(self.block_ratios))

    @functools.cached_property
    def block_ratios(self) -> list[float]:
        """Return log(median new / median base) of each block."""
        blocks = zip(self.base, self.new, strict=True)
        return [math.log(float(np.median(new)) / float(np.median(base))) for base, new in blocks]


@dataclass(frozen=True)
class Gate:
    """The answer, the interval of new / base behind it, and the pairs and seconds that it took."""

    answer: Answer
    ratio: Interval
    bootstrap: Interval
    pairs: int
    seconds: float
    base_s: float
    new_s: float
    threshold: float
    why: str

    @property
    def exit_code(self) -> int:
        """0 for faster and same, 1 for slower, 3 for cannot tell."""
        return EXIT[self.answer]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = asdict(self)
        for name in ("ratio", "bootstrap"):
            plain[name] = {key: (value if math.isfinite(value) else None) for key, value in plain[name].items()}
        return plain


def gate(
    base: BenchTarget, new: BenchTarget, rule: Rule | None = None, *, seed: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Gate:  # fmt: skip
    """Measure pairs until the answer is known or the time limit is reached.

    Raises:
        EdgesmithError: A version cannot be opened, crashes or hangs.
    """
    rule = rule or Rule()
    began, pairs = clock.now_ns(), list[LatencyPair]()
    try:
        for pair in measure_pairs(base, new, rule, np.random.default_rng(seed)):
            pairs.append(pair)
            if progress:
                progress(1)
            spent = (clock.now_ns() - began) * 1e-9
            if gate_answer(pairs, rule) != "cannot tell" or spent + spent / len(pairs) > rule.most_s:
                break
    except EdgesmithError:
        if not pairs or (clock.now_ns() - began) * 1e-9 < rule.most_s:  # else the last pair was cut off
            raise
    return _conclude(pairs, rule, (clock.now_ns() - began) * 1e-9)


def gate_answer(pairs: Sequence[LatencyPair], rule: Rule) -> Answer:
    """Apply the rule to the pairs measured so far."""
    return decide_ratio(ratio_interval(pairs), rule.threshold) if len(pairs) >= LEAST_PAIRS else "cannot tell"


def ratio_interval(pairs: Sequence[LatencyPair]) -> Interval:
    """Return the interval of new / base at the confidence level of one look."""
    logs = stats.mean_interval([pair.log_ratio for pair in pairs], 1 - LOOK_LEVEL)
    bounds = [math.exp(min(value, 700.0)) for value in (logs.estimate, logs.low, logs.high)]
    return Interval(bounds[0], bounds[1], bounds[2], 1 - LOOK_LEVEL)


def measure_pairs(base: BenchTarget, new: BenchTarget, rule: Rule, rng: np.random.Generator) -> Iterator[LatencyPair]:
    """Yield at most `rule.most_pairs` pairs."""
    end = clock.now_ns() + round(rule.most_s * 1e9)
    for _ in range(min(rule.most_pairs, MOST_PAIRS)):
        yield measure_pair(base, new, rule, rng, end)


def measure_pair(
    base: BenchTarget, new: BenchTarget, rule: Rule, rng: np.random.Generator, end: int = 0
) -> LatencyPair:
    """Start both versions in random order on one core, warm both up, and measure blocks in random order.

    A version that gives no answer until the time `end` of the clock (0: none), or for `rule.timeout_s`, is killed.

    Raises:
        EdgesmithError: A version cannot be opened, crashes or hangs.
    """
    targets, open_ = (base, new), dict[int, Process]()
    core = shared_core(targets, rng)
    try:
        for which in rng.permutation(2):
            open_[int(which)] = Process(targets[which], timeout_s=rule.timeout_s, core=core, end=end)
        for which in rng.permutation(2):
            open_[int(which)].ask("warm", most_s=rule.warm_up_s)
        blocks: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
        for _ in range(rule.blocks):
            for which in rng.permutation(2):
                blocks[which].append(drop_preempted(open_[int(which)].ask("run", seconds=rule.slice_s, least=3)))
        return LatencyPair(tuple(blocks[0]), tuple(blocks[1]))
    finally:
        for process in open_.values():
            process.close()


def drop_preempted(slice_: dict[str, Any]) -> tuple[float, ...]:
    """Return a slice's samples without the first, which is cold, and without preempted ones.

    A preempted sample measures other processes. If nearly all samples are preempted, they are kept.
    """
    rest = list(zip(slice_["samples"], slice_["disturbed"], strict=True))[1:]
    clean = tuple(seconds for seconds, disturbed in rest if not disturbed)
    return clean or tuple(seconds for seconds, _ in rest)


def _conclude(pairs: Sequence[LatencyPair], rule: Rule, seconds: float) -> Gate:
    ratio, answer = ratio_interval(pairs), gate_answer(pairs, rule)
    logs = stats.bootstrap([pair.block_ratios for pair in pairs])
    span = f"{ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}"
    why = f"new is {span} slower than base, after {len(pairs)} pairs of processes"
    if answer == "cannot tell":
        why += "; do: stop other work on this machine, or allow more time (--max-seconds)"
    return Gate(
        answer, ratio, Interval(*(math.exp(value) for value in (logs.estimate, logs.low, logs.high))), len(pairs),
        seconds, _median(pair.base for pair in pairs), _median(pair.new for pair in pairs), rule.threshold, why,
    )  # fmt: skip


def _median(sides: Iterator[tuple[tuple[float, ...], ...]]) -> float:
    return float(np.median([value for side in sides for block in side for value in block]))
