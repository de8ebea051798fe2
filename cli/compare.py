"""`edgesmith compare` and `edgesmith report`: compare two results, and show results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..runtime.common.packages import need
from ..runtime.common.progress import note
from .console import command, emit, overwrite, table

if TYPE_CHECKING:
    from ..bench.gate.compare import Comparison
    from ..bench.result import Run


@command("compare")
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option("--threshold", default=0.03, show_default=True, help="Smallest slowdown that counts.")
@click.option("--other-machine", is_flag=True, help="Compare results of different machines; this is weak evidence.")
@click.option(
    "--calibrate", is_flag=True, help="Divide by each result's reference workload; the threshold is then 10 %."
)
def compare_command(
    base: Path, new: Path, threshold: float, other_machine: bool, calibrate: bool, as_json: bool
) -> int:
    """Compare two results: faster, same (exit 0), slower (exit 1) or cannot tell (exit 3)."""
    from ..bench.gate import compare as comparing
    from ..bench.result import read_run

    runs = read_run(base), read_run(new)
    answers = comparing.compare_runs(*runs, threshold=threshold, other_machine=other_machine, calibrate=calibrate)
    rows = [[item.key, item.answer, _change(item), item.why] for item in answers]
    columns = ["subject", "answer", "median", "why"]
    emit([item.to_dict() for item in answers], as_json, lambda: table("", columns, rows, left=4))
    return comparing.worst_code(answers)


def _change(item: Comparison) -> str:
    return f"{item.ratio.estimate - 1:+.1%}" if item.ratio else "–"


@command("report")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write one self-contained HTML page here.")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path), help="Write every value as CSV here.")
@click.option("--markdown", "markdown_path", type=click.Path(path_type=Path), help="Write a Markdown table here.")
@click.option("--parquet", "parquet_path", type=click.Path(path_type=Path), help="Write every value as Parquet here.")
@click.option(
    "--quantised",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Show what INT8 costs each layer: a bundle, or what `edgesmith quantize --json` printed. Repeatable.",
)
@click.option("--figures", type=click.Path(path_type=Path), help="Draw the figures as PNG and SVG into this folder.")
@overwrite
def report_command(
    results: tuple[Path, ...], out: Path | None, csv_path: Path | None, markdown_path: Path | None,
    parquet_path: Path | None, quantised: tuple[Path, ...], figures: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Draw results as a table, a page, figures, Markdown, CSV or Parquet."""
    from ..bench.report import page, sensitivity, tables
    from ..bench.report.figures import claim_figures
    from ..bench.result import read_run
    from ..runtime.outputs import claim

    for target, kind in ((out, "page"), (csv_path, "csv"), (markdown_path, "markdown"), (parquet_path, "parquet")):
        if target:
            claim(target, kind, overwrite=overwrite)
    if parquet_path:
        need("pyarrow")
    if figures:
        need("matplotlib")
        claim_figures(figures, overwrite)
    runs = [read_run(path) for path in results]
    costs = {name: record for path in quantised for name, record in sensitivity.read_sensitivity(path).items()}
    emit([run.to_dict() for run in runs], as_json, lambda: _draw(runs))
    texts = [
        (csv_path, "".join(map(tables.comma_separated, runs))),
        (markdown_path, "\n".join(map(tables.runs_markdown, runs))),
        (out, page.render(runs, quantised=costs) if out else ""),
    ]
    for path, text in texts:
        if path:
            note(f"wrote {tables.write_text(path, text)}")
    if parquet_path:
        note(f"wrote {tables.write_parquet(parquet_path, runs)}")
    if figures:
        from ..bench.report.figures import draw_figures

        for path in draw_figures(runs, figures, costs):
            note(f"wrote {path}")


def _draw(runs: list[Run]) -> None:
    from ..bench.report import tables

    for run in runs:
        columns = tables.used(run.results)
        rows = [[column.draw(result) for column in columns] for result in run.results]
        heads = [column.head for column in columns]
        table(tables.caption(run), heads, rows, left=3, spare=heads[:3:-1])
