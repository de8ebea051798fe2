"""What passes use of a node, a tensor and a graph: GraphSurgeon has these classes without types."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np


class GraphTensor(Protocol):
    """An edge of the graph: a variable, or a constant with its values.

    Attributes:
        name: Its name, or "" for an optional input or output that is left out.
        dtype: NumPy's type, or ONNX's number of one that NumPy lacks; None if unknown.
        shape: Sizes, names of free sizes; None if unknown.
        values: The array of a constant; a variable has none.
        inputs: The node that computes it; none for a graph input or a constant.
        outputs: The nodes that read it, one entry for each reading.
    """

    name: str
    dtype: Any
    shape: Any
    values: np.ndarray
    _values: Any  # the same, or where it lies in the file
    inputs: list[Node]
    outputs: list[Node]


class Node(Protocol):
    """An operator.

    Attributes:
        op: The operator's type, such as "Conv".
        name: Its name, which may be empty.
        domain: Its domain; None or "" for the standard one.
        attrs: Attributes by name.
        inputs: What it reads, in ONNX's order.
        outputs: What it computes, in ONNX's order.
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
    """Say whether a node is of one of these types of the standard domain, not somebody's own of the same name."""
    return node.op in ops and not node.domain
