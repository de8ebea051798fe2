"""Remove Dropout in inference mode.

Before: y, mask = Dropout(x, ratio, training_mode)
After:  x
When:   training_mode is absent or a constant false, and the mask is not used.
Why:    Dropout copies the activation.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome:
    """Drop one Dropout."""
    training = net.input(node, 2)
    if training is not None and net.scalar(training) != 0:
        return Refused(node.name, "training_mode is not a constant false")
    if any(tensor.outputs or tensor.name in net.protected_names for tensor in node.outputs[1:]):
        return Refused(node.name, "its mask is read")
    if not net.bypass(node, node.inputs[0]):
        return Refused(node.name, "it connects two tensors whose names must both be preserved")
    return Rewritten(node.name, "inference form")


PASS = Pass(rewrite, ("Dropout",), "Dropout in inference mode removed")
