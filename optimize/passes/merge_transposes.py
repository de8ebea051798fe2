"""Merge two consecutive Transposes into one, or remove both.

Before: Transpose(Transpose(x, p), q)
After:  Transpose(x, p[q]), or x if p[q] is the identity
When:   always; the first is kept if it has another consumer.
Why:    each Transpose copies the activation.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Merge one Transpose with the Transpose before it."""
    before = net.producer_of_type(node.inputs[0], "Transpose")
    if before is None:
        return None
    first, second = _order(net, before), _order(net, node)
    if first is None or second is None:
        return Refused(node.name, "the rank is not known")
    order = [first[axis] for axis in second]
    if order == list(range(len(order))):
        if net.bypass(node, before.inputs[0]):
            return Rewritten(node.name, f"reverses {before.name!r}")
        return Refused(node.name, "it connects two tensors whose names must both be preserved")
    if net.only_user(before.outputs[0]) is None:
        return None
    node.inputs[0] = before.inputs[0]
    node.attrs["perm"] = order
    return Rewritten(node.name, f"with {before.name!r}")


def _order(net: Graph, node: Node) -> list[int] | None:
    if "perm" in node.attrs:
        return list(node.attrs["perm"])
    rank = net.rank(node.inputs[0])
    return None if rank is None else list(range(rank))[::-1]


PASS = Pass(rewrite, ("Transpose",), "consecutive Transposes merged")
