"""Fuse chains of bounded activations, such as ReLU6, into one Clip or Relu.

Before: Clip(Relu(x), max=6), Min(Relu(x), 6), Max(Min(x, 6), 0), Relu(Clip(x, 0, 6)), Clip(Clip(x, -1, 8), 0, 6),
        Max(x, 0)
After:  Clip(x, 0, 6), or Relu(x) if the bounds are 0 and infinity
When:   bounds are constant scalars, the lower is not inf, the upper not -inf, and the tensors between have no other
        consumer. [lo1, hi1] then [lo2, hi2] is [clip2(lo1), clip2(hi1)]: also correct for disjoint intervals.
Why:    one node less, and backends fuse this form into the layer before it.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node
from ._base import Outcome, Pass, Refused, Rewritten

SPELLINGS = ("Relu", "Clip", "Min", "Max")
FLOATS = {1: np.float32, 10: np.float16, 11: np.float64}
Bounds = tuple[float, float]


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Merge one activation with the activation before it, or replace it by Clip or Relu."""
    bounds = interval(net, node)
    if bounds is None or isinstance(bounds, str):
        return Refused(node.name, bounds) if bounds else None
    source = _source(net, node)
    before = net.producer_of_type(source, *SPELLINGS)
    inner = interval(net, before) if before is not None else None
    if before is not None and isinstance(inner, tuple):
        return _merge(net, node, bounds, before, inner)
    if node.op != "Relu" and bounds == (0.0, math.inf) and (node.op == "Max" or net.opset > 10):
        return _emit(net, node, source, bounds, f"{node.op} of 0")
    return None


def _merge(net: Graph, node: Node, bounds: Bounds, before: Node, inner: Bounds) -> Outcome | None:
    low, high = (min(max(bound, bounds[0]), bounds[1]) for bound in inner)
    if (low, high) == inner and net.bypass(node, before.outputs[0]):
        return Rewritten(node.name, f"{before.op} {before.name!r} already bounds it")
    if net.only_user(before.outputs[0]) is None:
        return Refused(node.name, f"the output of {before.name!r} is also read elsewhere or is an output of the graph")
    return _emit(net, node, _source(net, before), (low, high), f"with {before.op} {before.name!r}")


def interval(net: Graph, node: Node) -> Bounds | str | None:
    """Return the bounds of a clipping node, or why they are unknown, or None for another type of node."""
    if net.dtype(node.outputs[0]) not in FLOATS:
        return None
    if node.op == "Relu":
        return 0.0, math.inf
    if node.op == "Clip":
        return _clip(net, node)
    if len(node.inputs) != 2 or node.op not in ("Min", "Max"):
        return None
    scalars = [net.scalar(tensor) for tensor in node.inputs]
    number = next((value for value in scalars if value is not None), None)
    if number is None or not math.isfinite(number) or not _keeps_shape(net, node):
        return None
    return (number, math.inf) if node.op == "Max" else (-math.inf, number)


def _clip(net: Graph, node: Node) -> Bounds | str:
    bounds = []
    for index, (name, default) in enumerate((("min", -math.inf), ("max", math.inf)), 1):
        tensor = net.input(node, index)
        bound = node.attrs.get(name, default) if tensor is None else net.scalar(tensor)
        if bound is None:
            return f"its {name} is not constant"
        if math.isnan(bound):
            return f"its {name} is NaN"
        bounds.append(float(bound))
    low, high = bounds
    return "it clips to infinity" if low == math.inf or high == -math.inf else (min(low, high), high)


def _keeps_shape(net: Graph, node: Node) -> bool:
    source = _source(net, node)
    other = node.inputs[0] if node.inputs[1] is source else node.inputs[1]
    rank = net.rank(source)
    return net.value(source) is None and (net.rank(other) == 0 or (rank is not None and rank >= (net.rank(other) or 0)))


def _source(net: Graph, node: Node) -> GraphTensor:
    """Return the activation among a node's inputs."""
    return next((tensor for tensor in node.inputs if net.scalar(tensor) is None), node.inputs[0])


def _emit(net: Graph, node: Node, source: GraphTensor, bounds: Bounds, detail: str) -> Outcome:
    dtype = FLOATS[net.dtype(node.outputs[0])]
    output, relu = node.outputs[0], bounds == (0.0, math.inf)
    if dtype is np.float64 and net.opset < 12 and not relu:
        return Refused(node.name, "before opset 12 ONNX Runtime has no Clip of float64")
    inputs, attrs = list[GraphTensor | None]([source]), {}
    for name, bound in zip(("min", "max"), bounds, strict=True):
        if relu or (math.isinf(bound) and (bound < 0) == (name == "min")):
            inputs.append(None)
        elif net.opset <= 10:
            attrs[name] = float(np.float32(bound))
        else:
            inputs.append(net.constant(f"{node.name}_{name}", np.array(bound, dtype)))
    while inputs[-1] is None:
        inputs.pop()
    node.outputs.clear()
    tensors = [gs.Variable.empty() if tensor is None else tensor for tensor in inputs]
    clip = net.add("Relu" if relu else "Clip", tensors, [output], node, attrs)
    net.drop(node)
    return Rewritten(node.name, f"{detail} into {clip.op} [{bounds[0]:g}, {bounds[1]:g}]")


PASS = Pass(rewrite, SPELLINGS, "chains of Relu, Clip, Min and Max with constant bounds fused into one Clip or Relu")
