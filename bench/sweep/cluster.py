"""Sweep cells on many machines by Dask distributed: one benchmark at a time per device.

A worker offers one unit of the resource that names its device:

    dask worker tls://scheduler:8786 --nthreads 1 --resources orin=1

If a worker dies, its cell is repeated alone; a cell that kills its worker three more times is recorded as failed. Only
the process that runs the sweep writes results, so each result is written once. Results travel as text and are never
unpickled here. Needs `pip install 'edgesmith[cluster]'`; workers need edgesmith and the same paths. Who may speak to a
scheduler runs code on its workers: see docs/threat-model.md.
"""

from __future__ import annotations

import contextlib
import inspect
import ipaddress
import itertools
import json
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.common.closeable import Closeable
from ...runtime.common.files import existing_file
from ...runtime.common.packages import need
from ...runtime.errors import RunError, UsageError
from .sweep import Outcome, SweepCell, Work, attempt_cell

TRIES = 3


@dataclass(frozen=True)
class Tls:
    """PEM files of a tls:// cluster: the authority's certificate, and this client's certificate and private key."""

    ca: Path
    certificate: Path
    key: Path


def check_address(address: str, plain: bool = False) -> None:
    """Refuse an unencrypted connection to another machine, unless it is wanted.

    Raises:
        UsageError: It is not tls://, not on this machine, and `plain` is false.
    """
    host = (urllib.parse.urlsplit(address if "://" in address else f"tcp://{address}").hostname or "").lower()
    with contextlib.suppress(ValueError):
        host = "localhost" if ipaddress.ip_address(host).is_loopback else host
    if not (plain or address.startswith(("tls://", "wss://")) or host == "localhost"):
        raise UsageError(
            f"the connection to {address} is neither encrypted nor authenticated",
            expected="tls://…, or a scheduler on this machine",
            do="or give --plain-tcp: everyone in that network can then run code here and on the workers",
        )


class Cluster(Closeable):
    """A dispatcher for `sweep`: a remote scheduler, or a cluster of processes on this machine.

    Args:
        address: "tls://host:port", or None for workers here.
        resource: The resource of which a cell uses one unit.
        workers: Number of processes if there is no address.
        tls: Certificates for a tls:// address; None takes those of Dask's own configuration.
        plain: Allow an unencrypted address of another machine.

    Raises:
        UsageError: The address is not encrypted, or no worker has the resource.
        NotAvailable: Dask distributed is not installed.
        RunError: No scheduler answers at the address.
    """

    def __init__(
        self, address: str | None = None, *, resource: str = "device", workers: int = 1, tls: Tls | None = None,
        plain: bool = False,
    ) -> None:  # fmt: skip
        if address is not None:
            check_address(address, plain)
        self._dask = need("distributed")
        self._resource, self._own = resource, None
        self._client: Any = None
        need("dask").config.set({"distributed.scheduler.allowed-failures": 0})
        if address is None:
            # Workers import nothing out of the working directory; before Python 3.11 nothing can keep them from it.
            os.environ.setdefault("PYTHONSAFEPATH", "1")
            self._own = self._dask.LocalCluster(
                n_workers=workers, threads_per_worker=1, processes=True, resources={resource: 1},
                dashboard_address=None,
            )  # fmt: skip
        try:
            self._client = self._dask.Client(
                self._own or address, timeout=20, deserializers=["dask", "msgpack"],
                **({"security": self._security(tls)} if tls else {}),
            )  # fmt: skip
            self._slots = self._count_workers()
        except (OSError, TypeError, ValueError, RuntimeError) as error:  # without certificates Dask raises TypeError
            self.close()
            raise RunError(
                f"no scheduler answers at {address}", got=" ".join(str(error).split())[:300],
                do="start `dask scheduler` there; for tls:// give --tls-ca, --tls-cert and --tls-key",
            ) from error  # fmt: skip
        except UsageError:
            self.close()
            raise

    def _security(self, tls: Tls) -> Any:
        files = [str(existing_file(path, "TLS file")) for path in (tls.ca, tls.certificate, tls.key)]
        return self._dask.Security(
            tls_ca_file=files[0], tls_client_cert=files[1], tls_client_key=files[2], require_encryption=True
        )

    def _count_workers(self) -> int:
        """Return how many workers have the resource: a cell that none can take would wait for ever."""
        everyone = {"n_workers": -1} if "n_workers" in inspect.signature(self._client.scheduler_info).parameters else {}
        workers = self._client.scheduler_info(**everyone)["workers"].values()
        count = sum(int(worker["resources"].get(self._resource, 0) >= 1) for worker in workers)
        if not count:
            names = sorted({name for worker in workers for name in worker["resources"]})
            raise UsageError(
                f"no worker has the resource {self._resource!r}",
                got=f"{len(workers)} workers with {', '.join(names) or 'no resources'}",
                do=f"start one with `dask worker … --nthreads 1 --resources {self._resource}=1`",
            )
        return count

    def __call__(self, cells: Sequence[SweepCell], work: Work) -> Iterator[Outcome]:
        """Submit the cells, as many at a time as there are workers, and yield their outcomes as they arrive.

        A cell whose worker died may not be the cause; it is repeated alone, after all others.
        """
        suspects, rest = list[SweepCell](), iter(cells)
        owner = {self._submit(cell, work): cell for cell in itertools.islice(rest, self._slots)}
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
        return self._client.submit(_attempt_text, cell, work, pure=False, resources={self._resource: 1})

    def _alone(self, cell: SweepCell, work: Work) -> Outcome:
        for _ in range(TRIES):
            if (outcome := self._outcome(self._submit(cell, work), cell)) is not None:
                return outcome
        return Outcome(cell, None, f"the worker was lost in each of {TRIES} runs of this cell alone")

    def _outcome(self, future: Any, cell: SweepCell) -> Outcome | None:
        """Return the outcome of a cell, or None if its worker died."""
        try:
            answer = json.loads(future.result())
            return Outcome(cell, answer["run"], answer["failure"])
        except self._dask.KilledWorker:
            return None
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            return Outcome(cell, None, f"the cell failed: {reason}")

    def close(self) -> None:
        """Disconnect from the scheduler; stop the workers that this object started."""
        for part in (self._client, self._own):
            if part is not None:
                part.close()


def _attempt_text(cell: SweepCell, work: Work) -> str:
    """Measure a cell on a worker, and return its outcome as JSON."""
    try:
        outcome = attempt_cell(cell, work)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        outcome = Outcome(cell, None, f"the cell failed: {reason}")
    return json.dumps({"run": outcome.run, "failure": outcome.failure})
