"""Conversions between ONNX Runtime's layouts that change nothing.

Before: ReorderInput(ReorderOutput(x)), or ReorderOutput(x) of whole blocks of 1x1 maps
After:  x
When:   one pixel per channel lies in the same order in both layouts if the channels are whole blocks.
Why:    copies of what is there already; the padding of a block is read by nothing, so it need not be zeros.
"""

from __future__ import annotations

from typing import Any

from ..base import Outcome, Pass, Rewritten
from ..blocked_forms import is_blocked, reordered, shapes
from ..graph import Net
from .drop_dead import cascade
from .keep_blocked import is_input


def at(net: Net, node: Any) -> Outcome | None:
    """Take out one conversion."""
    known = shapes(net)
    if is_input(node):
        reorder = reordered(net, node.inputs[0], known)
        if reorder is not None and net.bypass(node, reorder.inputs[0]):
            cascade(net, reorder)
            return Rewritten(node.name, "it undid another one")
        return None
    if not is_blocked(node, "ReorderOutput"):
        return None
    output = node.outputs[0]
    _, channels, *sides = known.get(output.name, (0, 1))
    same = reordered(net, output, known) is not None and sides == [1, 1] and channels % net.block == 0
    return Rewritten(node.name, f"{channels} pixels") if same and net.bypass(node, node.inputs[0]) else None


PASS = Pass(at, ("ReorderInput", "ReorderOutput"), "conversions of layout that change nothing dropped", custom=True)
