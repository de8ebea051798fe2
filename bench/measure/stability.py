"""Tests of whether a process is warm and its samples can be trusted, with a remedy for each failure.

Warm: the last two windows of samples have the same median within `WARM` (1 %), and the Mann-Whitney test finds no
difference at 1 in 100. A process that never becomes warm is measured, and the verdict says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import stats
from . import clock

WARM = 0.01  # two windows whose medians differ by less are one level
WINDOW = 10
NOISY = 0.05  # relative spread of the samples above which a verdict is «noisy»


@dataclass(frozen=True)
class Verdict:
    """Whether samples can be trusted, and a remedy for each problem."""

    stable: bool
    problems: tuple[str, ...] = ()


def stationary(samples: Sequence[float], window: int = WINDOW) -> bool:
    """Return whether the last two windows of samples (seconds) have the same level."""
    if len(samples) < 2 * window:
        return False
    before, after = samples[-2 * window : -window], samples[-window:]
    middle = float(np.median(before))
    same_level = abs(float(np.median(after)) - middle) <= WARM * middle
    return same_level or stats.mann_whitney(before, after) > 0.05


def warm_up(call: clock.Call, batch: int = 1, most_s: float = 3.0, least_s: float = 0.05) -> tuple[int, bool]:
    """Call until stationary, for at most `most_s` seconds; return (calls, whether it became stationary)."""
    samples: list[float] = []
    start = clock.now_ns()
    while (spent := (clock.now_ns() - start) * 1e-9) < most_s:
        if spent >= least_s and len(samples) % WINDOW == 0 and stationary(samples):
            return len(samples) * batch, True
        samples.append(clock.once(call, batch))
    return len(samples) * batch, stationary(samples)


def judge_samples(
    groups: stats.Groups, warm: Sequence[bool], load: float | None = None, cores: int = 1, disturbed: int = 0
) -> Verdict:
    """Judge the samples (seconds) of several processes.

    Args:
        groups: The samples of each process.
        warm: For each process, whether its warm-up became stationary.
        load: Mean number of other runnable processes during the measurement, if known.
        cores: Number of cores of the machine.
        disturbed: Number of samples in which the process was preempted.
    """
    verdicts = [
        _not_warm(warm), _noise(groups), _drift(groups), _disagreement(groups), _few(groups), _loaded(load, cores),
        _interrupted(disturbed, groups),
    ]  # fmt: skip
    problems = tuple(problem for problem in verdicts if problem)
    return Verdict(not problems, problems)


def _not_warm(warm: Sequence[bool]) -> str:
    cold = sum(not ready for ready in warm)
    return f"{cold} of {len(warm)} processes never reached a stable latency; do: allow a longer warm-up" if cold else ""


def _noise(groups: stats.Groups) -> str:
    spread = float(np.median([stats.mad(group) / np.median(group) for group in groups]))
    return f"samples spread by {spread:.0%}; do: stop other work, lock the clocks" if spread > NOISY else ""


def _drift(groups: stats.Groups) -> str:
    steps = [_half_step(group) for group in groups if len(group) >= 4 * WINDOW]
    if len(steps) < 2 or min(steps) * max(steps) <= 0 or min(abs(step) for step in steps) < 0.03:
        return ""
    return f"latency drifts by {np.median(steps):+.0%}; do: let the device cool, lock the clocks"


def _half_step(group: Sequence[float]) -> float:
    half = len(group) // 2
    return float(np.median(group[half:]) / np.median(group[:half])) - 1


def _disagreement(groups: stats.Groups) -> str:
    levels = [float(np.median(group)) for group in groups]
    gap = max(levels) / min(levels) - 1
    return f"processes differ by {gap:.0%}; do: use more processes, stop other work" if gap > NOISY else ""


def _few(groups: stats.Groups) -> str:
    count = sum(map(len, groups))
    return (
        f"{count} samples are too few for p99; do: measure for longer" if stats.trusted_percentile(count) < 99 else ""
    )


def _loaded(load: float | None, cores: int) -> str:
    if load is None or load < 0.5 * cores:
        return ""
    return f"other processes kept {load:.1f} of {cores} cores busy; do: stop it"


def _interrupted(disturbed: int, groups: stats.Groups) -> str:
    share = disturbed / max(1, sum(map(len, groups)))
    return f"other processes interrupted {share:.0%} of the samples; do: stop it" if share > NOISY else ""
