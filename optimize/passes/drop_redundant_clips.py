"""Remove Relu and Clip before or after a quantiser that saturates at the same bounds.

Before: QuantizeLinear(Clip(x, 0, 6), scale, zero_point);  Relu(DequantizeLinear(q, scale, 0)) with q unsigned
After:  QuantizeLinear(x, scale, zero_point);              DequantizeLinear(q, scale, 0)
When:   scale and zero point are one constant. Before: the quantiser alone reads the activation, and maps both bounds to
        the ends of its range: rounding is monotonic, so values outside are mapped to the same end. After: all values
        of the integer type are within the bounds.
Why:    one of the two clips is redundant.
"""

from __future__ import annotations

import math

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Refused, Rewritten
from .fuse_clips import interval

FLOAT = 1
RANGES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767)}


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Drop one activation beside a quantiser."""
    return _before(net, node) if node.op == "QuantizeLinear" else _after(net, node)


def _after(net: Graph, node: Node) -> Outcome | None:
    dequantizer, bounds = net.producer_of_type(node.inputs[0], "DequantizeLinear"), interval(net, node)
    if dequantizer is None or not isinstance(bounds, tuple) or net.dtype(dequantizer.outputs[0]) != FLOAT:
        return None
    scale, point, kind = net.scalar(dequantizer.inputs[1]), net.input(dequantizer, 2), net.dtype(dequantizer.inputs[0])
    zero = 0.0 if point is None else net.scalar(point)
    if scale is None or zero is None or scale <= 0 or kind not in RANGES:
        return Refused(node.name, "the scale or zero point before it is not one constant")
    low, high = (float(np.float32(end - zero) * np.float32(scale)) for end in RANGES[kind])
    if not (bounds[0] <= low and high <= bounds[1]):
        return Refused(node.name, f"its integers reach from {low:g} to {high:g}")
    if not net.bypass(node, dequantizer.outputs[0]):
        return Refused(node.name, "it connects two tensors whose names must both be preserved")
    return Rewritten(node.name, f"{dequantizer.name!r} produces no value outside its bounds")


def _before(net: Graph, node: Node) -> Outcome | None:
    before = net.producer_of_type(node.inputs[0], "Relu", "Clip")
    bounds = interval(net, before) if before is not None else None
    if before is None or not isinstance(bounds, tuple):
        return None
    scale, point = net.scalar(node.inputs[1]), net.input(node, 2)
    zero = 0.0 if point is None else net.scalar(point)
    kind = node.attrs.get("output_dtype", 0) or 2 if point is None else net.dtype(point)
    if scale is None or zero is None or scale <= 0 or kind not in RANGES:
        return Refused(node.name, "its scale or zero point is not one constant")
    ends = [_quantised(bound, scale, zero, RANGES[kind]) for bound in bounds]
    if ends != list(RANGES[kind]):
        return Refused(node.name, f"it maps {bounds[0]:g} and {bounds[1]:g} to {ends}, not to the ends of its range")
    if net.only_user(before.outputs[0]) is None:
        return Refused(node.name, f"the output of {before.name!r} is also read elsewhere")
    node.inputs[0] = before.inputs[0]
    return Rewritten(node.name, f"drops {before.op} {before.name!r}")


def _quantised(bound: float, scale: float, zero: float, limits: tuple[int, int]) -> int:
    if math.isinf(bound):
        return limits[0] if bound < 0 else limits[1]
    return int(np.clip(np.rint(np.float32(bound) / np.float32(scale)) + zero, *limits))


SUMMARY = "Relu and Clip beside a quantiser that saturates at their bounds removed"
PASS = Pass(rewrite, ("QuantizeLinear", "Relu", "Clip"), SUMMARY, lowest_opset=10)
