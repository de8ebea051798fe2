"""Embed scaling and normalisation in the graph: the network then takes a camera frame, and the runtime only resizes.

Before: y = net(x)    x = (pixel / 255 - mean) / std, by the runtime      float (N, C, H, W)
After:  y = net'(p)   p = the pixels themselves: uint8 (N, H, W, C) or float (N, C, H, W)

    x = (p - 255 mean) * 1 / (255 std): the factor goes into the first Conv's weights, always exactly. The 255 mean goes
    into its bias if it has no padding; with padding, where zero stands for the mean, one Sub remains before it.
    If the network starts with another operator, the map becomes one BatchNormalization.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ..runtime.common.external_data import model_file
from ..runtime.common.files import workplace
from ..runtime.common.plugins import did_you_mean
from ..runtime.errors import CheckFailed, ModelError, UsageError
from ..runtime.spec import SPEC_KEY, ModelSpec
from . import comparison_inputs
from . import equivalence as checks
from .equivalence import Equivalence
from .graph import spec_metadata
from .graph.graph import Graph
from .graph.node import GraphTensor, is_a
from .graph.reader import read
from .graph.writer import needs_data_file, write
from .optimizer import optimize
from .report import Report

Array = np.ndarray[Any, Any]
Step = tuple[str, list[GraphTensor], dict[str, Any]]
INPUTS = ("uint8-nhwc", "float-nchw")
FLOATS = {1: np.float32, 10: np.float16}


def embed(
    model_path: str | Path,
    out: str | Path,
    spec: ModelSpec | None = None,
    input: str = "uint8-nhwc",
    *,
    verify: bool = True,
    **options: Any,
) -> Report:
    """Write a model that takes pixels: scaling, normalisation and the order of channels are in the graph.

    Resizing and cropping stay outside. The channels of the new input are always RGB (or one grey channel).

    Args:
        model_path: A float ONNX file with one image input, (N, C, H, W).
        out: The file to write; its metadata has the spec of the new input (see `raw_spec`).
        spec: The model's input and preprocessing; None for the one in its metadata.
        input: "uint8-nhwc": uint8 (N, H, W, C), a camera frame; "float-nchw": (N, C, H, W), 0 to 255, in the
            floating-point type of the model's present input.
        verify: Compare the result on random pixels with the original on the same pixels, normalised by numpy.
        options: As for `optimizer.optimize`, which runs on the result: target, batch, ...

    Raises:
        UsageError: An unknown kind of input, no such file, or the output is the model itself, which the comparison
            needs.
        ModelError: The model has no such input, or no spec.
        CheckFailed: The result differs from the original.
    """
    if input not in INPUTS:
        raise UsageError(
            f"unknown input {input!r}", expected=", ".join(INPUTS), do=did_you_mean(input, INPUTS) or "choose one"
        )
    source, out = model_file(model_path), Path(out)
    if out.resolve() == source.resolve():
        raise UsageError(f"cannot write over {source}", got="the model itself as output", do="name another file")
    net = read(source)
    spec = spec if spec is not None else _embedded_spec(net.skeleton, source)
    image = _image(net, spec)
    _prepend(net, image, input)
    spec_metadata.write(net.skeleton, raw_spec(spec, input))
    with workplace(out) as folder:
        raw = folder / out.name
        write(net, raw, raw.with_name(raw.name + ".data") if needs_data_file(net) else None)
        report = optimize(raw, out, verify=verify, **options)
    if verify:
        image = dataclasses.replace(image, shape=(options.get("batch") or image.shape[0], *image.shape[1:]))
        report = dataclasses.replace(report, check=_compared(source, out, image, input))
    return dataclasses.replace(report, source=str(source))


def raw_spec(spec: ModelSpec, input: str) -> ModelSpec:
    """Return the spec of a model whose preprocessing is in the graph.

    With "float-nchw", `Preprocess` has mean 0 and std 1/255: (p / 255 - 0) / (1 / 255) = p, so every runtime applies
    the identity. With "uint8-nhwc", layout is NHWC, dtype uint8 and input_shape
    (H, W, C): the runtime passes the cropped frame unchanged.
    """
    channels, height, width = spec.input_shape
    old = spec.preprocess
    order = "GRAY" if old.channels == "GRAY" else "RGB"
    settings = dataclasses.replace(old, mean=(0.0,) * channels, std=(1 / 255,) * channels, channels=order)
    if input == "float-nchw":
        return dataclasses.replace(spec, preprocess=settings)
    shape = (height, width, channels)
    return dataclasses.replace(spec, preprocess=settings, input_shape=shape, layout="NHWC", dtype="uint8")


def _embedded_spec(model: onnx.ModelProto, source: Path) -> ModelSpec:
    spec = spec_metadata.embedded(model)
    if spec is None:
        raise ModelError(
            f"{source} does not define its preprocessing",
            got=f"metadata {sorted(entry.key for entry in model.metadata_props)}",
            expected=f"the entry {SPEC_KEY}",
            do="export it with edgesmith, or pass a spec",
        )
    return spec


# -- the graph --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Image:
    """The network's input: name, its shape (N, C, H, W) with dynamic axes set, its type, and its preprocessing.

    `order` is the RGB channel of each channel of the input.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    black: Array
    unit: Array
    order: tuple[int, ...]

    def normalised(self, pixels: Array) -> Array:
        """Return the input for pixels (N, H, W, C)."""
        moved = ((pixels[..., self.order] - self.black) * self.unit).astype(self.dtype)
        return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))

    def raw(self, pixels: Array, kind: str) -> Array:
        """Return the new input for the same pixels."""
        return pixels if kind == "uint8-nhwc" else pixels.transpose(0, 3, 1, 2).astype(self.dtype)


def _image(net: Graph, spec: ModelSpec) -> Image:
    """Find the image input.

    Raises:
        ModelError: No input matches the spec.
    """
    settings, channels = spec.preprocess, len(spec.preprocess.mean)
    value = next((item for item in net.skeleton.graph.input if item.name == spec.input_name), onnx.ValueInfoProto())
    kind = value.type.tensor_type
    dims = [dim.dim_value for dim in kind.shape.dim]
    fits = len(dims) == 4 and dims[1] == channels == len(settings.std) == spec.input_shape[0]
    if not fits or kind.elem_type not in FLOATS or value.name in net.protected_names:
        raise ModelError(
            "the model's input cannot be changed to pixels",
            got="; ".join(f"{item.name} {_type_text(item)}" for item in net.skeleton.graph.input),
            expected=f"{spec.input_name}, float32 or float16 (N, {channels}, H, W), read only by layers of the graph",
            do="check the spec; embed before quantising",
        )
    shape = tuple(dim or free for dim, free in zip(dims, (1, *spec.input_shape), strict=True))
    black, unit = 255.0 * np.array(settings.mean), 1 / (255.0 * np.array(settings.std))
    order = tuple(range(channels))[:: -1 if settings.channels == "BGR" else 1]
    return Image(value.name, shape, FLOATS[kind.elem_type], black, unit, order)


def _type_text(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    dims = [dim.dim_param or dim.dim_value or "?" for dim in kind.shape.dim]
    return f"{onnx.TensorProto.DataType.Name(kind.elem_type).lower()} {tuple(dims)}"


def _prepend(net: Graph, image: Image, kind: str) -> None:
    """Change the graph's input to pixels, and insert the nodes that compute the old input from them."""
    old = next(item for item in net.graph.inputs if item.name == image.name)
    tensor, near = gs.Variable(image.name), net.graph.nodes[0]
    net.graph.inputs[net.graph.inputs.index(old)] = tensor
    old.name = net.fresh(f"{image.name}_normalised")
    steps: list[Step] = []
    if kind == "uint8-nhwc":
        _declare_nhwc(next(item for item in net.skeleton.graph.input if item.name == image.name))
        to = int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(image.dtype)))
        steps = [("Cast", [], {"to": to}), ("Transpose", [], {"perm": [0, 3, 1, 2]})]
    for op, constants, attrs in (*steps, *_map(net, image, old)):
        output = net.blank(f"{image.name}_{op.lower()}")
        net.add(op, [tensor, *constants], [output], near, attrs)
        tensor = output
    tensor.inputs[0].outputs[0] = old
    net.value_types, net.inferred = {}, False
    net.sort()


def _map(net: Graph, image: Image, old: GraphTensor) -> list[Step]:
    """Return the nodes that normalise: two that are later folded into the first Conv, or a single one."""
    layer, order, dtype = net.only_user(old), list(image.order), image.dtype
    if layer is not None and is_a(layer, "Conv") and (weights := net.value(layer.inputs[1])) is not None:
        if weights.shape[1] == len(order) and order != sorted(order):
            layer.inputs[1] = net.constant(f"{layer.inputs[1].name}_rgb", weights[:, order])
            image = dataclasses.replace(
                image, black=image.black[order], unit=image.unit[order], order=tuple(sorted(order))
            )
        black, unit = (array.astype(dtype).reshape(-1, 1, 1) for array in (image.black, image.unit))
        moved: list[Step] = [("Sub", [net.constant("black", black)], {})] if np.any(black) else []
        moved += [("Mul", [net.constant("unit", unit)], {})]
    else:
        zeros, ones = np.zeros_like(image.unit), np.ones_like(image.unit)
        arrays = zip(("unit", "zero", "black", "one"), (image.unit, zeros, image.black, ones), strict=True)
        parameters = [net.constant(name, array.astype(dtype)) for name, array in arrays]
        moved = [("BatchNormalization", parameters, {"epsilon": 0.0})]
    if list(image.order) != sorted(image.order):
        moved = [("Gather", [net.constant("channel_order", np.array(order, np.int64))], {"axis": 1}), *moved]
    return moved


def _declare_nhwc(value: onnx.ValueInfoProto) -> None:
    """Declare an input as uint8 (N, H, W, C)."""
    tensor = value.type.tensor_type
    dims = [type(dim).FromString(dim.SerializeToString()) for dim in tensor.shape.dim]
    tensor.elem_type = onnx.TensorProto.UINT8
    del tensor.shape.dim[:]
    tensor.shape.dim.extend(dims[axis] for axis in (0, 2, 3, 1))


# -- the check --------------------------------------------------------------------------------------------------------


def _compared(source: Path, out: Path, image: Image, kind: str) -> Equivalence:
    """Compare the result on pixels with the original on the same pixels, normalised by NumPy."""
    batch, channels, height, width = image.shape
    noise = np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), np.uint8)
    frames = [noise, np.zeros_like(noise), np.full_like(noise, 255)]
    try:
        expected = checks.reference(source, [{image.name: image.normalised(frame)} for frame in frames])
    except comparison_inputs.Refusal as refusal:
        return Equivalence("cannot tell", f"the source does not run here: {refusal}")
    outputs = [values for _, values in expected.pairs[-len(frames) :]]
    feeds = [{image.name: image.raw(frame, kind)} for frame in frames]
    check = checks.against(checks.Expected(None, list(zip(feeds, outputs, strict=True)), expected.open), out)
    if check.verdict != "equal":
        out.unlink(missing_ok=True)
        raise CheckFailed(
            f"{source.name} with its preprocessing in the graph differs", got=check.detail, do="report it"
        )
    return check
