"""Interleaved measurement of several targets: fresh processes, short slices, random order, equal noise for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...runtime.errors import EdgesmithError, UsageError
from . import environment
from .cpu_affinity import shared_core
from .process import Process
from .workload import BenchTarget


@dataclass(frozen=True)
class SamplingPlan:
    """Amount of sampling: fresh processes for each target, and seconds and samples for each process."""

    processes: int = 3
    slice_s: float = 0.1
    least_s: float = 1.0
    least: int = 40
    most_s: float = 8.0
    warm_up_s: float = 3.0
    timeout_s: float = 120.0


@dataclass
class Timings:
    """Timings of one target: samples in seconds by process, start-up seconds by stage, or the reason of its failure."""

    samples: list[list[float]] = field(default_factory=list)
    warm: list[bool] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)
    rss: list[dict[str, int]] = field(default_factory=list)
    disturbed: int = 0
    failure: str = ""
    other_load: float | None = None


def collect_samples(
    targets: Sequence[BenchTarget], plan: SamplingPlan, *, seed: int = 0, progress: Callable[[int], None] | None = None
) -> list[Timings]:
    """Measure every target; a target that crashes or hangs does not affect the others.

    Args:
        targets: Files or bundles to measure.
        plan: Amount of sampling.
        seed: Seed of the random order.
        progress: Called with 1 after each process of each target.
    """
    rng = np.random.default_rng(seed)
    timings = [Timings() for _ in targets]
    for _ in range(plan.processes):
        _one_round(targets, timings, plan, rng)
        if progress:
            progress(len(targets))
    return timings


def _one_round(
    targets: Sequence[BenchTarget], timings: list[Timings], plan: SamplingPlan, rng: np.random.Generator
) -> None:
    """One fresh process for each target, all alive at once; one at a time works, on one core."""
    alive: dict[int, Process] = {}
    before, core = environment.cpu_ticks(), shared_core(targets, rng)
    try:
        for index in rng.permutation(len(targets)):
            _start(int(index), targets[index], timings[index], plan, alive, core)
        spent = dict.fromkeys(alive, 0.0)
        while active := [index for index in alive if not _enough(timings[index].samples[-1], spent[index], plan)]:
            for index in rng.permutation(active):
                spent[index] += _slice(int(index), timings[index], plan, alive)
    finally:
        for process in alive.values():
            process.close()
    load = _other_load(before, environment.cpu_ticks())
    for item in timings:
        item.other_load = load


def _start(
    index: int, target: BenchTarget, timing: Timings, plan: SamplingPlan, alive: dict[int, Process], core: int | None
) -> None:  # fmt: skip
    if timing.failure:
        return
    try:
        process = Process(target, timeout_s=plan.timeout_s, core=core)
        alive[index] = process
        warm = process.ask("warm", most_s=plan.warm_up_s)
    except UsageError:  # not the target's failure: it was asked for in a way that nothing can be measured in
        raise
    except EdgesmithError as error:
        _fail(index, timing, error, alive)
        return
    timing.samples.append([])
    timing.warm.append(bool(warm["stationary"]))
    timing.stages.append(process.stages)
    timing.rss.append(process.rss)


def _slice(index: int, timing: Timings, plan: SamplingPlan, alive: dict[int, Process]) -> float:
    """Measure one slice and return its duration in seconds; the first call after a pause is cold and is dropped."""
    try:
        answer = alive[index].ask("run", seconds=plan.slice_s, least=2)
    except EdgesmithError as error:
        _fail(index, timing, error, alive)
        return 0.0
    got: list[float] = answer["samples"]
    timing.samples[-1] += got[1:]
    timing.disturbed += sum(answer["disturbed"][1:])
    return max(sum(got), plan.slice_s)


def _fail(index: int, timing: Timings, error: EdgesmithError, alive: dict[int, Process]) -> None:
    timing.failure = str(error)
    if index in alive:
        alive.pop(index).close()


def _enough(samples: Sequence[float], spent_s: float, plan: SamplingPlan) -> bool:
    return spent_s >= plan.most_s or (spent_s >= plan.least_s and len(samples) >= plan.least)


def _other_load(before: tuple[float, float] | None, after: tuple[float, float] | None) -> float | None:
    """Return how many cores other processes kept busy: all busy cores minus the measuring one."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    cores = environment.here().cores
    return max(0.0, (after[0] - before[0]) / (after[1] - before[1]) * cores - 1)
