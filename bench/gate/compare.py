"""Comparison of two stored runs: faster, same, slower, or cannot tell.

The rule, for a practical threshold t (3 %) and the interval [low, high] of the ratio new / base:

    same          1 / (1 + t) < low and high < 1 + t        the change is too small to matter
    slower        low > 1 + t / 2                           most of the interval is beyond the threshold
    faster        high < 1 / (1 + t / 2)
    cannot tell   otherwise: measure more

If the interval contains the true ratio, a slowdown of t or more is never reported as «same», and an unchanged latency
is reported as «slower» only if the interval misses the true ratio by more than t / 2.

Two runs that were not interleaved had different conditions, even on one machine: another day, another load. With
`calibrate`, each latency is divided by the latency of the reference workload of its run, t is at least `STORED` (10 %),
and the whole interval must be beyond t: the reference measures the machine, not its speed for this network.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ...runtime.errors import DataError
from .. import stats
from ..result import Reading, Result, Run
from ..stats import Interval

Answer = Literal["faster", "same", "slower", "cannot tell"]
EXIT = {"faster": 0, "same": 0, "slower": 1, "cannot tell": 3}
THRESHOLD = 0.03
STORED = 0.10


@dataclass(frozen=True)
class Comparison:
    """One subject in two runs: the ratio of the median latencies, and the answer with its reason."""

    key: str
    answer: Answer
    ratio: Interval | None
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def decide_ratio(ratio: Interval, threshold: float = THRESHOLD, doubt: float = 0.5) -> Answer:
    """Apply the rule of this file to the interval of a ratio new / base; it must lie beyond `doubt` times t."""
    if ratio.low > 1 / (1 + threshold) and ratio.high < 1 + threshold:
        return "same"
    if ratio.low > 1 + doubt * threshold:
        return "slower"
    return "faster" if ratio.high < 1 / (1 + doubt * threshold) else "cannot tell"


def compare_runs(
    base: Run, new: Run, *, threshold: float = THRESHOLD, other_machine: bool = False, calibrate: bool = False
) -> list[Comparison]:
    """Compare every subject that both runs measured.

    Args:
        base: The earlier run.
        new: The later run.
        threshold: Smallest slowdown that counts, as a share (0.03: 3 %).
        other_machine: Compare even if the machines differ; every answer then says that this is weak evidence.
        calibrate: Divide by the reference workload of each run.

    Raises:
        DataError: The runs are of different machines, have no subject in common, one has two results under one name, or
            they are to be calibrated and one has no reference workload.
    """
    mixed = base.environment.machine() != new.environment.machine()
    if mixed and not other_machine:
        raise DataError(
            "the results come from different machines", got="; ".join(base.environment.differences(new.environment)),
            expected="two runs on one machine", do="measure both on one machine, or pass --other-machine",
        )  # fmt: skip
    _check_keys(base, "base")
    _check_keys(new, "new")
    theirs = {result.subject.key: result for result in new.results}
    common = [(result, theirs[result.subject.key]) for result in base.results if result.subject.key in theirs]
    if not common:
        got = f"{_keys(base)} against {_keys(new)}"
        raise DataError("the two results measured no subject in common", got=got, do="measure the same model in both")
    caveats = ["different machines: this is weak evidence"] if mixed else []
    speed = None
    if calibrate:
        speed, threshold = _speed(base, new), max(threshold, STORED)
        caveats.append(f"the reference workload took {speed.estimate:.2f} times as long; latencies are divided by "
                       f"this factor. The runs were not interleaved, so the threshold is {threshold:.0%}")  # fmt: skip
    return [_one(old, fresh, threshold, speed, caveats) for old, fresh in common]


def _check_keys(run: Run, which: str) -> None:
    """Refuse a run in which two results have the same name: it is ambiguous which of them to compare."""
    counts = Counter(result.subject.key for result in run.results)
    if doubles := [key for key, count in counts.items() if count > 1]:
        raise DataError(
            f"the {which} result has several figures under one name", got=", ".join(doubles),
            expected="one for each network, form, backend, threads and batch",
            do="measure again, each bundle of one network in a run of its own",
        )  # fmt: skip


def _speed(base: Run, new: Run) -> Interval:
    """Return the ratio of the reference workload's latencies."""
    for name, run in (("base", base), ("new", new)):
        if not run.reference:
            raise DataError(
                f"the {name} result cannot be calibrated", got="no reference workload in it",
                expected="a result of `edgesmith bench`, which measures one beside the networks", do="measure again",
            )  # fmt: skip
    return stats.ratio(base.reference, new.reference)


def _one(old: Result, new: Result, threshold: float, speed: Interval | None, caveats: list[str]) -> Comparison:
    key, problem = old.subject.key, _incomparable(old, new)
    if problem:
        return Comparison(key, "cannot tell", None, problem)
    before, after = old.readings["latency"], new.readings["latency"]
    ratio = stats.ratio(before.samples, after.samples)
    if speed is not None:
        ratio = _over(ratio, speed)
    answer = decide_ratio(ratio, threshold, 0.5 if speed is None else 1.0)
    return Comparison(key, answer, ratio, _why(answer, ratio, threshold, [before, after], caveats))


def _over(ratio: Interval, speed: Interval) -> Interval:
    """Divide two independent ratios; the half widths of their logarithms add in quadrature."""
    logs = [[math.log(value) for value in (one.estimate, one.low, one.high)] for one in (ratio, speed)]
    (centre, low, high), (other, slow, fast) = logs
    middle = centre - other
    bounds = middle - math.hypot(centre - low, fast - other), middle + math.hypot(high - centre, other - slow)
    return Interval(math.exp(middle), math.exp(bounds[0]), math.exp(bounds[1]), ratio.level)


def _incomparable(old: Result, new: Result) -> str:
    """Return why two results cannot be compared, or an empty string."""
    for name, one in (("base", old), ("new", new)):
        reading = one.readings.get("latency")
        if reading is None or reading.missing or not reading.samples:
            return f"{name} has no latency: {reading.missing if reading else 'not measured'}"
        if len(reading.samples) < 2:
            return f"{name} has one process only; measure at least 2 (--processes)"
    if old.subject.input_shape != new.subject.input_shape:
        return f"the input shapes differ: {old.subject.input_shape} against {new.subject.input_shape}"
    return ""


def _why(answer: Answer, ratio: Interval, threshold: float, readings: Sequence[Reading], caveats: list[str]) -> str:
    span = f"{ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}"
    text = {
        "same": f"a change of {span} is below {threshold:.0%}",
        "cannot tell": f"a change of {span} leaves it open; measure more processes, or use `edgesmith gate`",
    }.get(answer, f"a change of {span}")
    notes = sorted({note for reading in readings for note in reading.notes if "p99" not in note})
    return "; ".join([text, *notes, *caveats])


def _keys(run: Run) -> str:
    return ", ".join(result.subject.key for result in run.results) or "nothing"


def worst_code(comparisons: Sequence[Comparison]) -> int:
    """Return the exit code of several answers: 1 if any is slower, else 3 if any is "cannot tell", else 0."""
    codes = {EXIT[item.answer] for item in comparisons}
    return 1 if 1 in codes else max(codes)
