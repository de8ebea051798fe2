"""Fuse BatchNormalization into the layer before it.

Before: y = BatchNormalization(Conv(x, W, b), gain, bias, mean, var)     W (M, C/group, kH, kW), the others (M,)
After:  y = Conv(x, a W, a b + c)    with a = gain / sqrt(var + epsilon), c = bias - mean a
        Through a Concat of channels, into each layer before it.
When:   the layer is a Conv, ConvTranspose, Gemm or MatMul of two matrices whose output has no other consumer; weights
        and statistics are constant; inference mode. Weights shared with another layer are copied, not changed.
Why:    one pass over the activation less per layer; on small networks this is 20 % of the time.
"""

from __future__ import annotations

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node
from . import _affine
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Fold one BatchNormalization."""
    layer = net.producer(node.inputs[0])
    if layer is not None and layer.op == "Concat" and not layer.domain:
        return _into_branches(net, node, layer)
    if layer is None or layer.domain or layer.op not in _affine.ABSORBERS:
        return Refused(node.name, f"it follows {layer.op if layer is not None else 'an input'}, not a layer")
    parameters = _affine.batchnorm(net, node)
    if isinstance(parameters, str):
        return Refused(node.name, parameters)
    why = _affine.refusal(net, layer)
    if not why and len(parameters[0]) != _affine.channels(net, layer):
        why = f"its parameters do not match the {_affine.channels(net, layer)} channels before it"
    why = why or _affine.fold_into_layer(net, layer, *parameters)
    if why:
        return Refused(node.name, why)
    net.bypass(node, layer.outputs[0])
    return Rewritten(node.name, f"into {layer.op} {layer.name!r}")


def _into_branches(net: Graph, node: Node, concat: Node) -> Outcome:
    """Fold into every layer before a Concat of channels, or into none."""
    parameters = _affine.batchnorm(net, node)
    if isinstance(parameters, str):
        return Refused(node.name, parameters)
    producers = [net.producer_of_type(tensor, *_affine.ABSORBERS) for tensor in concat.inputs]
    layers = [layer for layer in producers if layer is not None]
    rank = net.rank(node.outputs[0]) or 0
    if len(layers) < len(producers) or rank < 2 or concat.attrs["axis"] % rank != 1:
        return Refused(node.name, "it follows a Concat whose inputs are not all layers")
    if net.only_user(node.inputs[0]) is None:
        return Refused(node.name, f"the output of {concat.name!r} is also read elsewhere or is an output of the graph")
    why = next((text for text in (_affine.refusal(net, layer) for layer in layers) if text), "")
    if why:
        return Refused(node.name, why)
    sizes = [_affine.channels(net, layer) for layer in layers]
    if sum(sizes) != len(parameters[0]):
        return Refused(node.name, f"its parameters do not match the {sum(sizes)} channels before it")
    ends = np.cumsum(sizes)
    pieces = [[values[end - size : end] for values in parameters] for size, end in zip(sizes, ends, strict=True)]
    if not all(_affine.fits(net, layer, *piece) for layer, piece in zip(layers, pieces, strict=True)):
        return Refused(node.name, "the folded weights do not fit their type")
    for layer, piece in zip(layers, pieces, strict=True):
        _affine.fold_into_layer(net, layer, *piece)
    net.bypass(node, concat.outputs[0])
    return Rewritten(node.name, f"into {len(layers)} layers before Concat {concat.name!r}")


PASS = Pass(
    rewrite, ("BatchNormalization",), "BatchNormalization fused into the Conv, ConvTranspose, Gemm or MatMul before it"
)
