"""Cells on many machines, by Dask distributed: one benchmark at a time on each device.

A worker offers itself with the resource that its device is called by, one of it:

    dask worker tcp://scheduler:8786 --nthreads 1 --resources orin=1

A worker that dies costs its own cell only: Dask gives the cell to another one, three times at most, and a cell that
kills every worker is written down as failed. Results are written by the one process that runs the sweep, so each
arrives once. Needs `pip install distributed`; workers need edgesmith and the same paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..runtime.console import need
from ..runtime.errors import RunError
from .sweep import Cell, Outcome, Work, attempt

TRIES = 3


class Cluster:
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
        need("dask").config.set({"distributed.scheduler.allowed-failures": TRIES - 1})
        if address is None:
            self._own = self._dask.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, resources={resource: 1},
                dashboard_address=None,
            )  # fmt: skip
        try:
            self._client = self._dask.Client(self._own or address, timeout=20)
        except OSError as error:
            self.close()
            raise RunError(
                f"nothing answers at {address}", got=str(error), do="start `dask scheduler` there"
            ) from error

    def __call__(self, cells: Sequence[Cell], work: Work) -> Iterator[Outcome]:
        """Give out the cells and yield their outcomes as they come."""
        waiting = {
            self._client.submit(attempt, cell, work, key=f"{cell.key}-{number}", pure=False,
                                resources={self._resource: 1}): cell
            for number, cell in enumerate(cells)
        }  # fmt: skip
        for future in self._dask.as_completed(list(waiting)):
            yield self._outcome(future, waiting[future])

    def _outcome(self, future: Any, cell: Cell) -> Outcome:
        try:
            outcome: Outcome = future.result()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return Outcome(cell, None, f"the worker was lost: {reason}")
        return outcome

    def close(self) -> None:
        """Leave the scheduler; end the workers that are our own."""
        if getattr(self, "_client", None) is not None:
            self._client.close()
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
