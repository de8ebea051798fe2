"""`edgesmith describe`: the cost of a network (a name or an ONNX file), layer by layer."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from typing import Any

import click

from ..runtime.common.complexity import Complexity, Layer
from ..runtime.common.escaping import for_csv, for_terminal
from ..runtime.common.packages import require_package
from ..runtime.common.progress import note
from ..runtime.errors import UsageError
from .console import command, emit, table


@command("describe", short_help="Show a network or an ONNX file layer by layer.")
@click.argument("model")
@click.option("--classes", type=click.IntRange(1), help="Number of classes.  [default: the paper's]")
@click.option("--side", type=click.IntRange(1), help="Height and width of the input.  [default: the paper's]")
@click.option("--shape", default="", metavar="[NAME=]1x3x320x320", help="Shape of a file's inputs with dynamic axes.")
@click.option("--all", "every", is_flag=True, help="Also show batch normalisation, activations and additions.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def describe_command(
    model: str, classes: int | None, side: int | None, shape: str, every: bool, as_csv: bool, as_json: bool
) -> None:  # fmt: skip
    """Show MODEL, a network's name or an ONNX file, layer by layer; nothing is computed or downloaded.

    Memory is that of the output in KB (1024 bytes, float32), parameters in thousands, MACs in millions. The receptive
    field, effective stride and effective padding are in pixels of the input; intensity is MACs per byte moved.
    """
    if shape and not _is_file(model):
        raise UsageError("--shape works only with files", got=model, do="give --side")
    report = _of_file(Path(model), classes, side, shape) if _is_file(model) else _of_name(model, classes, side)
    if as_csv:
        _csv(report)
    else:
        emit(report.to_dict(), as_json, lambda: _draw_layers(report, every))


def _is_file(model: str) -> bool:
    return model.endswith(".onnx") or Path(model).is_file()


def _of_file(path: Path, classes: int | None, side: int | None, shape: str) -> Complexity:
    from ..optimize.graph import spec_metadata
    from ..optimize.graph.complexity import describe

    if classes or side:
        raise UsageError("an ONNX file defines its own shapes", got="--classes or --side", do="give --shape")
    report = describe(path, shape)
    for name, (content, kind) in spec_metadata.ending(path).items():
        if content == "probabilities":
            note(f"output {name!r} holds probabilities: it ends in {kind}")
    return report


def _of_name(model: str, classes: int | None, side: int | None) -> Complexity:
    from ..models import catalog

    entry = catalog.find_network(model)
    if side and len(entry.input_shape) != 3:
        raise UsageError(f"{entry.name} takes no image", got="--side", do="leave it out")
    require_package("torch")
    from ..models.complexity import describe_network

    shape = (entry.input_shape[0], side, side) if side else entry.input_shape
    return describe_network(entry.name, shape, classes or entry.classes)


def _csv(report: Complexity) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([item.name for item in dataclasses.fields(Layer)])
    for layer in report.layers:
        values = dataclasses.asdict(layer).values()
        cells = [_x(value) if isinstance(value, tuple | list) else value for value in values]
        writer.writerow([for_csv(cell) if isinstance(cell, str) else cell for cell in cells])
    click.echo(for_terminal(text.getvalue()), nl=False)


def _x(sizes: Any) -> str:
    return "x".join(map(str, sizes))


def _square(sizes: tuple[int, ...]) -> str:
    return str(sizes[0]) if sizes and len(set(sizes)) == 1 else _x(sizes)


def _draw_layers(report: Complexity, every: bool) -> None:
    columns = (
        "layer", "kind", "input", "filters", "kernel", "stride", "pad", "output", "memory KB", "params k", "MACs M",
        "field", "eff. stride", "eff. pad", "MACs/B",
    )  # fmt: skip
    shown = [
        layer
        for layer in report.layers
        if every or layer.macs or (layer.params and layer.kind != "norm") or layer.kind in ("pool", "global", "concat")
    ]
    rows = [
        (
            layer.name, layer.kind, _x(layer.input), layer.filters, _square(layer.kernel), _square(layer.stride),
            _square(layer.pad), _x(layer.output), f"{layer.memory_bytes / 1024:.0f}", f"{layer.params / 1000:.1f}",
            f"{layer.macs / 1e6:.1f}", layer.receptive_field, layer.effective_stride, layer.effective_padding,
            f"{layer.intensity:.1f}",
        )
        for layer in shown
    ]  # fmt: skip
    spare = ("eff. pad", "eff. stride", "pad", "MACs/B", "field", "memory KB", "input", "filters")
    table(report.title, columns, rows, left=2, spare=spare)
    best = "best order" if report.best_order_exact else "own order, an upper bound"
    click.echo(
        f"parameters {report.params:,}; MACs {report.macs / 1e6:,.1f} M; outputs {report.memory_bytes / 2**20:.1f} MB "
        f"in all, {report.peak_bytes / 2**20:.2f} MB at once ({best})"
    )
