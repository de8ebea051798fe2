"""Results as tables: for the terminal, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtime import tasks
from ...runtime.common.escaping import for_csv, for_markdown
from ...runtime.common.files import atomic_file
from ...runtime.common.packages import need
from ...runtime.datasets import EMBEDDED
from ..result import Result, Run

Cell = Callable[[Result], str]


@dataclass(frozen=True)
class Column:
    """One column: its header, and how to draw a cell; «–» for a missing value."""

    head: str
    draw: Cell


def value_cell(metric: str, name: str, scale: float = 1.0, digits: int = 2, spread: bool = False) -> Cell:
    """Return a function that draws one value of one metric, optionally with the half width of its interval."""

    def draw(result: Result) -> str:
        figure = result.value(metric, name)
        if figure is None:
            return "–"
        text = f"{figure * scale:.{digits}f}"
        bounds = result.readings[metric].intervals.get(name)
        return f"{text} ±{(bounds[1] - bounds[0]) / 2 * scale:.{digits}f}" if spread and bounds else text

    return draw


def published_cell(name: str, scale: float = 1.0, digits: int = 1) -> Cell:
    """Return a function that draws a published value of the network; «–» for the smaller variant of embedded data."""

    def draw(result: Result) -> str:
        figure = getattr(result.subject, name) if result.subject.weights not in EMBEDDED else None
        return "–" if figure is None else f"{figure * scale:.{digits}f}"

    return draw


def imagenet_top1(result: Result) -> float | None:
    """Return the network's published top-1 on ImageNet in per cent; None if it was published on other data."""
    subject = result.subject
    return subject.published_top1_percent if subject.published_dataset == "imagenet" else None


def draw_imagenet_top1(result: Result) -> str:
    """Draw `imagenet_top1` as a cell."""
    return "–" if (top1 := imagenet_top1(result)) is None else f"{top1:.1f}"


def _metric_columns() -> list[Column]:
    """Return the columns of each task's metric: on the test split, on the hard one, and of the worst class."""
    columns = []
    for task in tasks.with_metric():
        name = "" if task.truth == tasks.CLASS else f"{task.title} "
        hard, worst = f"{name}hard", f"{name}worst class"
        for head, prefix, digits in ((task.title, "", 2), (hard, "hard_", 2), (worst, "worst_class_", 1)):
            cell = value_cell("accuracy", prefix + task.metric, task.scale, digits)
            columns.append(Column(f"{head} {task.unit}".strip(), cell))
    return columns


COLUMNS = (
    Column("model", lambda result: result.subject.model),
    Column("form", lambda result: result.subject.form),
    Column("backend", lambda result: f"{result.subject.backend} t{result.subject.threads} b{result.subject.batch}"),
    Column("p50 ms", value_cell("latency", "p50_s", 1e3, spread=True)),
    Column("p99 ms", value_cell("latency", "p99_s", 1e3)),
    Column("img/s", value_cell("latency", "throughput_per_s", 1, 1)),
    Column("of limit %", value_cell("roofline_share", "share_ratio", 100, 0)),
    Column("4 streams/s", value_cell("streams", "four_streams_per_s", 1, 1)),
    Column("file to answer ms", value_cell("end_to_end", "total_s", 1e3)),
    Column("cold caches ms", value_cell("cold_cache", "p50_s", 1e3, spread=True)),
    Column("start ms", value_cell("cold_start", "total_s", 1e3, 0)),
    Column("peak MB", value_cell("memory", "peak_bytes", 1e-6, 1)),
    Column("GPU MB", value_cell("memory", "gpu_bytes", 1e-6, 1)),
    Column("file MB", value_cell("size", "file_bytes", 1e-6)),
    Column("mJ/image", value_cell("energy", "image_energy_j", 1e3, 1)),
    Column("°C", value_cell("thermal", "temperature_c", 1, 0)),
    Column("M instr.", value_cell("instructions", "instructions_count", 1e-6)),
    *_metric_columns(),
    Column("agrees %", value_cell("accuracy", "agreement_ratio", 100)),
    Column("SQNR dB", value_cell("accuracy", "sqnr_db", 1, 1)),
    Column("params M", published_cell("params", 1e-6, 2)),
    Column("MACs M", published_cell("macs", 1e-6, 0)),
    Column("ImageNet %", draw_imagenet_top1),
)


def used(results: Sequence[Result], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """Return the columns that are not empty."""
    return [column for column in columns if any(column.draw(result) != "–" for result in results)]


def notes(run: Run) -> list[str]:
    """Return missing values with reasons, and caveats, each kind once with its subjects."""
    kinds: dict[str, tuple[str, dict[int, str]]] = {}
    several = len({result.subject.backend for result in run.results}) > 1
    for index, result in enumerate(run.results):
        subject = result.subject
        who = " ".join([subject.model, subject.form, *([subject.backend] if several else [])])
        for name, reading in result.readings.items():
            for text in (*reading.notes, *([reading.missing] if reading.missing else [])):
                kind = re.sub(r"[+-]?\d+(\.\d+)?", "#", text)
                kinds.setdefault(kind, (f"{name}: {text}", {}))[1][index] = who
    return [f"{text} ({_who(list(who.values()), len(run.results))})" for text, who in kinds.values()]


def _who(who: Sequence[str], every: int) -> str:
    if len(who) == every:
        return "all" if every == 1 else "all rows; the numbers differ"
    return ", ".join(dict.fromkeys(who))


def caption(run: Run) -> str:
    """Return machine, versions, time and command of a run."""
    here = run.environment
    versions = ", ".join(f"{name} {number}" for name, number in here.packages.items())
    flags = " ".join(here.flags)
    return f"{here.cpu}, {here.cores} cores ({flags}); {here.system}; {versions}; {run.created}; `{run.command}`"


def runs_markdown(run: Run, title: str = "Results", columns: Sequence[Column] = COLUMNS, before: str = "") -> str:
    """Return a run as a Markdown table with machine, command and notes; `before` is a table to put first."""
    first = [before, "## Every form and backend", ""] if before else []
    remarks = [f"- {for_markdown(note)}" for note in notes(run)]
    heads = [f"# {for_markdown(title)}", "", f"On {for_markdown(caption(run))}", ""]
    lines = [*heads, *first, *_lines(run, columns), "", *remarks]
    return "\n".join(lines).rstrip() + "\n"


def _lines(run: Run, columns: Sequence[Column]) -> list[str]:
    kept = used(run.results, columns)
    heads = [row([column.head for column in kept]), row(["---" if index < 3 else "---:" for index in range(len(kept))])]
    return heads + [row([column.draw(result) for column in kept]) for result in run.results]


def row(cells: Sequence[str]) -> str:
    """Return one line of a Markdown table."""
    return "| " + " | ".join(map(for_markdown, cells)) + " |"


def flat(run: Run) -> list[dict[str, str | float]]:
    """Return one flat record for each value of each metric: subject, metric, name, value, bounds."""
    rows: list[dict[str, str | float]] = []
    for result in run.results:
        subject = {"key": result.subject.key, "model": result.subject.model, "form": result.subject.form}
        for name, reading in result.readings.items():
            for key, number in reading.values.items():
                low, high = reading.intervals.get(key, (number, number))
                rows.append({**subject, "metric": name, "name": key, "value": number, "low": low, "high": high})
    return rows


def comma_separated(run: Run) -> str:
    """Return `flat` as CSV with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, ["key", "model", "form", "metric", "name", "value", "low", "high"])
    writer.writeheader()
    writer.writerows(
        {key: for_csv(value) if isinstance(value, str) else value for key, value in one.items()} for one in flat(run)
    )
    return text.getvalue()


def write_text(path: Path, text: str) -> Path:
    """Write text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def write_parquet(path: Path, runs: Sequence[Run]) -> Path:
    """Write `flat` of all runs, with the time and machine of each, as Parquet.

    Raises:
        NotAvailable: pyarrow is not installed.
    """
    arrow, parquet = need("pyarrow"), need("pyarrow.parquet")
    rows = [
        {"created": run.created, "cpu": run.environment.cpu, "machine": run.environment.machine(), **row}
        for run in runs
        for row in flat(run)
    ]
    with atomic_file(path) as temporary:
        parquet.write_table(arrow.Table.from_pylist(rows), temporary)
    return path
