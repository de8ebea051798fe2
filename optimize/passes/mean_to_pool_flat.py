"""Replace ReduceMean that removes all spatial axes by GlobalAveragePool and Flatten.

Before: ReduceMean(x, axes 2 3, keepdims 0)      x (N, C, H, W)
After:  Flatten(GlobalAveragePool(x), axis 1)
When:   the axes are exactly the spatial ones. Only for targets with a quantised pool, because it is one node more.
Why:    in an INT8 graph ONNX Runtime computes ReduceMean in float, with a conversion before and after it.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Rewritten
from .mean_to_pool import is_global_mean


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Replace one ReduceMean."""
    if not is_global_mean(net, node) or node.attrs.get("keepdims", 1):
        return None
    source, output = node.inputs[0], node.outputs[0]
    shape = net.shape(source) or ()
    pooled = net.variable(source, f"{output.name}_pooled")
    net.value_types[pooled.name] = (net.dtype(source), (*shape[:2], *[1] * (len(shape) - 2)))
    net.drop(node)
    net.add("Flatten", [pooled], [output], node, {"axis": 1})
    net.add("GlobalAveragePool", [source], [pooled], node)
    return Rewritten(node.name, "over all spatial axes")


PASS = Pass(rewrite, ("ReduceMean",), "a mean that removes all spatial axes replaced by GlobalAveragePool and Flatten")
