"""Fold a scale and shift per channel into the layer after it.

Before: Conv(a x + c, W, b)     the map is a BatchNormalization, Mul, Add, Sub or Div by constants per channel
After:  Conv(x, W', b')         W'[m, i] = W[m, i] a[i],  b'[m] = b[m] + sum over i, k of W[m, i, k] c[i]
When:   the layer is the only consumer; with a shift, the layer must not pad (padding is 0 after the map, not before it)
        and must not be a ConvTranspose (its borders overlap less than its middle). Rows of a Gemm are scaled too.
Why:    one pass over the activation less; the normalisation of images is folded into the first layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node
from . import _affine
from ._base import Outcome, Pass, Refused, Rewritten

Array = np.ndarray[Any, Any]


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Fold one map forwards."""
    side = 1 if node.op == "BatchNormalization" else _constant_side(net, node)
    layer = net.only_user(node.outputs[0])
    if side is None or layer is None or layer.domain or layer.op not in ("Conv", "ConvTranspose", "Gemm"):
        return None
    if layer.inputs[0] is not node.outputs[0] or net.value(layer.inputs[1]) is None:
        return None
    size = _inputs(net, layer)
    folded = (
        _affine.batchnorm(net, node)
        if node.op == "BatchNormalization"
        else _affine.read_channel_affine(net, node, side, *size)
    )
    if node.op != "BatchNormalization" and _widens(net, node, side, *size):
        folded = "its constant may give what it is combined with more dimensions or channels"
    if isinstance(folded, str):
        return Refused(node.name, folded)
    why = _refusal(net, layer, *folded) or _absorb(net, layer, *folded)
    if why:
        return Refused(node.name, why)
    net.bypass(node, node.inputs[1 - side])
    return Rewritten(node.name, f"{node.op} into {layer.op} {layer.name!r}")


def _constant_side(net: Graph, node: Node) -> int | None:
    side = next((index for index in (1, 0) if net.value(node.inputs[index]) is not None), None)
    return side if side is not None and net.value(node.inputs[1 - side]) is None else None


def _inputs(net: Graph, layer: Node) -> tuple[int, int]:
    """Return rank and channels of a layer's input."""
    shape = net.static(layer.inputs[1]) or (0, 0)
    if layer.op == "Conv":
        return len(shape), shape[1] * int(layer.attrs.get("group", 1))
    return len(shape), shape[1] if layer.op == "Gemm" and layer.attrs.get("transB") else shape[0]


def _widens(net: Graph, node: Node, side: int, rank: int, size: int) -> bool:
    shape = net.shape(node.inputs[1 - side])
    return shape is None or len(shape) != rank or (shape[1] != size and net.array(node.inputs[side]).size > 1)


def _refusal(net: Graph, layer: Node, scale: Array, shift: Array) -> str:
    bias = net.input(layer, 2)
    if net.dtype(layer.inputs[1]) not in _affine.FLOATS:
        return f"the weights of {layer.name!r} are integers"
    if why := _affine.shared(net, layer):
        return why
    if len(scale) != _inputs(net, layer)[1]:
        return f"its parameters do not match the channels that {layer.name!r} reads"
    if layer.op == "Gemm" and layer.attrs.get("transA"):
        return f"{layer.name!r} transposes its input"
    if not np.any(shift):
        return ""
    if layer.op == "ConvTranspose":
        return f"a shift before the ConvTranspose {layer.name!r} is not a constant after it"
    if bias is not None and net.value(bias) is None:
        return f"the bias of {layer.name!r} is not constant"
    padded = any(layer.attrs.get("pads", [])) or layer.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return f"{layer.name!r} pads with zeros, which the shift would change" if padded else ""


def _absorb(net: Graph, layer: Node, scale: Array, shift: Array) -> str:
    weights = net.array(layer.inputs[1])
    groups = int(layer.attrs.get("group", 1))
    exact, tail = weights.astype(np.float64), (1,) * (weights.ndim - 2)
    if layer.op == "Conv":
        each = np.repeat(np.stack([scale, shift]).reshape(2, groups, -1), len(weights) // groups, axis=1)
        spread, moved = (part.reshape(*part.shape, *tail) for part in each)
        offset = (exact * moved).sum(axis=tuple(range(1, weights.ndim)))
    else:
        row = (1, -1) if layer.attrs.get("transB") else (-1, 1)
        spread = scale.reshape(*(row if layer.op == "Gemm" else (-1, 1)), *tail)
        offset = (exact * shift.reshape(row)).sum(axis=1 if layer.attrs.get("transB") else 0) if not tail else None
    new_weights = _affine.scale_weights(weights, spread)
    if new_weights is None:
        return f"the folded weights do not fit {weights.dtype}"
    bias = None
    if np.any(shift):
        total = _affine.bias_of(net, layer) + (offset if layer.op == "Conv" else offset * layer.attrs.get("alpha", 1.0))
        bias = _affine.rounded(total, weights.dtype)
        if bias is None:
            return f"the folded bias does not fit {weights.dtype}"
    rest = list(layer.inputs[2:]) if bias is None else [net.constant(f"{layer.name or layer.op}_bias", bias)]
    _affine.note_copy(net, layer)
    layer.inputs = [layer.inputs[0], net.constant(f"{layer.inputs[1].name}_folded", new_weights), *rest]
    if bias is not None:
        layer.attrs.pop("beta", None)
    return ""


PASS = Pass(
    rewrite, ("BatchNormalization", "Mul", "Add", "Sub", "Div"), "a scale and shift folded into the layer after it"
)
