"""Merge convolutions of one input whose outputs are added into one convolution.

Before: Conv3x3(x) + Conv1x1(x) + BatchNormalization(x), in any order, through Add and Sum   (RepVGG, MobileOne)
After:  Conv3x3(x), with the smaller kernels added to its own where they read the same pixels. BatchNormalization is a
        1x1 convolution with one group per channel.
When:   the largest convolution reads every pixel and every channel that the other one reads (so there are never more
        multiply-adds), with equal strides; weights are constant; the outputs have no other consumer.
Why:    one convolution instead of two to ten, and no additions: these networks are trained so to be merged.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node, is_a
from . import _affine
from ._base import Outcome, Pass, Refused, Rewritten

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class _Branch:
    """A linear map of a tensor x as a convolution: weights (M, C / groups, ...) and bias (M,), both float64."""

    node: Node
    weights: Array
    bias: Array
    groups: int
    strides: list[int]
    dilations: list[int]
    pads: list[int]

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weights.shape[2:])


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Merge the convolutions that one sum adds."""
    parent = net.only_user(node.outputs[0])
    if parent is not None and is_a(parent, "Add", "Sum"):
        return None  # looked at from the end of the sum
    name, merged = node.name, list[str]()
    while not isinstance(pair := _merge_two(net, node), str):
        merged.append(f"{pair[1].op} {pair[1].name!r} into {pair[0].name!r}")
    if merged:
        return Rewritten(name, ", ".join(merged))
    return Refused(name, pair) if pair else None


def _merge_two(net: Graph, node: Node) -> tuple[Node, Node] | str:
    """Merge two convolutions of one input; return the result and the one that is gone, or why there are none."""
    terms = [(term, adder) for term, adder in _terms(net, node) if is_a(term, "Conv", "BatchNormalization")]
    why = ""
    for (one, adder), (other, other_adder) in combinations(terms, 2):
        if one.inputs[0] is not other.inputs[0]:
            continue
        first, second = _branch(net, one), _branch(net, other)
        if isinstance(first, str) or isinstance(second, str):
            why = why or (first if isinstance(first, str) else str(second))
            continue
        swapped = (second.weights.size, second.node.op == "Conv") > (first.weights.size, first.node.op == "Conv")
        large, small, gone = (second, first, adder) if swapped else (first, second, other_adder)
        reason = _merge(net, large, small, gone)
        if not reason:
            return large.node, small.node
        why = why or reason
    return why


def _terms(net: Graph, node: Node) -> list[tuple[Node, Node]]:
    """Return the producers of what a sum adds, each with the Add or Sum that reads it."""
    terms: list[tuple[Node, Node]] = []
    for tensor in node.inputs:
        producer = net.producer(tensor)
        if producer is None or net.only_user(tensor) is None:
            continue
        terms += _terms(net, producer) if is_a(producer, "Add", "Sum") else [(producer, node)]
    return terms


def _branch(net: Graph, node: Node) -> _Branch | str:
    """Return a Conv or BatchNormalization as a convolution, or why it is none."""
    if why := _affine.refusal(net, node):
        return why
    rank = net.rank(node.inputs[0] if node.op == "BatchNormalization" else node.inputs[1]) or 0
    axes = rank - 2
    if node.op == "BatchNormalization":
        affine = _affine.batchnorm(net, node)
        if isinstance(affine, str) or axes < 1:
            return affine if isinstance(affine, str) else "the rank of its input is not known"
        scale, shift = affine
        ones = [1] * axes
        return _Branch(node, scale.reshape(-1, 1, *ones), shift, len(scale), ones, ones, [0] * 2 * axes)
    pads = node.attrs.get("pads") or [0] * 2 * axes
    how = node.attrs.get("auto_pad", "NOTSET")
    if how not in ("NOTSET", "VALID"):
        return f"{node.name!r} pads by {how}"
    return _Branch(
        node, net.array(node.inputs[1]).astype(np.float64), _affine.bias_of(net, node),
        int(node.attrs.get("group", 1)), node.attrs.get("strides") or [1] * axes,
        node.attrs.get("dilations") or [1] * axes, [0] * 2 * axes if how == "VALID" else pads,
    )  # fmt: skip


def _merge(net: Graph, large: _Branch, small: _Branch, adder: Node) -> str:
    """Add the smaller convolution to the larger one and take it out of the sum; return why not, or ""."""
    embedded = _embedded(large, small)
    if isinstance(embedded, str):
        return embedded
    if large.node.op != "Conv":
        return "BatchNormalizations are added, and no convolution"
    dtype = net.array(large.node.inputs[1]).dtype
    if net.dtype(large.node.inputs[1]) != net.dtype(small.node.inputs[1]):
        return "their weights have different types"
    if not _same_size(net, large, small):
        return "their outputs may have different sizes"
    weights = _affine.rounded(large.weights + embedded, dtype)
    bias = _affine.rounded(large.bias + small.bias, dtype)
    if weights is None or bias is None:
        return f"the merged weights do not fit {dtype}"
    tensor = small.node.outputs[0]
    rest = [item for item in adder.inputs if item is not tensor]
    if len(rest) == 1 and not net.can_bypass(adder, rest[0]):
        return f"{adder.name!r} is an output of the graph"
    name = large.node.inputs[1].name
    constants: list[GraphTensor] = [net.constant(f"{name}_merged", weights), net.constant(f"{name}_bias", bias)]
    large.node.inputs = [large.node.inputs[0], *constants]
    if len(rest) == 1:
        net.bypass(adder, rest[0])
    else:
        adder.inputs = rest
    net.drop(small.node)
    return ""


def _embedded(large: _Branch, small: _Branch) -> Array | str:
    """Return the weights of the smaller convolution in the shape of the larger one's, or why they do not fit."""
    outputs, width = large.weights.shape[:2]
    if len(small.bias.reshape(-1)) != outputs or small.groups * small.weights.shape[1] != large.groups * width:
        return "they have different numbers of channels"
    if list(large.strides) != list(small.strides):
        return "their strides differ"
    if small.groups % large.groups:
        return "each of them reads channels that the other one does not read"
    place: list[slice] = []
    for axis, (size, own) in enumerate(zip(large.kernel, small.kernel, strict=True)):
        step = large.dilations[axis]
        begin, odd = divmod(large.pads[axis] - small.pads[axis], step)
        if odd or begin < 0 or begin + own > size or (own > 1 and small.dilations[axis] != step):
            return "neither of them reads all pixels that the other one reads"
        place.append(slice(begin, begin + own))
    weights = np.zeros(large.weights.shape)
    narrow = small.weights.shape[1]
    for group in range(small.groups):  # its output channels read `narrow` of the larger group's `width` channels
        rows = slice(group * outputs // small.groups, (group + 1) * outputs // small.groups)
        start = group * narrow % width
        weights[(rows, slice(start, start + narrow), *place)] = small.weights[rows]
    return weights


def _same_size(net: Graph, large: _Branch, small: _Branch) -> bool:
    """Return whether both outputs certainly have one size, for every size of the input."""
    if net.same_shape(large.node.outputs[0], small.node.outputs[0]):
        return True
    axes = len(large.kernel)
    missing = [
        [one.pads[axis] + one.pads[axis + axes] - one.dilations[axis] * (one.kernel[axis] - 1) for axis in range(axes)]
        for one in (large, small)
    ]
    return missing[0] == missing[1]


PASS = Pass(rewrite, ("Add", "Sum"), "convolutions of one input that are added merged into one convolution", 8)
