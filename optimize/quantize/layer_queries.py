"""Questions that several steps ask of a layer: where its channels and those of its weights stand, its padding, readers.

                 activations                weights as stored              output channels of the weights
Conv             (N, C, ...)    axis 1      (M, C / groups, ...)           axis 0
ConvTranspose    (N, C, ...)    axis 1      (C, M / groups, ...)           axis 1, again for each group
Gemm             (N, K)         last axis   (M, K) with transB, (K, M)     axis 0 with transB, else 1
MatMul           (..., K)       last axis   (K, M)                         axis 1
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import NodeProto

from ..graph.proto_graph import ProtoGraph, attributes
from .targets import TRANSPOSED

# Operators that copy values: a quarter of the bytes is less work even where the quantiser has to be paid for.
QUICKER = frozenset({"Concat", "DepthToSpace", "MaxPool", "Resize", "Slice", "SpaceToDepth", "Split"})


def group_count(node: NodeProto) -> int:
    """Return a convolution's groups, 1 for other layers."""
    return int(attributes(node).get("group", 1)) if node.op_type in ("Conv", "ConvTranspose") else 1


def channel_axis(node: NodeProto) -> int:
    """Return the axis of the channels in what a layer reads and in what it writes."""
    return 1 if node.op_type in ("Conv", "ConvTranspose") else -1


def channel_axes(layers: Iterable[NodeProto]) -> dict[str, int | None]:
    """Return the channel axis of each tensor that layers read or write; None where two of them see it differently."""
    axes: dict[str, int | None] = {}
    for node in layers:
        axis = channel_axis(node)
        for name in (node.input[0], node.output[0]):
            axes[name] = axis if axes.get(name, axis) == axis else None
    return axes


def weight_axis(node: NodeProto) -> int | None:
    """Return the axis of the output channels in a layer's weights as they are stored, None where groups share it."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attributes(node).get("transB", 0)):
        return 0
    return 1 if group_count(node) == 1 else None


def output_first(net: ProtoGraph, node: NodeProto) -> np.ndarray:
    """Return a layer's float weights with their output channels first: (M, C / groups, ...), or (M, K)."""
    return as_output_first(node, net.arrays[node.input[1]])


def as_output_first(node: NodeProto, weight: np.ndarray) -> np.ndarray:
    """Return an array of the shape of a layer's weights with the output channels first."""
    if weight_axis(node) == 0:
        return weight
    if node.op_type != "ConvTranspose":
        return np.ascontiguousarray(weight.T)
    inputs, outputs, *kernel = weight.shape
    parts = weight.reshape(group_count(node), inputs // group_count(node), outputs, *kernel)
    return np.ascontiguousarray(parts.swapaxes(1, 2)).reshape(-1, inputs // group_count(node), *kernel)


def output_channels(net: ProtoGraph, node: NodeProto) -> int:
    """Return how many channels a layer writes."""
    shape = net.arrays[node.input[1]].shape
    return int(shape[0] if weight_axis(node) == 0 else shape[1] * group_count(node))


def each_channel(node: NodeProto, values: np.ndarray, rank: int) -> np.ndarray:
    """Return one value for each channel, (C,), so that it broadcasts over what a layer reads or writes."""
    return values.reshape(-1, *[1] * (rank - 2)) if channel_axis(node) == 1 else values


def row_bias(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a layer has no bias, or one value for each output channel whatever its shape says."""
    if len(node.input) < 3 or not node.input[2]:
        return True
    bias = net.arrays.get(node.input[2])
    return bias is not None and (bias.size == 1 or bias.shape in {(width := output_channels(net, node),), (1, width)})


def layer_bias(net: ProtoGraph, node: NodeProto) -> np.ndarray:
    """Return a layer's bias, (M,); one of zeros is added where there is none.

    The layer is one of which `row_bias` is true: a bias (1, M) or of one value becomes (M,).
    """
    width = output_channels(net, node)
    if len(node.input) < 3 or not node.input[2]:
        net.set_bias(node, np.zeros(width, np.float32))
    elif net.arrays[node.input[2]].shape != (width,):
        net.set_bias(node, np.array(np.broadcast_to(net.arrays[node.input[2]].reshape(-1), (width,))))
    return net.arrays[node.input[2]]


def pads(node: NodeProto) -> list[int]:
    """Return a convolution's padding, [] for none and for other operators."""
    sizes = [int(pad) for pad in attributes(node).get("pads", [])]
    return sizes if any(sizes) else []


def pads_by_list(node: NodeProto) -> bool:
    """Say whether a convolution's padding stands in `pads`, not in words whose meaning depends on the image's size."""
    return attributes(node).get("auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"}


def readers_behind(net: ProtoGraph, quantiser: NodeProto) -> list[NodeProto]:
    """Return who reads the dequantised value."""
    return [node for pair in net.readers[quantiser.output[0]] for node in net.readers[pair.output[0]]]


def is_plain(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a layer is a Conv or Gemm with constant weights, output channels first, and nothing besides."""
    values = attributes(node)
    if node.op_type not in ("Conv", "Gemm"):
        return False
    if node.op_type == "Gemm" and (not values.get("transB") or values.get("transA") or values.get("alpha", 1) != 1):
        return False
    constant = all(name in net.arrays for name in node.input[1:] if name)
    return constant and node.input[0] not in net.arrays and values.get("beta", 1) == 1


def reads_rgb_input(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a quantised 2-D convolution alone reads an input of three channels, before Q/DQ stand or after."""
    name = node.input[0]
    while name not in net.inputs:
        producer = net.producer.get(name)
        if producer is None or producer.op_type not in ("QuantizeLinear", "DequantizeLinear", "Pad"):
            return False
        name = producer.input[0]
        if len(net.readers[name]) != 1:
            return False
    weight = net.producer.get(node.input[1])
    shape = net.arrays[node.input[1] if weight is None else weight.input[0]].shape
    alone = len(net.readers[node.input[0]]) == 1 and name not in net.outputs
    flat = node.op_type == "Conv" and len(shape) == 4 and attributes(node).get("group", 1) == 1
    return flat and alone and shape[1] == 3


def no_integers(node: NodeProto) -> str:
    """Return why an operator of a type that computes in INT8 computes in float; "" where it does not."""
    if node.op_type != "Resize":
        return ""
    values = attributes(node)
    mode, antialias = values.get("mode", b"nearest").decode(), values.get("antialias", 0)
    crops = values.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    if mode == "nearest" and not antialias and not crops:
        return ""
    return f"Resize by {'antialiasing' if antialias else 'cropping' if crops else mode} has no INT8 kernel"


def may_enter(net: ProtoGraph, name: str, node: NodeProto) -> bool:
    """Say whether a tensor of float operators may be quantised for an operator that only moves it.

    What stands behind is quantised anyway, for a layer, and moving values does not change them: so the operator moves
    a quarter of the bytes. An addition takes only what itself is an average or a sum of quantised values.
    """
    producer = net.producer.get(name)
    if producer is None or name in net.outputs or not net.is_float(name):
        return False
    return node.op_type in QUICKER or (node.op_type == "Add" and producer.op_type in ("Resize", TRANSPOSED))
