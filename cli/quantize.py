"""`edgesmith quantize`: FP16, or INT8 for one target, from an ONNX file and images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime import targets
from ..runtime.common.packages import need
from ..runtime.common.progress import note
from ..runtime.common.proportion import LEAST_IMAGES
from ..runtime.errors import DataError, UsageError
from .console import command, emit, overwrite

if TYPE_CHECKING:
    import numpy as np

    from ..optimize.quantize.report import QuantReport, QuantSettings
    from ..runtime.datasets import Dataset
    from ..runtime.spec import ModelSpec

HALF_PRECISIONS = ("fp16", "bf16")
# How many images judge a result: so many, or fewer that have so many pixels together.
JUDGES, JUDGED_PIXELS = 64, 1 << 22
AT_ONCE = 16  # images read at once
INT8_TARGETS = ", ".join(targets.names(lambda row: row.qdq is not None))
BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(db|)", re.IGNORECASE)


@command("quantize")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.")
@click.option("--data", help="Calibration images: 'digits', or a folder with one folder of images for each class.")
@click.option("--spec", type=click.Path(path_type=Path), help="Preprocessing of a foreign file, by `edgesmith spec`.")
@click.option("--target", default="trt", show_default=True, help=f"{INT8_TARGETS} (INT8), fp16 or bf16.")
@click.option("--images", default=128, show_default=True, help="How many calibration images to use.")
@click.option("--method", help="Range estimator, else one is chosen: see docs/quantisation.md.")
@click.option("--keep", multiple=True, metavar="NODE", help="Keep in float: a name, type or pattern; repeatable.")
@click.option("--adaround", is_flag=True, help="Also learn the rounding of weights (AdaRound); minutes.")
@click.option("--quick", is_flag=True, help="Calibrate ranges only: takes seconds, costs 2 to 6 dB of SQNR.")
@click.option("--allow-random", is_flag=True, help="Calibrate on random data (for experiments only).")
@click.option(
    "--budget", metavar="POINTS|dB", help="Keep layers in float to lose at most 0.5 (points) or to reach 35dB."
)
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    help="FP16: keep the first layers in FP32 until the relative error is below this, such as 2e-3.",
)
@click.option("--cache", type=click.Path(path_type=Path), help="Cache folder of the calibration statistics.")
@click.option("--explain", is_flag=True, help="Also quantise each layer alone, and show its SQNR.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the noise of tensors and layers into an SVG file.")
@overwrite
def quantize_command(
    source: Path, output: Path, data: str | None, spec: Path | None, target: str, images: int, method: str,
    adaround: bool, quick: bool, allow_random: bool, keep: tuple[str, ...], budget: str | None, limit: float | None,
    cache: Path | None, explain: bool, plot: Path | None, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Cast an ONNX file to FP16 or BF16, or calibrate it to INT8 with explicit Q/DQ."""
    from ..optimize.quantize import quantize
    from ..optimize.quantize.mixed_precision.points_judge import judge_of
    from . import _quantize_tables

    if plot is not None and quick and not explain:
        raise UsageError(
            "--quick does not measure the noise that --plot draws", got="--quick --plot", do="add --explain"
        )
    least_db, points = parse_budget(budget)
    half = target in HALF_PRECISIONS
    settings = None if half else _settings(method, adaround, quick, limit)
    _before(source, output, plot, target, images, overwrite)
    settings = _with_kept(source, settings, keep) if keep else settings
    if data is None and not allow_random:
        raise UsageError(
            "no calibration images",
            expected="--data DIR or --data digits",
            do="give images like those the network will see",
        )
    batches = _batches(source, data, images, spec)
    if half:
        _half(source, output, batches, limit, target, as_json)
        return
    report = quantize(
        source,
        output,
        iter(batches),  # spooled: images are decoded once, not for each walk
        target=target,
        allow_random=allow_random,
        settings=settings,
        budget_db=least_db,
        budget_points=points,
        points_judge=judge_of(batches.spec, batches.dataset) if isinstance(batches, _Preprocessed) else None,
        cache=cache,
        explain=explain,
        judges=_judges(source, data, spec),
        timed=True,
    )
    _warn(report)
    if plot is not None:
        from ._noise_plot import draw_noise

        draw_noise(report, plot)
    emit(report.to_dict(), as_json, lambda: _quantize_tables.int8(report, output))


def _before(source: Path, output: Path, plot: Path | None, target: str, images: int, overwrite: bool) -> None:
    """Refuse what the options and the disk tell already."""
    from ..optimize.calibration.data_checks import MIN_IMAGES
    from ..optimize.quantize.targets import find_target
    from ..runtime.common.files import existing_file
    from ..runtime.common.packages import require_package
    from ..runtime.outputs import claim

    claim(output, "onnx", overwrite=overwrite)
    if plot is not None:
        claim(plot, "picture", overwrite=overwrite)
        require_package("matplotlib")
    existing_file(source, "ONNX file")
    least = 1
    if target not in HALF_PRECISIONS:
        find_target(target)
        least = MIN_IMAGES
    if images < least:
        got, expected = f"--images {images}", f"at least {least}"
        raise UsageError("too few calibration images", got=got, expected=expected, do="128 to 512 is usual")
    for package in ("onnx", "onnxruntime"):
        need(package)


def _settings(method: str | None, adaround: bool, quick: bool, limit: float | None = None) -> QuantSettings:
    from ..optimize.quantize import QuantSettings
    from ..optimize.quantize.range_estimators import check_method

    check_method(method or "min-max")
    if limit is not None:
        raise UsageError("--limit is for FP16", got="an INT8 target", do="give --budget")
    if not quick:
        return QuantSettings.measured(adaround=adaround, **({"method": method} if method else {}))
    if adaround:
        raise UsageError("--quick skips the step that --adaround asks for", do="give one of the two")
    return QuantSettings.quick(method or "min-max")


def _with_kept(source: Path, settings: QuantSettings | None, keep: tuple[str, ...]) -> QuantSettings:
    """Return settings that leave layers in float; names that mean none are refused here."""
    from ..optimize.graph.proto_graph import loaded, with_names
    from ..optimize.quantize.kept_layers import kept_names

    if settings is None:
        raise UsageError("--keep is for INT8", got="--target fp16", do="give --limit: first layers then stay FP32")
    kept_names(with_names(loaded(source)), keep)
    return replace(settings, keep=frozenset(keep))


def parse_budget(text: str | None) -> tuple[float | None, float | None]:
    """Return (dB, points) of a budget as it is written: "35dB" or "0.5"; one of them is None.

    Raises:
        UsageError: It is neither.
    """
    if text is None:
        return None, None
    match = BUDGET.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"cannot read the budget {text!r}", expected="points of top-1 (0.5), or decibels (35dB)")
    value = float(match[1])
    return (value, None) if match[2] else (None, value)


def _half(source: Path, output: Path, batches: Iterable[Any], limit: float | None, kind: str, as_json: bool) -> None:
    from ..optimize.fp16.convert import to_fp16
    from ..optimize.fp16.formats import KINDS
    from . import _quantize_tables

    half = to_fp16(source, output, iter(batches), limit=limit, kind=KINDS[kind])
    emit(half.to_dict(), as_json, lambda: _quantize_tables.half(half, output))


def _warn(report: QuantReport) -> None:
    for text in report.warnings:
        note(f"warning: {text}")


@dataclass(frozen=True)
class _Preprocessed:
    """A data set as batches that can be walked again and again; arrays need no spec, they are fed as they are."""

    dataset: Dataset
    spec: ModelSpec | None

    def __iter__(self) -> Iterator[Any]:
        if self.spec is not None:
            return self.dataset.batches(self.spec, AT_ONCE)
        parts = self.dataset.parts(AT_ONCE)  # type: ignore[attr-defined]  # without a spec these are arrays
        return (part.get("", part) for part in parts)


def _batches(source: Path, data: str | None, images: int, file: Path | None = None) -> Iterable[Any]:
    from ..optimize.calibration.data_checks import class_warnings
    from ..runtime import datasets

    if data is None:
        note("calibration uses random data: the result is for experiments only")
        return _random(source, images)
    dataset = datasets.load(data, "calibration", calibration=images)
    spec = None if isinstance(dataset, datasets.Arrays) else read_spec(source, file)
    if text := datasets.held_back(data, dataset, images):
        note(text)
    for text in class_warnings(dataset.labels, dataset.classes, spec.labels) if spec and dataset.labelled else ():
        note(f"warning: {text}")
    return _Preprocessed(dataset, spec)


def _judges(source: Path, data: str | None, file: Path | None = None) -> _Preprocessed | None:
    """Return images to which nothing is fitted, JUDGES of them or fewer large ones; None where there are none."""
    from ..runtime import datasets

    if data is None:
        return None
    try:
        held_out = datasets.load(data, "test")
    except DataError as error:
        note(f"warning: there are no held-out images to evaluate the result on: {error}")
        return None
    if isinstance(held_out, datasets.Arrays):
        return _Preprocessed(held_out.head(JUDGES), None)
    spec = read_spec(source, file)
    pixels = prod(spec.input_shape) // min(spec.input_shape)
    return _Preprocessed(held_out.head(min(JUDGES, max(LEAST_IMAGES, JUDGED_PIXELS // pixels))), spec)


def read_spec(source: Path, file: Path | None = None) -> ModelSpec:
    """Return the ModelSpec of a `--spec` file, or else the one that export wrote into an ONNX file.

    Raises:
        UsageError: There is neither, so that nobody knows how images become its input.
    """
    from ..optimize.graph.proto_graph import loaded
    from ..optimize.graph.spec_metadata import embedded
    from ..runtime.spec import SPEC_KEY

    if file is not None:
        from ..export.api import describe

        return describe(str(source), spec=file).spec
    spec = embedded(loaded(source))
    if spec is None:
        raise UsageError(
            f"{source} does not say how images become its input",
            got="no ModelSpec in its metadata",
            expected=f"the metadata entry {SPEC_KEY}",
            do=f"write it down with `edgesmith spec {source} -o net.toml`, and give --spec net.toml",
        )
    return spec


def _random(source: Path, images: int) -> list[Any]:
    """Return drawn inputs, one sample each: normal floats, whole numbers from 0 to 126, or truth values."""
    import numpy as np

    from ..optimize.calibration.inputs import input_layout
    from ..optimize.graph.proto_graph import read_model

    layout, generator = input_layout(read_model(source)), np.random.default_rng(0)
    batched = layout.batched if layout.size != 0 else frozenset()
    shapes = {one.name: (1, *one.shape[1:]) if one.name in batched else one.shape for one in layout.inputs}
    if any(None in shape for shape in shapes.values()):
        raise UsageError("the input has dynamic axes", got=str(layout.main.shape), do="give images with --data")

    def drawn(dtype: str, shape: Any) -> np.ndarray:
        if dtype == "float32":
            return np.asarray(generator.standard_normal(shape, dtype=np.float32))
        kind = np.dtype(dtype)
        whole = generator.integers(0, 2 if kind.kind == "b" else 127, shape)
        return np.asarray(generator.standard_normal(shape) if kind.kind == "f" else whole, kind)

    shared = {one.name: drawn(one.dtype, shapes[one.name]) for one in layout.inputs if one.name not in batched}
    batches: list[Any] = []
    for _ in range(images):
        batch = {one.name: shared.get(one.name) for one in layout.inputs}
        batch |= {one.name: drawn(one.dtype, shapes[one.name]) for one in layout.inputs if one.name in batched}
        batches.append(batch if len(batch) > 1 else next(iter(batch.values())))
    return batches
