"""Sweep cells on many machines by Dask distributed: one benchmark at a time per device.

A worker offers one unit of the resource that names its device:

    dask worker tcp://scheduler:8786 --nthreads 1 --resources orin=1

If a worker dies, its cell is repeated alone; a cell that kills its worker three more times is recorded as failed. Only
the process that runs the sweep writes results, so each result is written once. Needs
`pip install 'edgesmith[cluster]'`; workers need edgesmith and the same paths.
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
    """A dispatcher for `sweep`: a remote scheduler, or a cluster of processes on this machine.

    Args:
        address: "tcp://host:port", or None for workers here.
        resource: The resource of which a cell uses one unit.
        workers: Number of processes if there is no address.

    Raises:
        NotAvailable: Dask distributed is not installed.
        RunError: No scheduler answers at the address.
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
        """Submit the cells, as many at a time as there are workers, and yield their outcomes as they arrive.

        A cell whose worker died may not be the cause; it is repeated alone, after all others.
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
        """Return the outcome of a cell, or None if its worker died."""
        try:
            outcome: Outcome = future.result()
        except self._dask.KilledWorker:
            return None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return Outcome(cell, None, f"the cell failed: {reason}")
        return outcome

    def close(self) -> None:
        """Disconnect from the scheduler; stop the workers that this object started."""
        if getattr(self, "_client", None) is not None:
            self._client.close()
        if self._own is not None:
            self._own.close()
