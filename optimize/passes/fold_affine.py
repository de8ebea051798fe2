"""Fold a multiplication by and addition of constants per channel into the layer before.

Before: Conv(x, W, b) * s + t, with s and t of shape (), (1,), (C, 1, 1) or (1, C, 1, 1); also /, -, and t - Conv(x)
After:  Conv(x, s W, s b + t)
When:   the layer is a Conv, ConvTranspose, Gemm, MatMul of two matrices (then a Gemm) or BatchNormalization in
        inference mode, its parameters are constant and its output has no other consumer.
Why:    one pass over the activation less; exporters write LayerScale, biases and normalisation this way.
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
    """Fold one Mul, Add, Sub or Div by a constant."""
    side = next((index for index in (1, 0) if net.value(node.inputs[index]) is not None), None)
    if side is None or net.value(node.inputs[1 - side]) is not None:
        return None
    layer = net.producer_of_type(node.inputs[1 - side], *_affine.ABSORBERS, "BatchNormalization")
    if layer is None:
        return None
    folded = _affine.read_channel_affine(net, node, side, *_sizes(net, layer))
    if isinstance(folded, str):
        return Refused(node.name, folded)
    why = _affine.refusal(net, layer) or _affine.fold_into_layer(net, layer, *folded)
    if why:
        return Refused(node.name, why)
    net.bypass(node, layer.outputs[0])
    return Rewritten(node.name, f"{node.op} into {layer.op} {layer.name!r}")


def _sizes(net: Graph, layer: Node) -> tuple[int, int]:
    """Return rank and channels of a layer's output (0 if unknown)."""
    if layer.op == "BatchNormalization":
        shape = net.static(layer.inputs[1]) or (0,)
        return net.rank(layer.outputs[0]) or 0, shape[0]
    rank = net.rank(layer.inputs[1]) or 0
    return rank, _affine.channels(net, layer) if rank >= 2 else 0


PASS = Pass(rewrite, ("Mul", "Add", "Sub", "Div"), "constants per channel after a layer folded into the layer")
