"""Remove operators that return their input unchanged.

Before: Identity(x), Cast and CastLike to x's own type, Transpose by the identity, Reshape, Flatten and Expand to x's
        own shape, Squeeze and Unsqueeze of no axes, Concat, Sum, Max, Min and Mean of one input, Split into one part,
        Slice of everything, Pad by nothing, Resize by 1, 1x1 pooling, x * 1, x / 1, x + 0, x - 0
After:  x
When:   shapes and types are known to be equal; not if it connects a graph input to an output (both names are
        preserved).
Why:    most of them copy the activation, and all prevent the fusion of the layers around them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Drop one node that returns one of its inputs."""
    source = TESTS[node.op](net, node)
    if source is None:
        return None
    if any(tensor.outputs or tensor.name in net.protected_names for tensor in node.outputs[1:]):
        return None
    if not net.bypass(node, source):
        return Refused(node.name, "it connects two tensors whose names must both be preserved")
    return Rewritten(node.name, node.op)


def _always(net: Graph, node: Node) -> GraphTensor | None:
    return node.inputs[0]


def _same_shape(net: Graph, node: Node) -> GraphTensor | None:
    return node.inputs[0] if net.same_shape(node.inputs[0], node.outputs[0]) else None


def _same_type(net: Graph, node: Node) -> GraphTensor | None:
    kind = net.dtype(node.inputs[0])
    wanted = node.attrs.get("to") if node.op == "Cast" else net.dtype(node.inputs[1])
    wanted = wanted if isinstance(wanted, int) else 0
    return node.inputs[0] if kind and kind == wanted else None


def _transpose(net: Graph, node: Node) -> GraphTensor | None:
    order = node.attrs.get("perm")
    return node.inputs[0] if order is not None and list(order) == list(range(len(order))) else None


def _no_axes(net: Graph, node: Node) -> GraphTensor | None:
    return _same_shape(net, node)


def _one_input(net: Graph, node: Node) -> GraphTensor | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _one_output(net: Graph, node: Node) -> GraphTensor | None:
    return _same_shape(net, node) if len(node.outputs) == 1 else None


def _slice(net: Graph, node: Node) -> GraphTensor | None:
    steps = net.ints(node, "steps", 4)
    if net.input(node, 4) is not None and (steps is None or any(step < 1 for step in steps)):
        return None
    return _same_shape(net, node)


def _pad(net: Graph, node: Node) -> GraphTensor | None:
    pads = net.ints(node, "pads", 1)
    return node.inputs[0] if pads is not None and not any(pads) else None


def _resize(net: Graph, node: Node) -> GraphTensor | None:
    """Return the input of a Resize with scale 1 (linear or nearest); cubic and cropping modes are kept."""
    plain = node.attrs.get("mode", "nearest") in ("nearest", "linear")
    cropped = str(node.attrs.get("coordinate_transformation_mode")).startswith("tf_")  # crops, or is half a pixel off
    scales = net.input(node, 1 if node.op == "Upsample" or net.opset < 11 else 2)
    factors = node.attrs.get("scales") if scales is None else net.value(scales)
    ones = factors is None or bool(np.all(np.asarray(factors) == 1))
    return _same_shape(net, node) if plain and not cropped and ones else None


def _pool(net: Graph, node: Node) -> GraphTensor | None:
    ones = all(item == 1 for key in ("kernel_shape", "strides") for item in node.attrs.get(key, [1]))
    pads = any(node.attrs.get("pads", [])) or node.attrs.get("auto_pad", "NOTSET") != "NOTSET"
    return _same_shape(net, node) if ones and not pads and "kernel_shape" in node.attrs else None


def _neutral(net: Graph, node: Node) -> GraphTensor | None:
    """Return x of x * 1, x / 1, x + 0 and x - 0; zero or one on the left only if the operator commutes."""
    neutral = 1.0 if node.op in ("Mul", "Div") else 0.0
    for index in (1, 0) if node.op in ("Mul", "Add") else (1,):
        value = net.value(node.inputs[index])
        source = node.inputs[1 - index]
        if value is not None and value.size and value.dtype != object and bool(np.all(value == neutral)):
            return source if net.same_shape(source, node.outputs[0]) else None
    return None


def _clip(net: Graph, node: Node) -> GraphTensor | None:
    bounded = "min" in node.attrs or "max" in node.attrs or any(tensor.name for tensor in node.inputs[1:])
    return None if bounded else node.inputs[0]


TESTS: dict[str, Callable[[Graph, Node], GraphTensor | None]] = {
    "Identity": _always, "Cast": _same_type, "CastLike": _same_type, "Transpose": _transpose,
    "Reshape": _same_shape, "Flatten": _same_shape, "Expand": _same_shape, "Tile": _same_shape,
    "Squeeze": _no_axes, "Unsqueeze": _no_axes, "Concat": _one_input, "Sum": _one_input, "Max": _one_input,
    "Min": _one_input, "Mean": _one_input, "Split": _one_output, "Slice": _slice, "Pad": _pad,
    "Resize": _resize, "Upsample": _resize, "AveragePool": _pool, "MaxPool": _pool, "Clip": _clip,
    "Mul": _neutral, "Div": _neutral, "Add": _neutral, "Sub": _neutral,
}  # fmt: skip

PASS = Pass(rewrite, tuple(TESTS), "operators that return their input unchanged removed")
