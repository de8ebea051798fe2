"""`edgesmith optimize`: rewrite an ONNX file, verify the result, and report the rewrites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime import targets
from ..runtime.common.progress import note
from .console import command, emit, overwrite, say, table

if TYPE_CHECKING:
    from ..optimize.report import Report
    from ..runtime.common.sizes import Sizes

KNOWN = ", ".join(targets.names())


@command("optimize")
@click.argument("source", metavar="IN.onnx")
@click.option("-o", "--output", required=True, metavar="OUT.onnx", help="The file to write.")
@click.option("--target", default="generic", show_default=True, help=f"What it will run on: {KNOWN}.")
@click.option("--explain", is_flag=True, help="Show each pass: rewrites, refusals with node and reason, sizes, error.")
@click.option("--verify/--no-verify", default=True, help="Compare the outputs; undo a pass that changes them.")
@click.option("--channel-block", type=click.IntRange(1, 64), help="For ort-x86: 16 for AVX-512, 8 for AVX2.")
@click.option("--batch", type=click.IntRange(1), help="Fix a dynamic batch to this size.")
@click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Fix free sizes of inputs.")
@click.option("--sample", type=click.Path(path_type=Path), help="Inputs to compare on too (.npz, .npy).")
@click.option("--preprocess", metavar="INPUT", help="Put the normalisation in: uint8-nhwc or float-nchw is read then.")
@click.option("--fold-inputs", is_flag=True, help="Take initialisers that are also graph inputs for constants.")
@click.option("--keep-shared", is_flag=True, help="Leave weights that several layers share; else they may be copied.")
@overwrite
def optimize_command(
    source: str,
    output: str,
    target: str,
    explain: bool,
    verify: bool,
    fold_inputs: bool,
    channel_block: int | None,
    batch: int | None,
    shape: str,
    sample: Path | None,
    preprocess: str | None,
    keep_shared: bool,
    overwrite: bool,
    as_json: bool,
) -> int:
    """Rewrite an ONNX file into a smaller, faster one that computes the same.

    Each rewrite is checked with ONNX Runtime, optimisations off; one that fails is rolled back alone and named.
    Exit code 3 if the source does not run here, so that nothing could be compared (the file is written all the same).
    """
    from ..optimize.optimizer import optimize
    from ..runtime.outputs import claim

    claim(Path(output), "onnx", overwrite=overwrite)
    options: dict[str, Any] = {"target": target, "fold_inputs": fold_inputs, "block": channel_block, "batch": batch}
    options |= {"sizes": _sizes_of(source, shape), "samples": _samples(sample), "keep_shared": keep_shared}
    if preprocess is not None:
        from ..optimize.embed_preprocessing import embed

        report = embed(source, output, input=preprocess, verify=verify, **options)
    else:
        report = optimize(source, output, verify=verify, **options)
    emit(report.to_dict(), as_json, lambda: _draw(report, explain))
    if report.check.verdict == "cannot tell" and not as_json:
        note(f"not compared: {report.check.detail}")
    return 3 if report.check.verdict == "cannot tell" else 0


def _sizes_of(source: str, shape: str) -> Sizes:
    from ..optimize.graph.proto_graph import loaded
    from ..optimize.graph.spec_metadata import fed_inputs
    from ..runtime.common.sizes import named_sizes

    return named_sizes(shape, [value.name for value in fed_inputs(loaded(source))]) if shape else {}


def _samples(path: Path | None) -> list[Any] | None:
    """Return the samples in a file: arrays for a single input, or dicts by name, each with all samples as one batch."""
    if path is None:
        return None
    from ..runtime.common.files import existing_file
    from ..runtime.datasets.array_files import ONLY_INPUT, read_arrays

    arrays = read_arrays(existing_file(path, "file of samples"))
    return [arrays[ONLY_INPUT]] if ONLY_INPUT in arrays else [arrays]


def _draw(report: Report, explain: bool) -> None:
    for text in report.notes:
        note(text)
    if explain:
        table("Passes", ("pass", "rewrites", "refused", "rolled back"), _counts(report))
        rows = [
            (entry.name, word, node, why)
            for entry in report.passes
            for word, places in (("refused", entry.refusals), ("rolled back", entry.rolled_back))
            for node, why in places
        ]
        if rows:
            table("Left alone", ("pass", "what", "node", "why"), rows, left=4)
        table("Sizes", ("", "before", "after"), _sizes(report))
    say(report.headline())


def _counts(report: Report) -> list[tuple[object, ...]]:
    counts: list[tuple[object, ...]] = [tuple(row) for row in report.table()[1]]
    idle = sum(not any(numbers) for _, *numbers in counts)
    return [*(row for row in counts if any(row[1:])), (f"{idle} others", 0, 0, 0)]


def _sizes(report: Report) -> list[tuple[object, ...]]:
    before, after = report.before, report.after
    return [
        ("nodes", before.nodes, after.nodes),
        ("multiply-adds", f"{before.macs:,}", f"{after.macs:,}"),
        ("bytes", f"{before.bytes:,}", f"{after.bytes:,}"),
    ]
