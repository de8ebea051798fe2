"""Cells on many machines, by Dask distributed: one benchmark at a time on each device.

A worker offers itself with the resource that its device is called by, one of it:

    dask worker tcp://scheduler:8786 --nthreads 1 --resources orin=1

A worker that dies costs its own cell only: the cell is done again, alone, and one that kills its worker three times
more is written down as failed. Results are written by the one process that runs the sweep, so each
arrives once. Needs `pip install 'edgesmith[cluster]'`; workers need edgesmith and the same paths.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

from ...runtime.common.closeable import Closeable
from ...runtime.common.packages import need
from ...runtime.errors import RunError
from .sweep import Outcome, SweepCell, Work, attempt_cell

TRIES = 3


class Cluster(Closeable):
    """A dispatcher for `sweep`: a scheduler's address, or a cluster of this machine's own processes.

    Args:
        address: "tcp://host:port", or None for workers here.
        resource: The resource that a cell takes one of.
        workers: How many processes, without an address.

    Raises:
        NotAvailable: Dask distributed is not installed.
        RunError: Nothing answers at the address.
    """

    def __init__(self, address: str | None = None, *, resource: str = "device", workers: int = 1) -> None:
        self._dask = need("distributed")
        self._resource, self._own = resource, None
        need("dask").config.set({"distributed.scheduler.allowed-failures": 0})
        if address is None:
            # Workers import nothing out of the working directory; before Python 3.11 nothing can keep them from it.
            os.environ.setdefault("PYTHONSAFEPATH", "1")
            self._own = self._dask.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, resources={resource: 1},
                dashboard_address=None,
            )  # fmt: skip
        try:
            self._client = self._dask.Client(self._own or address, timeout=20)
        except OSError as error:
            self.close()
            raise RunError(
                f"no scheduler answers at {address}", got=str(error), do="start `dask scheduler` there"
            ) from error

    def __call__(self, cells: Sequence[SweepCell], work: Work) -> Iterator[Outcome]:
        """Give out the cells, as many at a time as there are workers, and yield their outcomes as they come.

        A cell that was on a worker when it died may be innocent; it is done again alone, after all others.
        """
        suspects, rest = list[SweepCell](), iter(cells)
        slots = max(1, len(self._client.scheduler_info()["workers"]))
        owner = {self._submit(cell, work): cell for cell in itertools.islice(rest, slots)}
        every = self._dask.as_completed(list(owner))
        for future in every:
            cell = owner.pop(future)
            outcome = self._outcome(future, cell)
            if outcome is None:
                suspects.append(cell)
            else:
                yield outcome
            for following in itertools.islice(rest, 1):
                future = self._submit(following, work)
                owner[future] = following
                every.add(future)
        for cell in suspects:
            yield self._alone(cell, work)

    def _submit(self, cell: SweepCell, work: Work) -> Any:
        return self._client.submit(attempt_cell, cell, work, pure=False, resources={self._resource: 1})

    def _alone(self, cell: SweepCell, work: Work) -> Outcome:
        for _ in range(TRIES):
            if (outcome := self._outcome(self._submit(cell, work), cell)) is not None:
                return outcome
        return Outcome(cell, None, f"the worker was lost in each of {TRIES} runs of this cell alone")

    def _outcome(self, future: Any, cell: SweepCell) -> Outcome | None:
        """Return what became of a cell, or None when its worker died."""
        try:
            outcome: Outcome = future.result()
        except self._dask.KilledWorker:
            return None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return Outcome(cell, None, f"the cell failed: {reason}")
        return outcome

    def close(self) -> None:
        """Leave the scheduler; end the workers that are our own."""
        if getattr(self, "_client", None) is not None:
            self._client.close()
        if self._own is not None:
            self._own.close()
