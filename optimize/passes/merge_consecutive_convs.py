"""Merge a convolution with the 1x1 convolution before or after it.

Before: Conv3x3(Conv1x1(x, W, b), V, c)                    W (K, C, 1, 1), V (M, K, 3, 3)
After:  Conv3x3(x, U, V b + c)                             U[m, c] = sum over k of V[m, k] W[k, c]
        The same for Conv1x1(Conv3x3(x)).
When:   there are fewer multiply-adds than before; both have one group and constant weights, the 1x1 has stride 1 and
        no padding, nothing else reads the tensor between. A 1x1 with a bias before a convolution with padding stays:
        the padding is 0, not the bias.
Why:    one convolution and one activation less.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node
from . import _affine
from ._base import Outcome, Pass, Refused, Rewritten

Array = np.ndarray[Any, Any]


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Merge one Conv with the Conv before it."""
    first = net.producer_of_type(node.inputs[0], "Conv")
    if first is None:
        return None
    why = _affine.refusal(net, first) or (_refusal(net, node) if net.only_user(node.inputs[0]) else "")
    if why:
        return Refused(node.name, why)
    if int(first.attrs.get("group", 1)) != 1 or int(node.attrs.get("group", 1)) != 1:
        return Refused(node.name, "one of the two convolutions has groups")
    one, two = (net.array(layer.inputs[1]) for layer in (first, node))
    biases = [_affine.bias_of(net, layer) for layer in (first, node)]
    point_first = _is_pointwise(net, first)
    if not (point_first or _is_pointwise(net, node)):
        return Refused(node.name, "neither of the two convolutions is 1x1 with stride 1")
    if one.dtype != two.dtype:
        return Refused(node.name, "their weights have different types")
    if point_first and _pads(node) and biases[0].any():
        return Refused(node.name, f"{first.name!r} has a bias, and {node.name!r} pads with 0")
    if why := _costs_more(node, first, one.shape, two.shape):
        return Refused(node.name, why)
    weights, bias = (_affine.rounded(array, one.dtype) for array in _product(one, two, *biases))
    if weights is None or bias is None:
        return Refused(node.name, f"the merged weights do not fit {one.dtype}")
    name = node.inputs[1].name
    source, attrs = first.inputs[0], node.attrs if point_first else first.attrs
    node.attrs = dict(attrs)
    node.inputs = [source, net.constant(f"{name}_merged", weights), net.constant(f"{name}_bias", bias)]
    net.drop(first)
    return Rewritten(node.name, f"with {first.name!r}")


def _refusal(net: Graph, node: Node) -> str:
    """Return why the weights of the second convolution cannot be used, or an empty string."""
    if any(net.value(tensor) is None for tensor in node.inputs[1:] if tensor.name):
        return f"the weights of {node.name!r} are not constant"
    return "" if net.dtype(node.inputs[1]) in _affine.FLOATS else f"the weights of {node.name!r} are integers"


def _product(one: Array, two: Array, bias: Array, last: Array) -> tuple[Array, Array]:
    """Return weights and bias in float64 of two convolutions in turn, one of them 1x1."""
    first, second = one.astype(np.float64), two.astype(np.float64)
    shifted = np.tensordot(second.reshape(*second.shape[:2], -1).sum(axis=2), bias, 1) + last
    if prod(one.shape[2:]) == 1:
        product = np.tensordot(second, first.reshape(first.shape[:2]), ([1], [0]))  # (M, ..., C)
        return np.moveaxis(product, -1, 1), shifted
    return np.tensordot(second.reshape(second.shape[:2]), first, 1), shifted


def _is_pointwise(net: Graph, node: Node) -> bool:
    shape = net.static(node.inputs[1]) or ()
    return len(shape) > 2 and prod(shape[2:]) == 1 and prod(node.attrs.get("strides") or [1]) == 1 and not _pads(node)


def _pads(node: Node) -> bool:
    """Return whether a convolution may read beyond its input."""
    if node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    return any(node.attrs.get("pads") or [])


def _costs_more(node: Node, first: Node, one: tuple[int, ...], two: tuple[int, ...]) -> str:
    """Return why merging saves no multiply-adds, or an empty string; one and two are the shapes of the weights."""
    larger = prod(node.attrs.get("strides") or [1])  # pixels of the tensor between for each pixel of the output
    before = larger * prod(one) + prod(two)
    after = two[0] * one[1] * max(prod(one[2:]), prod(two[2:]))
    return (
        "" if after < before else f"with {first.name!r} it would have {after} instead of {before} weights to multiply"
    )


PASS = Pass(rewrite, ("Conv",), "a convolution merged with the 1x1 convolution before or after it")
