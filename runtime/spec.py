"""ModelSpec, the description of a network's input and outputs from the PyTorch module to the device.

`export` writes a ModelSpec into the ONNX metadata, the bundle copies it into its manifest, the runtime reads it. It is
plain data, equal after a JSON round trip.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from . import tasks
from .common.names import RULE, TEXT_RULE, is_name, is_text
from .common.size_range import SizeRange, check_ranges
from .errors import DataError, ModelError
from .images.settings import FILLED as FILLED
from .images.settings import FITS as FITS
from .images.settings import GREY as GREY
from .images.settings import LONGEST_SIDE
from .images.settings import Preprocess as Preprocess

# Under this key the spec stands, as JSON, in the metadata of an ONNX file.
SPEC_KEY = "edgesmith.spec"
SCORES = ("", "logits", "probabilities")
LATER = ("scores", "other_inputs", "ranges", "decoder")  # fields that the first format did not have
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class InputSpec:
    """One input of a network: name, shape without the batch (which is the first axis), type by numpy's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def check(self) -> None:
        """Compare the fields with their types.

        Raises:
            TypeError: One does not fit.
        """
        if not (isinstance(self.name, str) and isinstance(self.dtype, str)):
            raise TypeError(f"input {self.name!r}, {self.dtype!r}")
        sizes = self.shape if isinstance(self.shape, tuple) else (None,)
        if not all(isinstance(size, int) and 0 < size < 1 << 31 for size in sizes) or self.dtype not in DTYPES:
            raise TypeError(f"input {self.name!r}: shape {self.shape}, {self.dtype} (known: {', '.join(DTYPES)})")


@dataclass(frozen=True)
class Published:
    """Published figures: parameters, multiply-adds (both recomputed by tests), accuracy in per cent.

    `dataset` is the one that `top1` and `top5` were measured on: "imagenet" (ILSVRC 2012, validation), "cifar10".
    """

    params: int | None = None
    macs: int | None = None
    top1: float | None = None
    top5: float | None = None
    source: str = ""
    dataset: str = ""


@dataclass(frozen=True)
class ModelSpec:
    """Name, input, preprocessing, labels and published figures of one network.

    `input_shape` is without the batch dimension: (C, H, W) for layout NCHW. `labels` may be empty (class indices are
    then the labels). `weights` says where the weights came from: "digits", "imagenet", "package", "random", a file's
    name. `name` becomes files and folders: it is what `names.is_name` allows; labels and tensors' names are any
    printable text.
    `scores` says what the first output holds: "logits", "probabilities" (the network ends in its own softmax), or "",
    not known. The fields describe the first input, which `preprocess` makes from an image; `other_inputs` are plain
    tensors: scale factors, the second image of a pair, a state. `ranges` are the sizes that free axes of inputs may
    have; the shapes have their usual sizes, to which images are brought. `decoder` has the settings by which the task
    reads the outputs: which decoder, anchors, thresholds (`tasks/<task>.py` lists them).
    """

    name: str
    input_shape: tuple[int, ...] = (3, 224, 224)
    num_classes: int = 1000
    task: str = "classify"
    layout: str = "NCHW"
    dtype: str = "float32"
    input_name: str = "input"
    output_names: tuple[str, ...] = ("output",)
    preprocess: Preprocess = field(default_factory=Preprocess)
    labels: tuple[str, ...] = ()
    weights: str = "random"
    paper: str = ""
    published: Published = field(default_factory=Published)
    scores: str = ""
    other_inputs: tuple[InputSpec, ...] = ()
    ranges: tuple[SizeRange, ...] = ()
    decoder: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """Every input, the first one first."""
        return (InputSpec(self.input_name, tuple(self.input_shape), self.dtype), *self.other_inputs)

    @property
    def takes_images(self) -> bool:
        """Whether `preprocess` makes the only input from an image; else the user feeds arrays."""
        sides = self.input_shape[:2] if self.layout == "NHWC" else self.input_shape[1:]
        is_image = len(self.input_shape) == 3 and self.layout in ("NCHW", "NHWC") and not self.other_inputs
        return is_image and tuple(sides) == tuple(self.preprocess.crop)

    @property
    def inputs_text(self) -> str:
        """What the network takes, as text: each input with its type and shape, N for the batch."""
        free = {(one.input, one.axis): one for one in self.ranges}
        sizes = {
            one.name: ["N", *(free.get((one.name, axis), size) for axis, size in enumerate(one.shape, 1))]
            for one in self.inputs
        }
        return ", ".join(f"{one.name} {one.dtype} ({', '.join(map(str, sizes[one.name]))})" for one in self.inputs)

    def require_images(self) -> None:
        """Refuse images where `preprocess` does not make the only input from one.

        Raises:
            DataError: The network takes arrays.
        """
        if not self.takes_images:
            raise DataError(
                f"{self.name} takes no images", expected=f"arrays: {self.inputs_text}",
                do="give a .npz file (numpy.savez(FILE, NAME=array, ...)) or a dict of arrays by input name",
            )  # fmt: skip

    def feeds(self, batch: Any) -> dict[str, Any]:
        """Return arrays by the inputs' names: a dict as it is, an array for the first input."""
        return batch if isinstance(batch, dict) else {self.input_name: batch}

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; what later formats added is left out where it says nothing, as earlier ones did."""
        values = {**asdict(self), "preprocess": self.preprocess.to_dict()}
        return {key: value for key, value in values.items() if value or key not in LATER}

    def context(self, size: tuple[int, int] | None = None, most: int | None = None) -> tasks.DecodeContext:
        """Return what decoding the outputs for one image needs.

        Args:
            size: Height and width of the image; None if unknown.
            most: Of a list of answers, only so many of the best.
        """
        preprocess = self.preprocess if self.takes_images else None
        return tasks.DecodeContext(self.labels, self.scores, self.num_classes, self.decoder, preprocess, size, most)

    def __post_init__(self) -> None:
        """Refuse a name that is not valid.

        Raises:
            ModelError: The name, a label or a tensor's name breaks the rules of `names`.
        """
        if not is_name(self.name):
            raise ModelError("the name of the network is not valid", got=repr(self.name)[:200], expected=RULE)
        texts = (self.input_name, *self.output_names, *self.labels, *(one.name for one in self.other_inputs))
        if odd := next((text for text in texts if isinstance(text, str) and not is_text(text)), None):
            raise ModelError("the name of a label or tensor is not valid", got=repr(odd)[:200], expected=TEXT_RULE)

    def to_json(self) -> str:
        """Return the spec as one line of JSON."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read a spec from JSON.

        Raises:
            ModelError: The text is not a JSON object, or a field is missing, unknown or of the wrong type.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(
                "the ModelSpec cannot be read", got=str(error), expected="JSON as `ModelSpec.to_json` writes it"
            ) from error

    @classmethod
    def from_metadata(cls, texts: Mapping[str, str]) -> ModelSpec | None:
        """Read the spec from a file's metadata entries; None if there is none.

        Raises:
            ModelError: The spec cannot be read.
        """
        return cls.from_json(texts[SPEC_KEY]) if SPEC_KEY in texts else None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSpec:
        """Build a spec from plain JSON values (lists become tuples)."""
        known = {item.name for item in fields(cls)}
        if unknown := set(values) - known:
            raise TypeError(f"unknown fields {sorted(unknown)}")
        plain = {key: _tuples(value) for key, value in values.items()}
        plain["preprocess"] = Preprocess(**_tuple_values(values.get("preprocess", {})))
        plain["published"] = Published(**values.get("published", {}))
        plain["other_inputs"] = tuple(InputSpec(**_tuple_values(one)) for one in values.get("other_inputs", ()))
        plain["decoder"] = _settings(values.get("decoder", {}))
        plain["ranges"] = tuple(SizeRange(**one) for one in values.get("ranges", ()))
        spec = cls(**plain)
        spec._check()
        return spec

    def _check(self) -> None:
        if self.task not in tasks.names():
            raise TypeError(f"task {self.task!r} is not one of {tuple(tasks.names())}")
        tasks.find(self.task).check_decoder(self.decoder)
        if self.scores not in SCORES:
            raise TypeError(f"scores {self.scores!r} is not one of {SCORES}")
        dims = (*self.input_shape, *self.preprocess.crop, self.num_classes)
        if not self.input_shape or not all(isinstance(dim, int) and dim > 0 for dim in dims):
            raise TypeError(f"sizes {dims} are not all positive integers")
        self._check_texts()
        self.preprocess.check()
        for one in self.other_inputs:
            one.check()
        check_ranges(self.ranges, {one.name: one.shape for one in self.inputs})
        if max(*self.input_shape, *self.preprocess.crop) > LONGEST_SIDE:
            raise TypeError(f"a side of {max(*self.input_shape, *self.preprocess.crop)} pixels")

    def _check_texts(self) -> None:
        single = (self.layout, self.dtype, self.input_name, self.weights, self.paper)
        several = (self.output_names, self.labels)
        if not all(isinstance(names, tuple) for names in several):
            raise TypeError("output_names or labels is not a list")
        if wrong := [text for text in (*single, *several[0], *several[1]) if not isinstance(text, str)]:
            raise TypeError(f"{wrong[0]!r} is not text")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _settings(value: Any) -> Any:
    """Return settings with tuples in place of lists, also inside tables."""
    if not isinstance(value, dict):
        return _tuples(value)
    return {str(key): _settings(one) for key, one in value.items()}


def _tuple_values(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuples(value) for key, value in values.items()}
