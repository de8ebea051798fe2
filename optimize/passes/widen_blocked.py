"""A blocked Conv that reads less than a block of channels in plain order, reading them blocked.

Before: Conv(ReorderOutput(x))      of the blocked domain, less than b channels of x: then it takes the plain order
After:  Conv(x)                     with filters of zeros for the channels that fill the block up
When:   one group, constant filters.
Why:    one conversion less; squeeze-excite of small networks squeezes to 4 or 8 channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..base import Outcome, Pass, Rewritten
from ..blocked_forms import reordered, shapes
from ..graph import Net
from .drop_dead import cascade
from .keep_blocked import is_narrow


def at(net: Net, node: Any) -> Outcome | None:
    """Let one Conv read the blocked tensor.

    Filters lie as (O/b, I, H, W, b) for an input in plain order, as (O/b, I/b, H, W, b in, b out) for a blocked one.
    """
    known = shapes(net)
    if not is_narrow(net, node, known):
        return None
    reorder = reordered(net, node.inputs[0], known)
    if reorder is None:
        return None
    weights, block = net.array(node.inputs[1]), net.block
    outputs, channels, height, width = weights.shape
    filled = np.zeros((outputs // block, block, height, width, block), weights.dtype)
    filled[:, :channels] = weights.reshape(outputs // block, channels, height, width, block)
    laid = filled.transpose(0, 2, 3, 1, 4).reshape(outputs, block, height, width)
    node.inputs[1] = net.constant(f"{node.inputs[1].name}_wide", laid)
    node.inputs[0] = reorder.inputs[0]
    cascade(net, reorder)
    return Rewritten(node.name, f"{channels} channels")


PASS = Pass(at, ("Conv",), "a blocked Conv of less than a block of channels reads them blocked", custom=True)
