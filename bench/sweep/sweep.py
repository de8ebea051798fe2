"""Many measurements, one after the other on each device, resumable: what is done is on disk before the next begins.

A cell is one bundle or file with one form, backend, number of threads and batch. Each finished cell is a file of its
own in the store, so that nothing is lost when the sweep is stopped, the disk fills up or a machine goes away; the same
command goes on where it stopped. A cell that fails is written down with its reason, and the sweep goes on.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ...runtime.common.files import atomic_file, existing_file
from ...runtime.errors import EdgesmithError
from .. import result, suite
from ..measure.interleave import SamplingPlan
from ..result import Run

_OF_IMAGES = ("data", "split", "shard", "shards")


@dataclass(frozen=True)
class SweepCell:
    """One measurement to make; plain data, so that it travels to another machine.

    With `data` it is accuracy on shard `shard` of `shards` of those images; see `bench/sweep/sharded_accuracy.py`.
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

    @property
    def key(self) -> str:
        """A short name that is the same for the same cell of a file that has not changed."""
        fields = {name: value for name, value in asdict(self).items() if self.data or name not in _OF_IMAGES}
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Outcome:
    """What became of a cell: a run as plain JSON values, or the reason why there is none."""

    cell: SweepCell
    run: dict[str, Any] | None
    failure: str = ""


Work = Callable[[SweepCell], dict[str, Any]]
Dispatch = Callable[[Sequence[SweepCell], Work], Iterable[Outcome]]


def sweep_cells(
    paths: Iterable[str],
    *,
    precisions: Sequence[str] = (),
    threads: Sequence[int] = (1,),
    batches: Sequence[int] = (1,),
) -> list[SweepCell]:
    """List the cells: every form of every path with every number of threads and every batch.

    Raises:
        EdgesmithError: A path holds nothing that can be measured here.
    """
    cells = []
    for path in paths:
        forms = [one.subject for one in suite.contexts(path, precisions=precisions)]
        for subject, count, batch in itertools.product(forms, threads, batches):
            cells.append(SweepCell(str(path), subject.form, subject.backend, count, batch, subject.sha256))
    return cells


class Store:
    """A folder with one JSON file for each finished cell, and one for each that failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: SweepCell) -> Path:
        """Return where a finished cell stands."""
        return self.folder / f"{cell.key}.json"

    def has(self, cell: SweepCell) -> bool:
        """Say whether a cell is finished."""
        return self.path(cell).is_file()

    def put(self, outcome: Outcome) -> None:
        """Write an outcome down; a success takes the place of an earlier failure."""
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
        EdgesmithError: It cannot be opened, or gave no latency.
    """
    every = suite.contexts(cell.path, threads=cell.threads, batch=cell.batch)
    chosen = [one for one in every if (one.subject.form, one.subject.backend) == (cell.form, cell.backend)]
    if not chosen:
        raise EdgesmithError(f"{cell.path} no longer has {cell.form} for {cell.backend}", do="start a new sweep")
    run = suite.run_suite(chosen[:1], plan, only=only)
    if missing := run.results[0].readings["latency"].missing:
        raise EdgesmithError(missing)
    return run.to_dict()


def run_locally(cells: Sequence[SweepCell], work: Work) -> Iterator[Outcome]:
    """Do one cell after the other here."""
    for cell in cells:
        yield attempt_cell(cell, work)


def attempt_cell(cell: SweepCell, work: Work) -> Outcome:
    """Do one cell; what goes wrong with it is its outcome."""
    try:
        return Outcome(cell, work(cell))
    except EdgesmithError as error:
        return Outcome(cell, None, str(error))


def sweep(
    cells: Sequence[SweepCell], store: Store, work: Work, dispatch: Dispatch = run_locally,
    progress: Callable[[int], None] | None = None,
) -> tuple[int, int]:  # fmt: skip
    """Do the cells that are not in the store; return how many were done now, and how many failed.

    Raises:
        EdgesmithError: The store cannot be written; what was measured before is in it.
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
    """Return what the store has of the cells: one run for each machine, so that machines are never mixed."""
    machines: dict[str, Run] = {}
    for cell in dict.fromkeys(cells):
        if store.has(cell):
            one = store.get(cell)
            seen = machines.setdefault(one.environment.machine(), replace(one, results=()))
            machines[one.environment.machine()] = replace(seen, results=(*seen.results, *one.results))
    return list(machines.values())
