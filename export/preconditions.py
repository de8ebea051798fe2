"""Checks of `export` before any work: everything that the options and the disk already show."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from ..models import catalog
from ..models.weights import packaged_row, trainable
from ..optimize.calibration.data_checks import MIN_IMAGES
from ..runtime import datasets
from ..runtime.common.packages import need
from ..runtime.engines.flavour import normal_sm
from ..runtime.errors import DataError, UsageError
from ..runtime.outputs import claim
from ..runtime.spec import ModelSpec
from ..runtime.tasks import CLASS, find
from .engines import engine_target
from .settings import NORMALISED, PACKAGE, RANDOM_DATA, SPLITS, TRAINED, ExportSettings
from .sources.options import SpecOptions
from .to_onnx import OPSETS

PACKAGES = ("torch", "onnx", "onnx_graphsurgeon", "onnxruntime", "onnxscript", "safetensors")
BILL = "cyclonedx"  # writes the bill of materials


def require(settings: ExportSettings, out: Path) -> None:
    """Refuse settings with which no bundle can be made.

    Raises:
        UsageError: An invalid number, SM, weights, data or path, or classes that do not match.
        DataError: The folder of images holds too few, or an empty class.
        ModelError: The checkpoint cannot be read.
        NotAvailable: A package is not installed.
    """
    claim(out, "bundle", overwrite=settings.overwrite)
    _numbers(settings)
    if settings.source.is_ours:
        _require_ours(settings)
    else:
        _require_brought(settings)
    for package in (*(PACKAGES if settings.source.needs_torch else PACKAGES[1:4]), BILL):
        need(package)


def _require_ours(settings: ExportSettings) -> None:
    entry, options = catalog.find_network(settings.model), settings.describe
    if options != SpecOptions(size=options.size):
        words = [
            one.name for one in fields(options) if one.name != "size" and getattr(options, one.name) != one.default
        ]
        got = ", ".join(f"--{word}".replace("--args", "--arg") for word in words)
        raise UsageError(f"{entry.name} is a network of ours, which says itself what it takes", got=got,
                         do="leave these options out")  # fmt: skip
    if size := options.image_size:
        catalog.resized(catalog.network_spec(entry.name), size)
    classes = _classes(settings)
    if len(entry.input_shape) == 3 and settings.data != RANDOM_DATA:
        _data(settings, classes)
    if settings.data == RANDOM_DATA and settings.weights == TRAINED:
        raise UsageError("nothing can be trained on noise", got="--data random", do="give --weights random or a file")


def _require_brought(settings: ExportSettings) -> None:
    """Check a network outside the zoo as far as possible before its code runs."""
    settings.describe.facts()
    if not settings.data:
        raise UsageError(
            f"no data for {settings.source.stem}", expected="images or arrays like those that it will see",
            do="give --data DIR, FILE.npz or digits; --data random is for a try without data",
        )  # fmt: skip
    if settings.data != RANDOM_DATA:
        _enough(settings, datasets.load(settings.data, "calibration", calibration=settings.calibration))


def require_input(settings: ExportSettings, spec: ModelSpec) -> None:
    """Refuse an input for which the options cannot be met.

    Raises:
        UsageError: The task needs a decoder, and there is none; --input asks for pixels, and the network takes no float
            image in NCHW, or one of several sizes.
    """
    if find(spec.task).needs_decoder and not spec.decoder:
        raise UsageError(
            f"nothing says how the outputs of {spec.name} are decoded", got=f"outputs {', '.join(spec.output_names)}",
            expected="[decoder] with a head in the file of --spec",
            do="write one with `edgesmith spec -o`; docs/how-to/yolo-export.md lists the heads",
        )  # fmt: skip
    if settings.input != NORMALISED and spec.ranges:
        got = f"--input {settings.input}, {spec.inputs_text}"
        raise UsageError("pixels go into a network of one size", got=got, do="leave --input out, or the ranges")
    if settings.input != NORMALISED and (len(spec.input_shape), spec.layout, spec.dtype) != (3, "NCHW", "float32"):
        got = f"{spec.layout or 'no layout'} {spec.dtype} {spec.input_shape}"
        expected, do = "an image, NCHW float32", "leave --input out"
        raise UsageError(f"--input {settings.input} does not fit {spec.name}", got=got, expected=expected, do=do)


def _numbers(settings: ExportSettings) -> None:
    if engine_target(settings):
        for sm in settings.sms:
            normal_sm(sm)
    least = MIN_IMAGES if "int8" in settings.precisions else 1
    if settings.calibration < least:
        got = f"--calibration {settings.calibration}"
        raise UsageError("too few calibration images", got=got, expected=f"at least {least}", do="ask for more")
    if settings.opset not in OPSETS:
        got, expected = f"--opset {settings.opset}", f"{OPSETS[0]} to {OPSETS[-1]}"
        raise UsageError("this opset is not supported", got=got, expected=expected, do="leave --opset out")
    if settings.threads < 0:
        raise UsageError("the number of threads is not valid", got=str(settings.threads), expected="0 or more")


def _classes(settings: ExportSettings) -> int | None:
    """Return the number of classes of the weights; None if the data define it, or if it is unknown."""
    source = settings.weights
    if source == TRAINED:
        trainable(settings.model)
        return None
    if source == PACKAGE:
        packaged_row(settings.model)
    elif source not in (*datasets.EMBEDDED, "imagenet", "random") and not Path(source).is_file():
        expected = "trained, digits, scenes, imagenet, package, random or a file"
        raise UsageError(f"unknown weights {source!r}", got="no such file", expected=expected, do="choose one")
    spec = catalog.network_spec(settings.model, source)
    if source in datasets.EMBEDDED:
        trainable(settings.model)
    has_labels = source in datasets.EMBEDDED or (Path(source).is_file() and bool(spec.labels))
    return spec.num_classes if has_labels and find(spec.task).truth == CLASS else None


def _data(settings: ExportSettings, classes: int | None) -> None:
    data = {split: datasets.load(settings.data, split, calibration=settings.calibration)
            for split in ("calibration", *SPLITS)}  # fmt: skip
    there = len(data["test"].classes)
    if settings.weights == TRAINED:
        data["test"].require_truth(find(catalog.network_spec(settings.model).task).truth, "training")
    if not data["test"].labelled:
        classes = None
    if classes is not None and there != classes:
        raise UsageError(
            f"the images in {settings.data} do not fit these weights",
            got=f"{there} classes there, {classes} in weights {settings.weights}", expected="the same classes",
            do="leave --weights out to train on these images, or give the images that it was trained for",
        )  # fmt: skip
    _enough(settings, data["calibration"])


def _enough(settings: ExportSettings, calibration: datasets.Dataset) -> None:
    if "int8" in settings.precisions and (images := len(calibration)) < MIN_IMAGES:
        raise DataError(
            "too few calibration images", got=f"{images} in {settings.data}", expected=f"at least {MIN_IMAGES}",
            do="add images, or leave int8 out of --precision",
        )  # fmt: skip
