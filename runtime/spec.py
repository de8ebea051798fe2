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

# Under this key the spec stands, as JSON, in the metadata of an ONNX file.
SPEC_KEY = "edgesmith.spec"
LONGEST_SIDE = 1 << 16
SCORES = ("", "logits", "probabilities")
FITS = ("crop", "stretch", "letterbox", "pad")
FILLED = ("letterbox", "pad")  # which leave a part of the input beside the image
GREY = 114  # what Ultralytics fills with
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool")


@dataclass(frozen=True)
class Preprocess:
    """Preprocessing of an image: brought to the input's size, then scaled and normalised for each channel.

    `crop` is the (height, width) of the network's input in pixels. `fit` says how an image gets there:

    - "crop": its shorter side becomes `resize` pixels, its ratio is kept, the centre is cut out, as in torchvision;
    - "stretch": both sides are resized, whatever the ratio;
    - "letterbox": it is scaled, its ratio kept, to fit inside, centred, and the rest is filled, as Ultralytics does;
    - "pad": the same, but in the upper left corner, filled on the right and below;
    - "": "crop", or "stretch" where `resize` is 0, which means something for these two alone.

    `fill` is the pixel of the filled part, 0 to 255, one number or one for each channel of the network; with `enlarge`
    False, letterbox and pad leave a smaller image at its size. `interpolation` is one of `resize.INTERPOLATIONS`.
    Then x = (pixel / 255 - mean) / std for each channel.
    """

    crop: tuple[int, int] = (224, 224)
    resize: int = 256
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channels: str = "RGB"
    fit: str = ""
    fill: float | tuple[float, ...] = GREY
    enlarge: bool = True

    @property
    def fits(self) -> str:
        """How an image is brought to the input's size, one of FITS."""
        return self.fit or ("crop" if self.resize else "stretch")

    @property
    def fills(self) -> tuple[float, ...]:
        """The pixel of the filled part for each channel of the network, 0 to 255."""
        return self.fill if isinstance(self.fill, tuple) else (self.fill,) * len(self.mean)

    @property
    def is_early(self) -> bool:
        """Whether manifests before format 4 could say it."""
        return not set(self.to_dict()) & {"fit", "fill", "enlarge"} and "-" not in self.interpolation

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; of `fit`, `fill` and `enlarge` those that differ from what they are without a word."""
        values, silent = asdict(self), {"fit": "", "fill": GREY, "enlarge": True}
        return {key: value for key, value in values.items() if key not in silent or value != silent[key]}

    def check(self) -> None:
        """Check the types of the fields.

        Raises:
            TypeError: A field has the wrong type.
        """
        numbers = (self.resize, *self.mean, *self.std, *self.fills)
        if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in numbers):
            raise TypeError(f"resize, mean, std, fill {numbers} are not all numbers")
        if not isinstance(self.resize, int) or not 0 <= self.resize <= LONGEST_SIDE:
            raise TypeError(f"resize {self.resize!r}")
        if len(self.crop) != 2 or len(self.mean) != len(self.std) or not all(0 < value < 1e6 for value in self.std):
            raise TypeError(f"crop {self.crop}, mean {self.mean}, std {self.std}")
        if not (isinstance(self.interpolation, str) and isinstance(self.channels, str)):
            raise TypeError(f"interpolation {self.interpolation!r}, channels {self.channels!r}")
        if self.fit not in ("", *FITS) or not isinstance(self.enlarge, bool):
            raise TypeError(f"fit {self.fit!r}, enlarge {self.enlarge!r}")
        if self.fit == "crop" and not self.resize:
            raise TypeError("fit 'crop' with resize 0, which is no length of a side")
        if len(self.fills) != len(self.mean) or not all(0 <= value <= 255 for value in self.fills):
            raise TypeError(f"fill {self.fill}, not {len(self.mean)} numbers from 0 to 255")


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
    have; the shapes have their usual sizes, to which images are brought.
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
        return {key: value for key, value in values.items() if value or key not in ("scores", "other_inputs", "ranges")}

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
        plain["ranges"] = tuple(SizeRange(**one) for one in values.get("ranges", ()))
        spec = cls(**plain)
        spec._check()
        return spec

    def _check(self) -> None:
        if self.task not in tasks.names():
            raise TypeError(f"task {self.task!r} is not one of {tuple(tasks.names())}")
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


def _tuple_values(values: dict[str, Any]) -> dict[str, Any]:
    return {key: _tuples(value) for key, value in values.items()}
