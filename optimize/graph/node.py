"""Typed protocols of GraphSurgeon's node, tensor and graph, which have no type annotations."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class GraphTensor(Protocol):
    """An edge of the graph: a variable, or a constant with its values.

    Attributes:
        name: Its name, or "" for an omitted optional input or output.
        dtype: NumPy's type, or ONNX's number of a type that NumPy does not have; None if unknown.
        shape: Sizes, names of dynamic axes; None if unknown.
        values: The array of a constant; variables do not have it.
        inputs: The node that computes it; none for a graph input or a constant.
        outputs: The nodes that read it, one entry per use.
    """

    name: str
    dtype: Any
    shape: Any
    values: np.ndarray
    _values: Any  # the same, or its position in the file
    inputs: list[Node]
    outputs: list[Node]


class Node(Protocol):
    """An operator.

    Attributes:
        op: The operator's type, such as "Conv".
        name: Its name, which may be empty.
        domain: Its domain; None or "" for the standard one.
        attrs: Attributes by name.
        inputs: Its input tensors, in ONNX's order.
        outputs: Its output tensors, in ONNX's order.
    """

    op: str
    name: str
    domain: str | None
    attrs: dict[str, Any]
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]


class NodeGraph(Protocol):
    """GraphSurgeon's graph.

    Attributes:
        nodes: Its nodes.
        inputs: Its inputs.
        outputs: Its outputs.
    """

    nodes: list[Node]
    inputs: list[GraphTensor]
    outputs: list[GraphTensor]


def is_a(node: Node, *ops: str) -> bool:
    """Return whether a node has one of these types in the standard domain; other domains may reuse the names."""
    return node.op in ops and not node.domain
