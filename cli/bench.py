"""`edgesmith bench`: measure bundles; without a bundle, make the networks of the table and measure them.

The table is mobilenetv2 and shufflenetv2 against resnet18 and resnet50 at 224x224, 1000 classes, batch 1; with --all
the networks of `_bench_table.py`. Latency, memory and size do not depend on the weights, so they are random; accuracy
comes from the digits-trained bundles.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.common.names import split_words
from ..runtime.common.progress import note, progress
from ..runtime.errors import UsageError
from ._bench_table import FORMS, with_digits_accuracy
from .console import command, emit, overwrite, table

if TYPE_CHECKING:
    from ..bench.measure.context import MetricContext
    from ..bench.measure.interleave import SamplingPlan
    from ..bench.result import Run

TABLE = ("mobilenetv2", "shufflenetv2", "resnet18", "resnet50")


@command("bench")
@click.argument("paths", nargs=-1, metavar="[BUNDLE | PIPELINE | FILE.onnx | FILE.engine | FILE.py]…")
@click.option("--precision", default="", help="Only these forms: fp32,fp16,int8,int8-ort-x86,…")
@click.option("--metrics", "chosen", default="", help="Only these metrics: latency,memory,accuracy,…")
@click.option("--threads", default=1, show_default=True, help="Threads of a CPU backend; with 0 the backend chooses.")
@click.option("--batch", default=1, show_default=True, help="Images per call, if the batch axis is dynamic.")
@click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Shape of inputs with dynamic axes.")
@click.option("--processes", default=3, show_default=True, help="Fresh processes for each subject.")
@click.option("--seconds", default=1.0, show_default=True, help="Seconds of measuring in each process.")
@click.option("--data", help="digits, photos, a folder of images, or arrays; top-1 needs labels.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("results/bench.json"), show_default=True)
@click.option("--bundles", type=click.Path(path_type=Path), default=Path("bundles"), help="Folder of the bundles.")
@click.option("--all", "every", is_flag=True, help="The long table of twelve networks; resumable.")
@click.option("--minutes", default=20.0, show_default=True, help="With --all: skip what would exceed this time.")
@overwrite
def bench_command(
    paths: tuple[str, ...], precision: str, chosen: str, threads: int, batch: int, processes: int, seconds: float,
    data: str | None, out: Path, bundles: Path, every: bool, minutes: float, shape: str, overwrite: bool, as_json: bool,
) -> int:  # fmt: skip
    """Measure latency, memory, start, size and accuracy; without a BUNDLE, the table of the README."""
    from ..bench import suite
    from ..bench.measure import interleave, process
    from ..bench.report import tables
    from ..export import untrained

    _sensible(threads, batch, processes, seconds, minutes)
    only, forms = split_words(chosen), split_words(precision)
    _before(out, only, data, overwrite)
    plan = interleave.SamplingPlan(processes=processes, least_s=seconds, most_s=max(8.0, 4 * seconds))
    if every:
        if paths or only or forms or data or batch != 1:
            raise UsageError(
                "--all takes no path and no other option", expected="--threads, --processes, --seconds, --out only"
            )
        _long(plan, out, bundles, minutes, threads, as_json)
        return 0
    subjects: list[MetricContext] = []
    for path in paths or [str(untrained.ensure(name, bundles)) for name in TABLE]:
        wanted = forms or ([] if paths else list(FORMS))
        subjects += suite.contexts(path, precisions=wanted, threads=threads, batch=batch, data=data, shape=shape)
    for path in paths[1:]:  # the first is opened at once
        process.require_sizes(path, shape)
    with progress("measuring", processes + len(subjects) * (processes + len(only or suite.usual_metrics()))) as advance:
        run = suite.run_suite(subjects, plan, only=only, progress=advance, reference=True)
    if not paths and (not only or "accuracy" in only):
        run = with_digits_accuracy(run, bundles)
    columns = tables.used(run.results)
    rows = [[column.draw(item) for column in columns] for item in run.results]
    heads = [column.head for column in columns]
    emit(run.to_dict(), as_json, lambda: table("", heads, rows, left=3, spare=heads[:3:-1]))
    note(tables.caption(run))
    for text in tables.notes(run):
        note(f"note: {text}")
    _write(run, out, tables.runs_markdown(run, _title(bool(paths))))
    return _unmeasured(run)


def _unmeasured(run: Run) -> int:
    """Print what could not be timed; return 3 (cannot tell) if there is something, otherwise 0."""
    reasons = {
        result.subject.key: reading.missing
        for result in run.results
        if (reading := result.readings.get("latency")) is not None and reading.missing
    }
    for key, reason in reasons.items():
        note(f"error: {key} was not measured: {reason}")
    return 3 if reasons else 0


def _before(out: Path, only: list[str], data: str | None, overwrite: bool) -> None:
    """Check the options and the disk before a network is made or measured."""
    from ..bench import metrics, suite
    from ..runtime import datasets
    from ..runtime.common import plugins
    from ..runtime.outputs import claim

    for path, kind in ((out, "result"), (out.with_suffix(".md"), "markdown")):
        claim(path, kind, overwrite=overwrite)
    for name in only:
        plugins.load_plugin(metrics, name, "metric")
    for split in suite.evaluated_splits(data) if data else ():
        datasets.load(data or "", split)


def _long(plan: SamplingPlan, out: Path, bundles: Path, minutes: float, threads: int, as_json: bool) -> None:
    """Measure the long table, and write it as JSON and as Markdown: first by network, then every form."""
    from ..bench.report import network_table, tables
    from . import _bench_table

    run = _bench_table.measure_table(_bench_table.NETWORKS, bundles, out.with_suffix(""), plan, minutes, threads)
    heads, rows = network_table.network_rows(run)
    shown = [at for at, head in enumerate(heads) if not head.endswith(("modelled", "engine MB"))]  # a terminal's width
    brief = [[line[at] for at in shown] for line in (heads, *rows)]
    emit(run.to_dict(), as_json, lambda: table("", brief[0], brief[1:], left=1, spare=brief[0][:1:-1]))
    _write(run, out, tables.runs_markdown(run, _title(False), before=network_table.network_markdown(run)))


def _write(run: Run, out: Path, text: str) -> None:
    """Write a run that was already shown: a full disk must not lose the measurements."""
    from ..bench import result
    from ..bench.report import tables

    result.write_run(run, out)
    tables.write_text(out.with_suffix(".md"), text)
    note(f"wrote {out} and {out.with_suffix('.md')}")


def _sensible(threads: int, batch: int, processes: int, seconds: float, minutes: float) -> None:
    if threads < 0 or batch < 1 or processes < 1 or seconds <= 0 or minutes < 0:
        got = f"{threads} threads, batch {batch}, {processes} processes, {seconds:g} s, {minutes:g} minutes"
        raise UsageError(
            "the numbers are not valid", got=got, expected="more than 0; with 0 threads the backend chooses"
        )


def _title(own: bool) -> str:
    return (
        "Bench" if own else "Bench: 224x224, 1000 classes, batch 1, random weights; accuracy after training on digits"
    )
