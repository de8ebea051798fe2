"""Fold Pad into the Conv or pooling after it.

Before: Conv(Pad(x, 0 0 1 1 0 0 1 1), pads 0 0 0 0)
After:  Conv(x, pads 1 1 1 1)
When:   the padding is constant, not negative, on spatial axes only and read only by this layer; with the value 0
        before Conv, 0 before an AveragePool that counts its padding (or has none yet), minus infinity before MaxPool.
        The pads of a pool must be smaller than its kernel, and it must not use ceil_mode.
Why:    Pad copies the activation; the layer pads at no cost.
"""

from __future__ import annotations

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Fold one Pad."""
    layer = net.only_user(node.outputs[0])
    if layer is None or layer.domain or layer.op not in ("Conv", "AveragePool", "MaxPool"):
        return None
    if layer.inputs[0] is not node.outputs[0]:
        return None
    pads = _pads(net, node)
    why = pads if isinstance(pads, str) else _refusal(net, node, layer, pads)
    if why or isinstance(pads, str):
        return Refused(node.name, why)
    own = layer.attrs.get("pads") or [0] * len(pads)
    net.bypass(node, node.inputs[0])
    layer.attrs["pads"] = [one + other for one, other in zip(own, pads, strict=True)]
    layer.attrs.pop("auto_pad", None)
    if layer.op == "AveragePool":
        layer.attrs["count_include_pad"] = 1
    return Rewritten(node.name, f"into {layer.op} {layer.name!r}")


def _pads(net: Graph, node: Node) -> list[int] | str:
    """Return begin and end pads of the spatial axes, or why they cannot move."""
    pads, rank = net.ints(node, "pads", 1), net.rank(node.inputs[0])
    if pads is None or rank is None:
        return "its pads are not constant" if pads is None else "the rank of its input is not known"
    if node.attrs.get("mode", "constant") != "constant":
        return f"its mode is {node.attrs['mode']}"
    axes = list(range(rank))
    if net.input(node, 3) is not None:
        numbers = net.ints(node, "axes", 3)
        if numbers is None:
            return "its axes are not constant"
        axes = [axis % rank for axis in numbers]
    if len(set(axes)) != len(axes) or len(pads) != 2 * len(axes):
        return "its pads do not match its axes"
    begin, end = [0] * rank, [0] * rank
    for index, axis in enumerate(axes):
        begin[axis], end[axis] = pads[index], pads[index + len(axes)]
    if min(begin + end) < 0:
        return "a pad is negative"
    if any(begin[:2] + end[:2]):
        return "it pads the batch or the channels"
    return begin[2:] + end[2:]


def _refusal(net: Graph, node: Node, layer: Node, pads: list[int]) -> str:
    constant = net.input(node, 2)
    value = float(node.attrs.get("value", 0.0)) if constant is None else net.scalar(constant)
    wanted = -np.inf if layer.op == "MaxPool" else 0.0
    if value != wanted:
        return f"it pads with {'a variable' if value is None else value}, {layer.op} with {wanted}"
    if layer.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"{layer.name!r} pads by {layer.attrs['auto_pad']}"
    if layer.op == "Conv":
        return ""
    own = layer.attrs.get("pads") or [0] * len(pads)
    kernel = list(layer.attrs.get("kernel_shape", [])) * 2
    if layer.attrs.get("ceil_mode", 0) or any(tensor.name for tensor in layer.outputs[1:]):
        return f"{layer.name!r} rounds up or returns indices"
    if any(one + other >= size for one, other, size in zip(own, pads, kernel, strict=True)):
        return f"the pads would reach the kernel of {layer.name!r}"
    if layer.op == "AveragePool" and any(own) and not layer.attrs.get("count_include_pad", 0):
        return f"{layer.name!r} does not count its own padding"
    return ""


PASS = Pass(rewrite, ("Pad",), "constant padding folded into the Conv or pooling after it")
