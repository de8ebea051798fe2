"""Relu and Clip before a quantiser that saturates at the same bounds.

Before: QuantizeLinear(Clip(x, 0, 6), scale, zero_point)
After:  QuantizeLinear(x, scale, zero_point)
When:   the quantiser alone reads the activation, its scale is one constant, and it maps both bounds to the ends of its
        range: rounding is monotonic, so whatever lies outside the bounds falls on the same end.
Why:    the quantiser clips for nothing.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..base import Outcome, Pass, Refused, Rewritten
from ..graph import Net
from .merge_clips import interval

RANGES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767)}


def at(net: Net, node: Any) -> Outcome | None:
    """Drop one activation before a quantiser."""
    before = net.made_by(node.inputs[0], "Relu", "Clip")
    bounds = interval(net, before) if before is not None else None
    if before is None or not isinstance(bounds, tuple):
        return None
    scale, point = net.scalar(node.inputs[1]), net.input(node, 2)
    zero = 0.0 if point is None else net.scalar(point)
    kind = 2 if point is None else net.dtype(point)
    if scale is None or zero is None or scale <= 0 or kind not in RANGES:
        return Refused(node.name, "its scale or zero point is not one constant")
    ends = [_quantised(bound, scale, zero, RANGES[kind]) for bound in bounds]
    if ends != list(RANGES[kind]):
        return Refused(node.name, f"it maps {bounds[0]:g} and {bounds[1]:g} to {ends}, not to the ends of its range")
    if net.only_user(before.outputs[0]) is None:
        return Refused(node.name, f"what {before.name!r} makes is also read elsewhere")
    node.inputs[0] = before.inputs[0]
    return Rewritten(node.name, f"drops {before.op} {before.name!r}")


def _quantised(bound: float, scale: float, zero: float, limits: tuple[int, int]) -> int:
    if math.isinf(bound):
        return limits[0] if bound < 0 else limits[1]
    return int(np.clip(np.rint(np.float32(bound) / np.float32(scale)) + zero, *limits))


PASS = Pass(at, ("QuantizeLinear",), "Relu and Clip before a quantiser that saturates at their bounds dropped", 10)
