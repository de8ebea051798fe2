"""Verification of a bundle: digests against the manifest, and outputs on this machine against golden outputs.

The error of a replay is max |a - b| / max |b| for each output, where b is recorded: it is large for a scaled, negated,
permuted or zero output, and NaN or Inf never passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .batch_axes import count_samples, cut, may_be_first, slices
from .bundle import companions
from .bundle.bundle import Bundle, read_bundle
from .bundle.manifest import GOLDEN_INPUTS, NAME, SIGNATURE
from .common.display import Displayed, Table
from .errors import BuildError, BundleError, EdgesmithError, NotAvailable, RunError
from .selection.candidates import backends_for, open_artefact, refused, retired, tolerance, usable
from .tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backends._base import Session
    from .bundle.manifest import Artefact
    from .spec import ModelSpec

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Replay:
    """One artefact on one backend: `status` is "passed", "failed", "differs" or "skipped".

    `error` is that of the worst output; `agreement` is the share of equal choices on the golden inputs, 0 to 1 (of
    classes, of pixels), None if the task has no choices.
    """

    artefact: str
    backend: str
    status: str
    reason: str = ""
    error: float | None = None
    tolerance: float | None = None
    agreement: float | None = None


@dataclass(frozen=True, eq=False, repr=False)
class VerifyReport(Displayed):
    """The problems of files and the result of each replay."""

    bundle: str
    digest: str
    files: int
    problems: dict[str, str]
    replays: tuple[Replay, ...]

    @property
    def verdict(self) -> str:
        """Return "passed", "failed", or "cannot tell" if nothing could be replayed."""
        right = {replay.artefact for replay in self.replays if replay.status == "passed"}
        wrong = {replay.artefact for replay in self.replays if replay.status == "differs"} - right
        if self.problems or wrong or any(replay.status == "failed" for replay in self.replays):
            return "failed"
        return "passed" if right else "cannot tell"

    @property
    def passed(self) -> bool:
        """Whether every digest is correct, at least one replay ran, and none failed."""
        return self.verdict == "passed"

    def headline(self) -> str:
        """Return the verdict with the numbers of replays and problems."""
        passed = sum(replay.status == "passed" for replay in self.replays)
        replays = f"{passed} of {len(self.replays)} replays passed"
        return f"{self.bundle}: {self.verdict}; {self.files} files, {len(self.problems)} with problems; {replays}"

    def table(self) -> Table:
        """Return the replays."""
        heads = ("artefact", "backend", "replay", "error", "allowed", "why")
        return heads, [(r.artefact, r.backend, r.status, r.error, r.tolerance, r.reason) for r in self.replays]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {**asdict(self), "verdict": self.verdict}


def verify(bundle: str | Path | Bundle, *, threads: int | None = None) -> VerifyReport:
    """Recompute the digest of every file and replay the golden inputs through every artefact that runs here.

    Raises:
        BundleError: It is not a bundle, or the golden inputs cannot be read.
        UsageError: The path does not exist.
    """
    if not isinstance(bundle, Bundle):
        bundle = read_bundle(bundle)
    problems = {name: problem for name in bundle.manifest.files if (problem := bundle.problem(name))}
    problems |= companions.companion_problems(bundle, problems) | _unlisted(bundle)
    replays = [replay for artefact in bundle.artefacts for replay in _replays(bundle, artefact, problems, threads)]
    return VerifyReport(str(bundle.source), bundle.digest, len(bundle.manifest.files), problems, tuple(replays))


def _unlisted(bundle: Bundle) -> dict[str, str]:
    names = {path.relative_to(bundle.folder).as_posix() for path in bundle.folder.rglob("*") if not path.is_dir()}
    return dict.fromkeys(sorted(names - set(bundle.manifest.files) - {NAME, SIGNATURE}), "is not in the manifest")


def _replays(bundle: Bundle, artefact: Artefact, problems: Mapping[str, str], threads: int | None) -> list[Replay]:
    if any(name in problems for name in (artefact.path, artefact.golden, GOLDEN_INPUTS, *artefact.companions)):
        return [Replay(artefact.name, "", "skipped", "its files do not match the manifest")]
    if artefact.golden is None:
        return [Replay(artefact.name, "", "skipped", "it has no golden outputs")]
    if why := retired(artefact):
        return [Replay(artefact.name, "", "skipped", why)]
    first, *others = backends_for(artefact)
    names = (first, *(one for one in others if usable(one)[0] and not refused(artefact, one)))
    return [_replay(bundle, artefact, name, threads) for name in names]


def _replay(bundle: Bundle, artefact: Artefact, backend: str, threads: int | None) -> Replay:
    try:
        with open_artefact(bundle, artefact, backend, threads=threads) as session:
            return replayed(bundle, artefact, backend, session)
    except BundleError:
        raise
    except (NotAvailable, BuildError) as error:
        return Replay(artefact.name, backend, "skipped", str(error))
    except EdgesmithError as error:
        return Replay(artefact.name, backend, _wrong(artefact, backend), str(error))


def _wrong(artefact: Artefact, backend: str) -> str:
    """Return the status of a replay that went wrong: on another backend than the first the artefact may still be right.

    `load` refuses such a pair on this machine.
    """
    return "failed" if backend == backends_for(artefact)[0] else "differs"


def replayed(bundle: Bundle, artefact: Artefact, backend: str, session: Session, images: int | None = None) -> Replay:
    """Replay the first `images` golden inputs through an open session, and compare the outputs.

    With a backend that is not the artefact's first choice, the status is "differs" instead of "failed": `load` refuses
    this pair on this machine, but the artefact is still valid if another backend computes it.
    """
    if artefact.golden is None:
        return Replay(artefact.name, backend, "skipped", "it has no golden outputs")
    inputs, expected = bundle.golden_inputs(), bundle.arrays(artefact.golden, empty=True)
    if images is not None and _one_row_an_image(session, inputs, expected):
        batch = session.inputs[0].shape[0] or 1
        count = images // batch * batch or batch
        inputs, expected = cut(session, inputs, 0, count), {name: array[:count] for name, array in expected.items()}
    got = replay(session, inputs)
    worst = max((relative_error(got[name], value) if name in got else math.inf) for name, value in expected.items())
    odd = [name for name, value in {**expected, **got}.items() if not np.isfinite(value).all()]
    allowed = tolerance(artefact, backend)
    passed = worst <= allowed and not odd
    reason = "" if passed else "its outputs differ from the recorded ones"
    reason = f"output {odd[0]!r} holds NaN or Inf" if odd else reason
    count = count_samples(session, inputs)
    agreement = _agreement(bundle.spec, got, expected, count) if {*got} >= {*expected} else None
    figures = (worst if math.isfinite(worst) else None, allowed, agreement)
    return Replay(artefact.name, backend, "passed" if passed else _wrong(artefact, backend), reason, *figures)


def _agreement(spec: ModelSpec, got: Arrays, expected: Arrays, count: int) -> float | None:
    """Return the share of equal choices; None if an output does not have one row per image."""
    if {np.shape(side[name])[:1] for side in (got, expected) for name in expected} != {(count,)}:
        return None
    task, context = find(spec.task), spec.context()
    batches = []
    for side in (got, expected):
        parts = [task.reduce({name: side[name][at] for name in expected}, context) for at in range(count)]
        batches.append({name: [part[name] for part in parts] for name in parts[0]})
    return task.agreement(batches[0], batches[1], context)


def _one_row_an_image(session: Session, inputs: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Return whether the first recorded outputs belong to the first inputs."""
    rows = {np.shape(array)[:1] for array in expected.values()}
    return rows == {(count_samples(session, inputs),)} and may_be_first(session)


def replay(session: Session, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run all samples through a session of any batch size, and return the outputs of all runs.

    Outputs of several runs are joined along the first axis, which is sufficient to compare two replays.

    Args:
        session: An open session.
        inputs: One array per input; the first axis of those that have the batch is the number of samples N.

    Raises:
        DataError: N is not a multiple of the session's batch.
        RunError: The backend failed, or outputs of different runs have different shapes.
    """
    parts = [session.run(part) for part in slices(session, inputs)]
    try:
        return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}
    except ValueError as error:
        size = session.inputs[0].shape[0]
        raise RunError(
            "the outputs of several runs cannot be joined", got=str(error)[:200],
            expected="equal shapes except for the first axis", do=f"record golden outputs of {size} sample(s) only",
        ) from error  # fmt: skip


def relative_error(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return max |got - expected| / max |expected|; inf if shapes differ or a value is not finite."""
    if got.shape != expected.shape or not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return math.inf
    difference = float(np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))
    scale = float(np.abs(expected).max(initial=0.0))
    return difference / scale if scale else (math.inf if difference else 0.0)
