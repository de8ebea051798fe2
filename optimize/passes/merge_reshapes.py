"""Merge consecutive Reshape, Flatten, Squeeze and Unsqueeze into one Reshape.

Before: Reshape(Flatten(x), (2, -1, 7)), Unsqueeze(Squeeze(x, 2), 3), ...
After:  Reshape(x, (2, -1, 7))
When:   at most one axis of the result is dynamic; if it is the first and equals x's first axis it is written as 0,
        else as -1. The first node is kept if it has another consumer.
Why:    the tensors between are not needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node
from ._base import Outcome, Pass, Rewritten

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Connect one view to the input of the view before it."""
    before = net.producer_of_type(node.inputs[0], *VIEWS)
    if before is None:
        return None
    source = before.inputs[0]
    wanted = target(net, source, node.outputs[0])
    if wanted is None or net.only_user(before.outputs[0]) is None:
        return None
    output = node.outputs[0]
    net.drop(node)
    reshape = net.add("Reshape", [source, net.constant(f"{node.name}_shape", wanted)], [output], node)
    return Rewritten(node.name, f"{reshape.op} with {before.op} {before.name!r}")


def target(net: Graph, source: GraphTensor, result: GraphTensor) -> np.ndarray[Any, Any] | None:
    """Return the shape input of a Reshape from one tensor's shape to another's; None if it is not certain."""
    old, new = net.shape(source), net.shape(result)
    if new is None or 0 in new:
        return None
    free = [axis for axis, dim in enumerate(new) if not isinstance(dim, int)]
    sizes = [dim if isinstance(dim, int) else -1 for dim in new]
    if len(free) > 1 or (free and old is not None and 0 in old):
        return None
    if free == [0] and old and new[0] is not None and old[0] == new[0]:
        sizes[0] = 0
    return np.array(sizes, np.int64)


PASS = Pass(rewrite, VIEWS, "consecutive views merged into one Reshape")
