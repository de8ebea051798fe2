"""Which artefact, backend and thread count is fastest on this machine: measured once, then remembered.

The stated order (choose.py) is right on average; which INT8 form and which library win differs from one processor to
the next. So `load(..., device="auto")` runs each candidate for a moment, two seconds in all, and keeps the answer in
a small file, under a key that changes with the bundle, the processor, the cores and the backends' versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import CANNOT, EdgesmithError
from .files import atomic_file
from .machine import cores, cpu, thread_counts

if TYPE_CHECKING:
    from .backends._base import Session
    from .bundle import Bundle
    from .choose import Candidate

FORMAT = 1
BUDGET_S = 1.8
TIE = 1.03
ROUNDS = 8
TURN_S = 0.004
SMALL_S = 0.001
SLOW_TO_LOAD = ("openvino",)
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}
Open = Callable[["Candidate", "int | None"], "Session"]
Pair = tuple["Candidate", int]


@dataclass(frozen=True)
class Choice:
    """The fastest: artefact, backend, threads; `seconds` is the least time of one run of each that was measured."""

    artefact: str
    backend: str
    threads: int | None
    seconds: dict[str, float]


def folder() -> Path:
    """Return where choices are kept: $EDGESMITH_CACHE, else $XDG_CACHE_HOME/edgesmith, else ~/.cache/edgesmith."""
    if own := os.environ.get("EDGESMITH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgesmith"


def key(bundle: Bundle, candidates: list[Candidate], threads: int | None) -> str:
    """Return what a choice depends on, as one SHA-256."""
    from . import contract

    name, flags = cpu()
    backends = sorted({candidate.backend for candidate in candidates})
    versions = {backend: _version(backend) for backend in backends}
    told = [str(candidate) for candidate in candidates]
    device = contract.gpu() if any(candidate.device == "gpu" for candidate in candidates) else {}
    facts = [FORMAT, bundle.digest, name, sorted(flags), cores(), versions, told, threads, device]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(backend: str) -> str:
    """Return what changes when a backend's package is installed anew, without importing it."""
    found = importlib.util.find_spec(_PACKAGES.get(backend, "numpy"))
    if found is None or not found.origin:
        return ""
    with contextlib.suppress(OSError):
        return f"{found.origin} {Path(found.origin).stat().st_mtime_ns}"
    return ""


def remembered(name: str) -> Choice | None:
    """Return an earlier choice; None where there is none that can be read."""
    try:
        values = json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))
        choice = Choice(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = choice.threads is None or (isinstance(choice.threads, int) and choice.threads > 0)
    timed = isinstance(choice.seconds, dict) and all(isinstance(one, float) for one in choice.seconds.values())
    return choice if whole and timed else None


def remember(name: str, choice: Choice) -> None:
    """Keep a choice; a folder that cannot be written means that it is measured again next time."""
    with contextlib.suppress(EdgesmithError), atomic_file(folder() / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(choice), indent=1) + "\n", encoding="utf-8")


def measure(candidates: list[Candidate], open_one: Open, threads: int | None) -> Choice | None:
    """Run each backend's candidates in turn, its fastest with other thread counts, then the fastest of each backend.

    Args:
        candidates: Of the CPU, in the stated order; those that do not fit into the time are left out.
        open_one: Opens one with a number of threads; its error means that this one cannot be had.
        threads: The number of threads to use; None tries several.

    Returns:
        None where not even one could be run.
    """
    start = time.perf_counter()
    sessions: dict[Pair, Session] = {}
    times: dict[Pair, float] = {}
    finalists: list[Pair] = []
    groups = _groups(_unlike(candidates))
    try:
        for number, group in enumerate(groups, 1):
            deadline = start + BUDGET_S * number / len(groups)
            if best := _best_of(group, open_one, threads, sessions, times, deadline):
                finalists.append(best)
        _interleave({pair: sessions[pair] for pair in finalists if pair in sessions}, times, start + BUDGET_S)
    finally:
        for session in sessions.values():
            session.close()
    if not times:
        return None
    candidate, count = _best(times)
    told = {f"{one.artefact.name} with {one.backend}, {n} threads": seconds for (one, n), seconds in times.items()}
    return Choice(candidate.artefact.name, candidate.backend, count, told)


def _unlike(candidates: list[Candidate]) -> list[Candidate]:
    """Leave out what a CPU computes like another candidate, so that the time suffices for numbers of threads.

    FP16 is computed in FP32 there; of two INT8 files of one target the rest is, in FP32 or in FP16, the same too.
    """
    kept: dict[tuple[str, ...], Candidate] = {}
    for one in candidates:
        artefact = one.artefact
        precision = {"fp16": "fp32"}.get(artefact.precision, artefact.precision)
        target = "" if precision == "fp32" else artefact.target
        kind = (one.backend, artefact.role, precision, target) if one.device == "cpu" else (artefact.name, one.backend)
        kept.setdefault(kind, one)
    return list(kept.values())


def _groups(candidates: list[Candidate]) -> list[list[Candidate]]:
    """Group by backend; one that loads slowly comes last, so that it does not use up the time of the others."""
    names = sorted(dict.fromkeys(one.backend for one in candidates), key=lambda name: name in SLOW_TO_LOAD)
    return [[one for one in candidates if one.backend == name] for name in names]


def _best_of(
    group: list[Candidate],
    open_one: Open,
    threads: int | None,
    sessions: dict[Pair, Session],
    times: dict[Pair, float],
    deadline: float,
) -> Pair | None:
    """Measure one backend's candidates with most threads, then the best of them with fewer.

    Where loading is slow there is seldom time for the second step. There a network that takes another backend less than
    SMALL_S begins with one thread: below that OpenVINO lost by a second thread what it gained (docs/runtime.md).
    """
    counts = [threads] if threads else thread_counts()
    if group[0].backend in SLOW_TO_LOAD and times and min(times.values()) < SMALL_S:
        counts = counts[::-1]
    rivals = {(one, counts[0]) for one in group}
    for candidate in group:
        _start((candidate, counts[0]), open_one, sessions, deadline, needed=not sessions)
    _interleave({pair: sessions[pair] for pair in sessions if pair in rivals}, times, deadline)
    found = {pair: seconds for pair, seconds in times.items() if pair in rivals}
    if not found:
        return None
    best, _ = _best(found)
    for count in counts[1:]:
        _start((best, count), open_one, sessions, deadline)
    _interleave({pair: sessions[pair] for pair in sessions if pair[0] is best}, times, deadline)
    return _best({pair: seconds for pair, seconds in times.items() if pair[0].backend == best.backend})


def _best(times: dict[tuple[Candidate, int], float]) -> tuple[Candidate, int]:
    """Return the first that was opened and is within TIE of the fastest, so that noise does not choose."""
    least = min(times.values())
    return next(pair for pair, seconds in times.items() if seconds <= TIE * least)


def _start(pair: Pair, open_one: Open, sessions: dict[Pair, Session], deadline: float, needed: bool = False) -> None:
    if needed or time.perf_counter() < deadline - 0.1 * BUDGET_S:
        with contextlib.suppress(*CANNOT):
            sessions[pair] = open_one(*pair)


def _interleave(sessions: dict[Pair, Session], times: dict[Pair, float], deadline: float) -> None:
    """Run the sessions in turn, so that a busy moment of the machine hits all alike, and keep each one's least time.

    A turn is some milliseconds, and two runs at least: the first may meet threads of the one before, which still wait
    for work.
    """
    feeds = {pair: _feeds(session) for pair, session in sessions.items()}
    for round_number in range(ROUNDS + 1):
        for pair, session in list(sessions.items()):
            try:
                seconds = _turn(session, feeds[pair])
            except CANNOT:
                session.close()
                del sessions[pair]
                times.pop(pair, None)
                continue
            if round_number:
                times[pair] = min(seconds, times.get(pair, seconds))
        if round_number and time.perf_counter() > deadline:
            return


def _turn(session: Session, feeds: dict[str, Any]) -> float:
    end = time.perf_counter() + TURN_S
    least = min(_timed(session, feeds) for _ in range(2))
    while time.perf_counter() < end:
        least = min(least, _timed(session, feeds))
    return least


def _timed(session: Session, feeds: dict[str, Any]) -> float:
    start = time.perf_counter()
    session.run(feeds, finite=True)
    return time.perf_counter() - start


def _feeds(session: Session) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        tensor.name: (64 * rng.random([dim or 1 for dim in tensor.shape])).astype(tensor.dtype)
        for tensor in session.inputs
    }
