"""Resumable sweeps: one measurement at a time per device, each written to disk before the next begins.

A cell is one bundle or file with one form, backend, number of threads and batch. Each finished cell is a separate
file in the store, so that no result is lost if the sweep is stopped, the disk is full or a machine is lost; the same
command continues the sweep. A failed cell is recorded with its reason, and the sweep continues.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ... import __version__
from ...runtime.bundle.bundle import read_bundle
from ...runtime.common.external_data import model_file, read_locations
from ...runtime.common.files import atomic_file, existing_file, sha256
from ...runtime.errors import EdgesmithError
from .. import result, suite
from ..measure import environment
from ..measure.interleave import SamplingPlan
from ..measure.process import require_sizes
from ..result import Run


@dataclass(frozen=True)
class SweepCell:
    """One measurement; plain data, which can be sent to another machine.

    `sha256` is the digest of all that is at the path (`content_digest`); `settings` has everything else that the figure
    depends on (`sweep_settings`). With `data` it is the accuracy on shard `shard` of `shards` of those images, whose
    digest is `data_sha256`; see `bench/sweep/sharded_accuracy.py`.
    """

    path: str
    form: str
    backend: str
    threads: int
    batch: int
    sha256: str = ""
    data: str = ""
    split: str = ""
    shard: int = 0
    shards: int = 0
    shape: str = ""  # of inputs with dynamic axes
    settings: str = ""
    data_sha256: str = ""

    @property
    def key(self) -> str:
        """A short name, equal only for the same cell of the same content, settings, versions and machine."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]

    def check(self) -> None:
        """Compare the content at the path, which may be on another machine, with that of the cell.

        Raises:
            EdgesmithError: It is another file.
        """
        if (digest := content_digest(self.path)) != self.sha256:
            raise EdgesmithError(
                f"{self.path} is not the file of this sweep", got=f"digest {digest[:12]}…",
                expected=f"{self.sha256[:12]}…", do="copy the file to the worker, or start the sweep again",
            )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell: a run as plain JSON values, or the reason of the failure."""

    cell: SweepCell
    run: dict[str, Any] | None
    failure: str = ""


Work = Callable[[SweepCell], dict[str, Any]]
Dispatch = Callable[[Sequence[SweepCell], Work], Iterable[Outcome]]


def content_digest(path: str | Path) -> str:
    """Return the digest of a bundle's manifest, or of an ONNX file with its external data, or of a Python file.

    Raises:
        EdgesmithError: It cannot be read, or a bundle's file differs from its manifest.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        places = read_locations(model_file(path).read_bytes(), path)
        digests = [sha256(path), *(sha256(existing_file(path.parent / place, "weights")) for place in sorted(places))]
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()
    return sha256(existing_file(path, "file")) if path.suffix == ".py" else read_bundle(path).digest


def sweep_settings(**own: Any) -> str:
    """Return the settings of a sweep's cells as JSON: `own`, the versions of the packages, and this machine."""
    here = environment.here()
    facts = {"edgesmith": __version__, "python": here.python, "packages": here.packages, "machine": here.machine()}
    return json.dumps({**facts, **own}, sort_keys=True)


def sweep_cells(
    paths: Iterable[str],
    *,
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
    shape: str = "",
    settings: str = "",
) -> list[SweepCell]:
    """List the cells: every form of every path with every number of threads and every batch.

    Raises:
        EdgesmithError: A path has nothing that can be measured here, or leaves a size free that `shape` does not give.
    """
    cells = []
    for path in paths:
        forms = [one.subject for one in suite.contexts(path, precisions=precisions)]
        require_sizes(str(path), shape)
        digest = content_digest(path)
        for subject, count, batch in itertools.product(forms, threads, batches):
            one = SweepCell(str(path), subject.form, subject.backend, count, batch, digest, shape=shape)
            cells.append(replace(one, settings=settings))
    return cells


class Store:
    """A folder with one JSON file for each finished cell, and one for each failed cell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: SweepCell) -> Path:
        """Return the path of a finished cell."""
        return self.folder / f"{cell.key}.json"

    def has(self, cell: SweepCell) -> bool:
        """Return whether a cell is finished."""
        return self.path(cell).is_file()

    def put(self, outcome: Outcome) -> None:
        """Write an outcome; a success replaces an earlier failure."""
        failed = self.folder / f"{outcome.cell.key}.failed"
        if outcome.run is None:
            with atomic_file(failed) as temporary:
                temporary.write_text(json.dumps({"cell": asdict(outcome.cell), "failure": outcome.failure}))
            return
        with atomic_file(self.path(outcome.cell)) as temporary:
            temporary.write_text(json.dumps(outcome.run))
        failed.unlink(missing_ok=True)

    def get(self, cell: SweepCell) -> Run:
        """Read a finished cell.

        Raises:
            DataError: Its file is damaged.
        """
        return result.read_run(existing_file(self.path(cell), "cell"))

    def failure(self, cell: SweepCell) -> str:
        """Return why a cell failed, or an empty string."""
        failed = self.folder / f"{cell.key}.failed"
        return str(json.loads(failed.read_text())["failure"]) if failed.is_file() else ""


def measure_cell(cell: SweepCell, plan: SamplingPlan, only: Sequence[str] = ()) -> dict[str, Any]:
    """Measure one cell and return the run as plain JSON values.

    Raises:
        EdgesmithError: It cannot be opened, is another file than the cell's, or gave no latency.
    """
    cell.check()
    every = suite.contexts(cell.path, threads=cell.threads, batch=cell.batch, shape=cell.shape)
    chosen = [one for one in every if (one.subject.form, one.subject.backend) == (cell.form, cell.backend)]
    if not chosen:
        raise EdgesmithError(f"{cell.path} no longer has {cell.form} for {cell.backend}", do="start a new sweep")
    run = suite.run_suite(chosen[:1], plan, only=only)
    if missing := run.results[0].readings["latency"].missing:
        raise EdgesmithError(missing)
    return run.to_dict()


def run_locally(cells: Sequence[SweepCell], work: Work) -> Iterator[Outcome]:
    """Measure the cells one after the other on this machine."""
    for cell in cells:
        yield attempt_cell(cell, work)


def attempt_cell(cell: SweepCell, work: Work) -> Outcome:
    """Measure one cell; an error becomes its outcome."""
    try:
        return Outcome(cell, work(cell))
    except EdgesmithError as error:
        return Outcome(cell, None, str(error))


def sweep(
    cells: Sequence[SweepCell], store: Store, work: Work, dispatch: Dispatch = run_locally,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Measure the cells that are not in the store; return the numbers of measured and failed cells.

    Raises:
        EdgesmithError: The store cannot be written; earlier results are in it.
    """
    rest = [cell for cell in dict.fromkeys(cells) if not store.has(cell)]
    done = failed = 0
    for outcome in dispatch(rest, work):
        store.put(outcome)
        done, failed = done + (outcome.run is not None), failed + (outcome.run is None)
        if progress:
            progress(1)
    return done, failed


def gather_cells(cells: Sequence[SweepCell], store: Store) -> list[Run]:
    """Return the stored results of the cells: one run per machine, so that machines are never mixed."""
    machines: dict[str, Run] = {}
    for cell in dict.fromkeys(cells):
        if store.has(cell):
            one = store.get(cell)
            seen = machines.setdefault(one.environment.machine(), replace(one, results=()))
            machines[one.environment.machine()] = replace(seen, results=(*seen.results, *one.results))
    return list(machines.values())
