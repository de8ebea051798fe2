"""Eliminate common subexpressions, and merge equal constants.

Before: y = f(x; attributes), z = f(x; attributes)
After:  y = f(x; attributes), and all consumers of z read y
When:   same operator, inputs and attributes; not for random operators, operators with bodies, and other domains.
Why:    exporters repeat shape arithmetic and casts at every layer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node, is_a
from ..graph.protobuf import is_plain
from ._base import Outcome, Pass, RewriteFilter, Rewritten

RANDOM = {f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")}
RANDOM |= {"Multinomial", "Bernoulli", "Dropout"}
Table = dict[tuple[object, ...], Node]


class MergeDuplicates(Pass):
    """The pass; it traverses the graph once with a table of the nodes so far."""

    def call(self, net: Graph, name: str, permit: RewriteFilter) -> list[Outcome]:
        """Merge equal constants, then equal nodes."""
        net.sort()
        _merge_constants(net)
        seen: Table = {}
        merge = Pass(lambda graph, node: _merge(graph, node, seen), self.ops, self.summary, self.lowest_opset)
        return merge.call(net, name, permit)


def _merge_constants(net: Graph) -> None:
    """Merge equal constants; large ones are read only if another has the same type, shape and ends."""
    readers: dict[str, list[tuple[Node, int]]] = {}
    constants: dict[str, GraphTensor] = {}
    for node in net.everything():
        for index, tensor in enumerate(node.inputs):
            if isinstance(tensor, gs.Constant) and tensor.name not in net.protected_names:
                readers.setdefault(tensor.name, []).append((node, index))
                constants[tensor.name] = tensor
    kinds = Counter(net.known(tensor) for tensor in constants.values())
    seen: dict[object, list[GraphTensor]] = {}
    for name, tensor in constants.items():
        if kinds[net.known(tensor)] == 1 or _is_elsewhere(tensor):
            continue
        alike = seen.setdefault((net.known(tensor), _ends(net, tensor)), [])
        first = next((item for item in alike if _equal(net, item, tensor)), None)
        if first is None:
            alike.append(tensor)
            continue
        for node, index in readers[name]:
            node.inputs[index] = first


def _is_elsewhere(tensor: GraphTensor) -> bool:
    proto = getattr(tensor._values, "tensor", None)
    return proto is not None and bool(proto.data_location)


def _ends(net: Graph, tensor: GraphTensor) -> bytes:
    """Return the first and last elements of a constant; cached, because constants never change."""
    if tensor.name not in net.exact_outputs:
        array = net.array(tensor)
        net.exact_outputs[tensor.name] = (
            b"" if array.dtype == object else array.flat[:64].tobytes() + array.flat[-64:].tobytes()
        )
    return net.exact_outputs[tensor.name]


def _equal(net: Graph, one: GraphTensor, other: GraphTensor) -> bool:
    """Return whether two constants of one type and shape have the same bytes: NaN equals itself, -0 is not 0."""
    first, second = net.array(one), net.array(other)
    if first.dtype == object or not first.size:
        return bool(first.dtype != object)
    if not any((*first.strides, *second.strides)):  # each is a view of one element, and the ends are equal
        return True
    one_bytes, other_bytes = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (first, second))
    return bool(np.array_equal(one_bytes, other_bytes))


def _merge(net: Graph, node: Node, seen: Table) -> Outcome | None:
    if node.op in RANDOM or not mergeable(net, node):
        return None
    if any(is_a(user, "BatchNormalization") for tensor in node.outputs for user in net.users(tensor)):
        return None  # each folds its own first
    key = (node.op, tuple(t.name for t in node.inputs), _attributes(node), tuple(bool(t.name) for t in node.outputs))
    first = seen.setdefault(key, node)
    if first is node or id(first) in net.dead:
        seen[key] = node
        return None
    if any(tensor.name in net.protected_names for tensor in node.outputs):
        return None
    for old, new in zip(node.outputs, first.outputs, strict=True):
        if old.name:
            net.substitute(old, new)
    net.drop(node)
    return Rewritten(node.name, f"the same as {first.name!r}")


def mergeable(net: Graph, node: Node) -> bool:
    """Return whether all attributes of a node are known, so that equal nodes can be recognised."""
    read = net.origin.get(id(node))
    return read is None or all(is_plain(attribute) for attribute in read.attribute)


def _attributes(node: Node) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, _plain(value)) for key, value in node.attrs.items()))


def _plain(value: Any) -> str:
    if isinstance(value, gs.Constant):
        array = value.values
        return f"{array.dtype}{array.shape}{array.tobytes().hex()}"
    return repr(value.tobytes() if isinstance(value, np.ndarray) else value)


PASS = MergeDuplicates(lambda net, node: None, (), "nodes that compute the same value merged", lowest_opset=1)
