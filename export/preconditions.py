"""What `export` refuses before the first second of work: all that its options and the disk can tell."""

from __future__ import annotations

from pathlib import Path

from ..models import catalog
from ..models.weights import trainable
from ..optimize.calibration.data_checks import MIN_IMAGES
from ..runtime import datasets
from ..runtime.common.packages import need
from ..runtime.engines.flavour import normal_sm
from ..runtime.errors import DataError, UsageError
from ..runtime.outputs import claim
from ..runtime.tasks import find
from .engines import engine_target
from .settings import SPLITS, TRAINED, ExportSettings
from .to_onnx import OPSETS

PACKAGES = ("torch", "onnx", "onnx_graphsurgeon", "onnxruntime", "onnxscript", "safetensors")


def require(settings: ExportSettings, out: Path) -> None:
    """Refuse settings that cannot lead to a bundle.

    Raises:
        UsageError: A number, SM, weights, data or place that cannot be used, or classes that do not fit.
        DataError: The folder of images holds too few, or an empty class.
        ModelError: The checkpoint cannot be read.
        NotAvailable: A package is not installed.
    """
    claim(out, "bundle", overwrite=settings.overwrite)
    _numbers(settings)
    entry = catalog.find_network(settings.model)
    classes = _classes(settings)
    if len(entry.input_shape) == 3:
        _data(settings, classes)
    for package in PACKAGES:
        need(package)


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
    """Return how many classes the weights are for; None where they follow the data, or nobody says."""
    source = settings.weights
    if source == TRAINED:
        trainable(settings.model)
        return None
    if source not in ("digits", "imagenet", "random") and not Path(source).is_file():
        raise UsageError(f"unknown weights {source!r}", got="no such file",
                         expected="trained, digits, imagenet, random or a file", do="choose one of these")  # fmt: skip
    spec = catalog.network_spec(settings.model, source)
    has_labels = source == "digits" or (Path(source).is_file() and bool(spec.labels))
    return spec.num_classes if has_labels and find(spec.task).learns_labels else None


def _data(settings: ExportSettings, classes: int | None) -> None:
    data = {split: datasets.load(settings.data, split, calibration=settings.calibration)
            for split in ("calibration", *SPLITS)}  # fmt: skip
    there = len(data["test"].classes)
    if classes is not None and there != classes:
        raise UsageError(
            f"the images in {settings.data} do not fit these weights",
            got=f"{there} classes there, {classes} in weights {settings.weights}", expected="the same classes",
            do="leave --weights out to train on these images, or give the images that it was trained for",
        )  # fmt: skip
    if "int8" in settings.precisions and (images := len(data["calibration"])) < MIN_IMAGES:
        raise DataError(
            "too few calibration images", got=f"{images} in {settings.data}", expected=f"at least {MIN_IMAGES}",
            do="add images, or leave int8 out of --precision",
        )  # fmt: skip
