"""Eliminate dead nodes: nodes whose outputs are not used.

Before: y = f(x), and neither a node, nor a body of If, Loop or Scan, nor an output of the graph reads y
After:  nothing
When:   always; weights without a consumer are removed too.
Why:    ONNX Runtime removes them at load, other tools run them.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Remove a dead node, then the nodes before it that become dead."""
    if not _dead(net, node):
        return None
    dropped = cascade(net, node)
    return Rewritten(node.name, f"{dropped} nodes" if dropped > 1 else "")


def cascade(net: Graph, node: Node) -> int:
    """Remove a node if it is dead, then the nodes before it that become dead; return their number."""
    pending, dropped = [node], 0
    while pending:
        last = pending.pop()
        if id(last) in net.dead or not _dead(net, last):
            continue
        makers = [tensor.inputs[0] for tensor in net.reads(last) if tensor.inputs]
        net.drop(last)
        dropped += 1
        pending += makers
    return dropped


def _dead(net: Graph, node: Node) -> bool:
    return not any(tensor.outputs or tensor.name in net.protected_names for tensor in node.outputs if tensor.name)


PASS = Pass(rewrite, (), "unused nodes and weights removed", lowest_opset=1, custom=True)
