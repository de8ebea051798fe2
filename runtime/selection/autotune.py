"""Measurement of the fastest candidate on this machine: within two seconds, candidates run in turns.

Loading takes most of that time (OpenVINO: a third of a second per file), so sessions are opened in parallel on all
cores, unless the last one of the same backend took longer than the remaining time. Timed runs are never parallel.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..backends._base import random_feeds
from ..batch_axes import cut
from ..bundle.manifest import GOLDEN_INPUTS
from ..common.machine import cores, thread_counts
from ..errors import CANNOT, UsageError

if TYPE_CHECKING:
    from ..backends._base import Session
    from ..bundle.bundle import Bundle
    from .candidates import Candidate

BUDGET_S = 1.8
# Of the budget: the end of the first backends' heats, of the slow ones', and of opening anything.
FIRST, SECOND, LAST = 0.3, 0.75, 0.85
# What is within TIE of the fastest is as good, and the stated order decides; more threads, which other work on the
# machine disturbs, have to gain THREADS_GAIN; what is beyond BEATEN after a heat is not run again.
TIE, THREADS_GAIN, BEATEN = 1.01, 1.04, 1.15
HEAT_ROUNDS, FINAL_ROUNDS = 2, 12
WARM_UPS, TURN_S = 2, 0.006
# Threads of ONNX Runtime wait for work by spinning, some 35 ms after their last, and more where others want the core.
SETTLED, SETTLE_STEP_S, SETTLE_S = 0.4, 0.005, 0.15
SMALL_S = 0.001
SLOW_TO_LOAD = ("openvino", "openvino_bf16")
Open = Callable[["Candidate", int], "Session"]
Pair = tuple["Candidate", int]
Feeds = Callable[["Session"], dict[str, Any]]


@dataclass(frozen=True)
class Fastest:
    """The fastest candidate, opened; `seconds` is the shortest run of each measured candidate, in order of trial."""

    candidate: Candidate
    threads: int
    session: Session
    seconds: dict[str, float]


def measure(
    candidates: list[Candidate], open_one: Open, threads: int | None, feeds: Feeds | None = None
) -> Fastest | None:
    """Find the fastest candidate of each backend with the most threads, then try these with other thread counts.

    A backend that is slow to load comes second. If a network takes less than SMALL_S on another backend, it starts
    there with one thread: for such networks OpenVINO gains nothing from a second thread (docs/runtime.md).

    Args:
        candidates: Candidates of one device in order of preference; those that exceed the time are skipped.
        open_one: Opens a candidate with a thread count; an error excludes the candidate. It is called from several
            threads at once, except for candidates of a GPU.
        threads: The thread count; None tries several.
        feeds: Returns what to run a session on; None draws random arrays.

    Returns:
        The fastest; None if no candidate could be run. The caller must close its session.
    """
    trial = _Trial(open_one, feeds or (lambda session: random_feeds(session.inputs)))
    counts = [threads] if threads else thread_counts()
    winner: Pair | None = None
    try:
        for slow, share in ((False, FIRST), (True, SECOND)):
            kinds = _kinds(one for one in candidates if (one.backend in SLOW_TO_LOAD) is slow)
            if not kinds:
                continue
            first = counts[-1] if slow and trial.times and min(trial.times.values()) < SMALL_S else counts[0]
            trial.run(trial.enter([[(one, first) for one in kind] for kind in kinds], share), HEAT_ROUNDS, share)
        best = trial.best_of_each()
        others = [[(one, count)] for one, first in best for count in counts if count != first]
        trial.enter(others, LAST)
        trial.run(trial.unbeaten(), FINAL_ROUNDS, 1.0)
        if not trial.times:
            return None
        winner = trial.fastest()
        seconds = {f"{one.artefact.name} with {one.backend}, {n} threads": s for (one, n), s in trial.times.items()}
        return Fastest(*winner, trial.sessions[winner], seconds)
    finally:
        for pair, session in trial.sessions.items():
            if pair != winner:
                session.close()


def _kinds(candidates: Iterable[Candidate]) -> list[list[Candidate]]:
    """Group candidates that a CPU computes alike; one per group is measured, which leaves time for thread counts.

    A CPU computes FP16 in FP32, so two INT8 files of one target that differ only in FP32 or FP16 are alike too.
    """
    kinds: dict[tuple[str, ...], list[Candidate]] = {}
    for one in candidates:
        artefact = one.artefact
        precision = {"fp16": "fp32"}.get(artefact.precision, artefact.precision)
        target = "" if precision == "fp32" else artefact.target
        kind = (one.backend, artefact.role, precision, target) if one.device == "cpu" else (artefact.name, one.backend)
        kinds.setdefault(kind, []).append(one)
    return list(kinds.values())


class _Trial:
    """The opened sessions, and the shortest run of each."""

    def __init__(self, open_one: Open, draw: Feeds) -> None:
        self._open, self._draw, self._start = open_one, draw, time.perf_counter()
        self._took: dict[str, float] = {}
        self._feeds: dict[Pair, dict[str, Any]] = {}
        self.sessions: dict[Pair, Session] = {}
        self.times: dict[Pair, float] = {}

    def left(self, share: float) -> float:
        """Return the seconds until a share of the budget is used."""
        return self._start + share * BUDGET_S - time.perf_counter()

    def enter(self, kinds: list[list[Pair]], share: float) -> list[Pair]:
        """Open the first candidate of each kind that can be opened; return the opened ones in the given order."""
        alone = any(one.device == "gpu" for kind in kinds for one, _ in kind)
        with ThreadPoolExecutor(1 if alone else max(1, cores())) as pool:
            entered = list(pool.map(lambda kind: self._enter_one(kind, share), kinds))
        pairs = [pair for pair in entered if pair is not None]
        self.sessions.update(pairs)
        return [pair for pair, _ in pairs]

    def _enter_one(self, kind: list[Pair], share: float) -> tuple[Pair, Session] | None:
        for pair in kind:
            backend, start = pair[0].backend, time.perf_counter()
            # Without any session there is no answer, so the first ones are opened however long it takes.
            if self.sessions and self.left(share) < self._took.get(backend, 0.0):
                return None
            with contextlib.suppress(*CANNOT):
                session = self._open(*pair)
                self._took[backend] = time.perf_counter() - start
                return pair, session
        return None

    def run(self, pairs: list[Pair], rounds: int, share: float) -> None:
        """Run the sessions in turns, so that load on the machine affects all; keep the shortest time of each."""
        settle()
        for _ in range(rounds):
            for pair in [pair for pair in pairs if pair in self.sessions]:
                try:
                    seconds = self._turn(pair)
                except (*CANNOT, UsageError):
                    self.sessions.pop(pair).close()
                    self.times.pop(pair, None)
                    continue
                self.times[pair] = min(seconds, self.times.get(pair, seconds))
                if pair[1] > 1:
                    settle()
            if self.left(share) < 0:
                return

    def _turn(self, pair: Pair) -> float:
        session = self.sessions[pair]
        if pair not in self._feeds:
            self._feeds[pair] = self._draw(session)
        feeds = self._feeds[pair]
        for _ in range(WARM_UPS):
            _timed(session, feeds)
        end = time.perf_counter() + TURN_S
        least = _timed(session, feeds)
        while time.perf_counter() < end:
            least = min(least, _timed(session, feeds))
        return least

    def fastest(self, backend: str | None = None) -> Pair:
        """Return the fastest, with the lowest thread count that costs almost no time."""
        times = {pair: seconds for pair, seconds in self.times.items() if backend in (None, pair[0].backend)}
        near = {pair: seconds for pair, seconds in times.items() if seconds <= THREADS_GAIN * min(times.values())}
        fewest = min(threads for _, threads in near)
        least = min(seconds for (_, threads), seconds in near.items() if threads == fewest)
        return next(pair for pair, seconds in near.items() if pair[1] == fewest and seconds <= TIE * least)

    def best_of_each(self) -> list[Pair]:
        """Return the fastest candidate of each measured backend."""
        return [self.fastest(name) for name in dict.fromkeys(one.backend for one, _ in self.times)]

    def unbeaten(self) -> list[Pair]:
        """Return the remaining candidates: not run yet, or slower than the fastest by less than BEATEN."""
        least = min(self.times.values(), default=0.0)
        return [pair for pair in self.sessions if self.times.get(pair, least) <= BEATEN * least]


def settle() -> None:
    """Wait until the threads of the last session stop spinning, which would slow the next session."""
    end = time.perf_counter() + SETTLE_S
    while time.perf_counter() < end:
        before = time.process_time()
        time.sleep(SETTLE_STEP_S)
        if time.process_time() - before < SETTLED * SETTLE_STEP_S:
            return


def _timed(session: Session, feeds: dict[str, Any]) -> float:
    start = time.perf_counter()
    session.run(feeds, finite=True)
    return time.perf_counter() - start


def trial_feeds(bundle: Bundle, session: Session) -> dict[str, Any]:
    """Return what is run to measure: the first golden inputs, random ones where there are none."""
    if GOLDEN_INPUTS not in bundle.manifest.files:
        return random_feeds(session.inputs, bundle.spec)
    return cut(session, bundle.golden_inputs(), 0, session.inputs[0].shape[0] or 1)
