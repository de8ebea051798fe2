"""Replace ReduceMean over all spatial axes by GlobalAveragePool.

Before: ReduceMean(x, axes 2 3, keepdims 1)      x (N, C, H, W)
After:  GlobalAveragePool(x)
When:   the axes are exactly the spatial ones, two or three, and are kept; not float64, which ONNX Runtime cannot pool.
        With one spatial axis the mean is usually part of a LayerNormalization, which backends find by its ReduceMeans.
Why:    the same speed in float; in an INT8 graph ONNX Runtime has a quantised GlobalAveragePool and no quantised mean.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Rewritten

HALF_OR_SINGLE = (1, 10)


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Replace one ReduceMean."""
    if not is_global_mean(net, node) or not node.attrs.get("keepdims", 1):
        return None
    source, output = node.inputs[0], node.outputs[0]
    net.drop(node)
    net.add("GlobalAveragePool", [source], [output], node)
    return Rewritten(node.name, "over all spatial axes")


def is_global_mean(net: Graph, node: Node) -> bool:
    """Return whether a ReduceMean of floats covers exactly the spatial axes."""
    rank, axes = net.rank(node.inputs[0]), net.ints(node, "axes", 1)
    if rank not in (4, 5) or axes is None or net.dtype(node.inputs[0]) not in HALF_OR_SINGLE:
        return False
    return sorted(axis % rank for axis in axes) == list(range(2, rank))


PASS = Pass(rewrite, ("ReduceMean",), "a mean over all spatial axes replaced by GlobalAveragePool")
