"""`edgesmith sweep`: measure every form of every network with every setting, and print the Pareto front."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.common.packages import need
from ..runtime.common.progress import note, progress
from ..runtime.errors import UsageError
from ._sweep_targets import sweep_targets
from .console import command, emit, overwrite, table

if TYPE_CHECKING:
    from ..bench.result import Run
    from ..bench.sweep.sweep import Dispatch, SweepCell


@command("sweep")
@click.argument("paths", nargs=-1, required=True, metavar="NETWORK | BUNDLE | FILE.onnx | FILE.engine | FILE.py…")
@click.option("--resolutions", default="", help="Input sizes in pixels, for networks given by name: 128,160,224.")
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("bundles"), help="Folder of their bundles.")
@click.option("--precision", default="", help="Only these forms: fp32,int8-ort-x86,…")
@click.option("--threads", default="1", show_default=True, help="Thread counts: 1,2,4.")
@click.option("--batch", default="1", show_default=True, help="Batch sizes, if the batch axis is dynamic: 1,8.")
@click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Shape of inputs with dynamic axes.")
@click.option("--processes", default=2, show_default=True, help="Fresh processes for each cell.")
@click.option("--seconds", default=0.5, show_default=True, help="Seconds of measuring in each process.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/sweep"), show_default=True)
@click.option("--timeout", default=120.0, show_default=True, help="Fail a process that is silent for so many seconds.")
@click.option("--evaluate", help="Measure accuracy, not speed, on these data: digits, a folder, arrays.")
@click.option("--split", default="test", show_default=True, help="With --evaluate: test or hard.")
@click.option("--shards", default=8, show_default=True, help="With --evaluate: number of cells that share the images.")
@click.option("--scheduler", help="Address of a Dask scheduler (tls://…) whose workers measure the cells.")
@click.option("--tls-ca", type=click.Path(path_type=Path), help="Certificate of the cluster's authority (PEM).")
@click.option("--tls-cert", type=click.Path(path_type=Path), help="This machine's certificate (PEM).")
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its private key (PEM).  [default: Dask's config]")
@click.option(
    "--plain-tcp",
    is_flag=True,
    help="Allow an unencrypted scheduler elsewhere: all in its network can run code on it and here.",
)
@click.option("--resource", default="device", show_default=True, help="The Dask worker resource that a cell uses.")
@overwrite
def sweep_command(
    paths: tuple[str, ...], resolutions: str, bundles: Path, precision: str, threads: str, batch: str, shape: str,
    processes: int, seconds: float, out: Path, evaluate: str | None, split: str, shards: int, timeout: float,
    scheduler: str | None, tls_ca: Path | None, tls_cert: Path | None, tls_key: Path | None, plain_tcp: bool,
    resource: str, overwrite: bool, as_json: bool,
) -> int:  # fmt: skip
    """Measure every form of every path with every setting; the same command continues an interrupted sweep.

    Exit code 1 when a cell failed.
    """
    from ..bench import result
    from ..bench.measure import interleave
    from ..bench.report import tables
    from ..bench.sweep import sharded_accuracy as evaluating
    from ..bench.sweep import sweep

    before(out, threads, batch, shards, timeout, evaluate, split, overwrite)
    cluster = _cluster(scheduler, resource, (tls_ca, tls_cert, tls_key), plain_tcp)
    forms = [word for word in precision.split(",") if word]
    targets = sweep_targets(paths, resolutions, bundles)
    store = sweep.Store(out / "cells")
    plan = interleave.SamplingPlan(processes=processes, least_s=seconds, timeout_s=timeout)
    work: Callable[[SweepCell], dict[str, Any]] = functools.partial(sweep.measure_cell, plan=plan)
    gather = sweep.gather_cells
    if evaluate:
        work, gather = evaluating.measure_shard, evaluating.gather_shards
        settings = sweep.sweep_settings()
        cells = evaluating.shard_cells(targets, evaluate, split, shards, forms, settings)
    else:
        counts, batches = _numbers(threads, 0), _numbers(batch, 1)
        settings = sweep.sweep_settings(plan=[processes, seconds])
        cells = sweep.sweep_cells(
            targets, precisions=forms, threads=counts, batches=batches, shape=shape, settings=settings
        )
    with cluster() as dispatch, progress("cells", len(cells)) as advance:
        count, failed = sweep.sweep(cells, store, work, dispatch, advance)
    runs = gather(cells, store)
    for number, run in enumerate(runs):
        name = out / ("sweep.json" if len(runs) == 1 else f"sweep-{run.environment.machine()}.json")
        result.write_run(run, name)
        tables.write_text(name.with_suffix(".md"), tables.runs_markdown(run, f"Sweep, machine {number + 1}"))
        note(f"wrote {name}")
    emit([run.to_dict() for run in runs], as_json, lambda: _draw(runs))
    for cell in cells:
        if why := store.failure(cell):
            part = f" shard {cell.shard + 1} of {cell.shards}" if cell.data else f" t{cell.threads} b{cell.batch}"
            note(f"failed: {cell.path} {cell.form}{part}: {why}")
    note(f"{count} cells measured, {len(cells) - count - failed} were measured before, {failed} failed")
    return 1 if failed else 0


def before(
    out: Path, threads: str, batch: str, shards: int, timeout: float, evaluate: str | None, split: str,
    overwrite: bool,
) -> None:  # fmt: skip
    """Check the options and the disk before a network is made or measured.

    Raises:
        UsageError: An invalid number, split, data set or path.
        DataError: The folder of images cannot be used.
    """
    from ..runtime import datasets
    from ..runtime.outputs import claim

    _numbers(threads, 0), _numbers(batch, 1)
    if shards < 1 or timeout <= 0:
        raise UsageError("the limits are not valid", got=f"{shards} shards, {timeout:g} s", expected="more than 0")
    for path, kind in ((out / "sweep.json", "result"), (out / "sweep.md", "markdown")):
        claim(path, kind, overwrite=overwrite)
    if evaluate:
        datasets.load(evaluate, split)


def _numbers(text: str, least: int) -> list[int]:
    try:
        numbers = [int(word) for word in text.split(",")]
    except ValueError:
        numbers = [least - 1]
    if min(numbers) < least:
        raise UsageError(
            "this is not a list of numbers", got=repr(text), expected=f"such as 1,2,4, each {least} or more"
        )
    return numbers


def _cluster(
    scheduler: str | None, resource: str, files: tuple[Path | None, ...], plain: bool
) -> Callable[[], contextlib.AbstractContextManager[Dispatch]]:
    """Check the options of a cluster, and return what connects to it; without a scheduler cells are measured here.

    Raises:
        UsageError: The connection is not encrypted, or a certificate is missing.
        NotAvailable: Dask is not installed.
    """
    from ..bench.sweep import sweep

    if scheduler is None:
        return lambda: contextlib.nullcontext(sweep.run_locally)
    from ..bench.sweep.cluster import Cluster, Tls, check_address
    from ..runtime.common.files import existing_file

    check_address(scheduler, plain)
    need("distributed")
    present = [existing_file(file, "TLS file") for file in files if file]
    if len(present) not in (0, len(files)):
        raise UsageError("TLS needs three files", got=str(len(present)), expected="--tls-ca, --tls-cert and --tls-key")
    tls = Tls(*present) if present else None
    return lambda: Cluster(scheduler, resource=resource, tls=tls, plain=plain)


def _draw(runs: list[Run]) -> None:
    from ..bench.report import tables
    from ..bench.report.view import page_data

    for run in runs:
        shown: dict[str, Any] = page_data([run])["tradeoff"]
        front = {shown["points"][index]["key"] for index in shown["front"]}
        columns = tables.used(run.results)
        rows = [
            ["*" if one.subject.key in front else "", *(column.draw(one) for column in columns)] for one in run.results
        ]
        about = f" (* on the Pareto front of p50 and {shown['accuracy']})" if front else ""
        heads = ["", *(column.head for column in columns)]
        table(f"{run.environment.cpu}{about}", heads, rows, left=4, spare=heads[:4:-1])
