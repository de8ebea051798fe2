"""`edgesmith quantize`: FP16, or INT8 for one target, from an ONNX file and images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...runtime.console import command, emit, note, say, table
from ...runtime.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from ...runtime.datasets import Dataset
    from ...runtime.spec import ModelSpec
    from ..precision import PrecisionReport
    from .report import QuantReport

SPEC_KEY = "edgesmith.spec"


@command("quantize")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.")
@click.option("--data", help="Calibration images: 'digits', or a folder with one folder of images for each class.")
@click.option("--target", default="trt", show_default=True, help="trt, ort-x86 (INT8), or fp16.")
@click.option("--images", default=128, show_default=True, help="How many calibration images to use.")
@click.option("--allow-random", is_flag=True, help="Calibrate on random data (for trying things out, never to ship).")
@click.option("--budget", type=float, metavar="DB", help="Leave sensitive layers in float until the SQNR is reached.")
def quantize_command(
    source: Path,
    output: Path,
    data: str | None,
    target: str,
    images: int,
    allow_random: bool,
    budget: float | None,
    as_json: bool,
) -> None:
    """Cast an ONNX file to FP16, or calibrate it to INT8 with explicit Q/DQ."""
    from ..precision import to_fp16
    from . import quantize

    if data is None and not allow_random:
        raise UsageError(
            "no calibration images",
            expected="--data DIR or --data digits",
            do="give images like those the network will see",
        )
    batches = _batches(source, data, images)
    if target == "fp16":
        half = to_fp16(source, output, batches)
        emit(half.to_dict(), as_json, lambda: _draw_half(half, output))
        return
    report = quantize(source, output, batches, target=target, allow_random=allow_random, budget_db=budget)
    emit(report.to_dict(), as_json, lambda: _draw(report, output))


@dataclass(frozen=True)
class _Preprocessed:
    """A data set as batches that can be walked again and again."""

    dataset: Dataset
    spec: ModelSpec

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.dataset.batches(self.spec, 16))


def _batches(source: Path, data: str | None, images: int) -> Iterable[np.ndarray]:
    from ...runtime import datasets

    if data is None:
        note("calibrating on random data: the result is for trying things out, not for use")
        return _random(source, images)
    return _Preprocessed(datasets.load(data, "calibration", calibration=images), read_spec(source))


def read_spec(source: Path) -> ModelSpec:
    """Read the ModelSpec that export wrote into an ONNX file.

    Raises:
        UsageError: The file holds none, so that nobody knows how images become its input.
    """
    from ...runtime.spec import ModelSpec
    from .net import read_model

    texts = {item.key: item.value for item in read_model(source).metadata_props}
    if SPEC_KEY not in texts:
        raise UsageError(
            f"{source} does not say how images become its input",
            got="no ModelSpec in its metadata",
            expected=f"the metadata entry {SPEC_KEY}",
            do="export it with `edgesmith export`, or call edgesmith.optimize.quantize.quantize with your own batches",
        )
    return ModelSpec.from_json(texts[SPEC_KEY])


def _random(source: Path, images: int) -> list[np.ndarray]:
    import numpy as np

    from .checks import input_shape
    from .net import read_model

    shape = input_shape(read_model(source))
    if None in shape[1:]:
        raise UsageError("the input's size is free", got=str(shape), do="give images with --data")
    draw = np.random.default_rng(0)
    return [draw.standard_normal((1, *shape[1:]), dtype=np.float32) for _ in range(images)]  # type: ignore[arg-type]


def _draw_half(report: PrecisionReport, output: Path) -> None:
    table("Stayed FP32", ["node", "reason"], report.kept.items(), left=2) if report.kept else None
    worst = max(report.relative_error.values())
    say(
        f"{output}: {report.half} of {report.nodes} nodes in FP16, {report.bytes_before / 1e6:.2f} -> "
        f"{report.bytes_after / 1e6:.2f} MB, largest relative error {worst:.1e}"
    )


def _draw(report: QuantReport, output: Path) -> None:
    rows: list[tuple[Any, ...]] = [*report.quantised.items(), ("Relu/Clip folded into a range", len(report.folded))]
    table("Computed in INT8", ["operator", "nodes"], rows)
    if report.floats:
        table("Left in float", ["node", "reason"], report.floats.items(), left=2)
    if report.tried:
        tried = [(count, f"{value:.1f}") for count, value in report.tried.items()]
        table("Tried for the budget", ["layers in float", "SQNR, dB"], tried)
    if report.tensor_sqnr_db:
        worst = sorted(report.tensor_sqnr_db.items(), key=lambda item: item[1])[:5]
        table("Noisiest tensors", ["tensor", "SQNR, dB"], [(name, f"{value:.1f}") for name, value in worst])
    sqnr = ", ".join(f"{name} {value:.1f} dB" for name, value in report.sqnr_db.items())
    same = "" if report.agreement is None else f", same top-1 on {100 * report.agreement:.1f} %"
    say(
        f"{output}: {report.target}, {report.images} images, {report.bytes_before / 1e6:.2f} -> "
        f"{report.bytes_after / 1e6:.2f} MB, {sqnr}{same}"
    )
