"""Replace SplitToSequence whose parts are read by SequenceAt by Split.

Before: s = SplitToSequence(x, 58, axis 1); SequenceAt(s, 0); SequenceAt(s, 1)      x (N, 116, H, W)
After:  Split(x, (58, 58), axis 1)
When:   the sizes are constant, the axis has a known size, and only SequenceAt at constant positions reads the sequence.
Why:    sequences prevent fusions, and many device parsers refuse them; the dynamo exporter writes `chunk` this way.
"""

from __future__ import annotations

from ..graph.graph import Graph
from ..graph.node import Node, is_a
from ._base import Outcome, Pass, Refused, Rewritten
from .slices_to_split import split


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Replace one SplitToSequence and its readers."""
    sizes = _sizes(net, node)
    if sizes is None:
        return Refused(node.name, "its parts are not constant")
    sequence, users = node.outputs[0], net.users(node.outputs[0])
    places = [net.scalar(user.inputs[1]) if is_a(user, "SequenceAt") else None for user in users]
    if sequence.name in net.protected_names or None in places:
        return Refused(node.name, "the sequence is not read only by SequenceAt at constant positions")
    indices = [int(place) for place in places if place is not None]
    if any(not -len(sizes) <= index < len(sizes) for index in indices):
        return Refused(node.name, "a position is outside the sequence")
    if len({index % len(sizes) for index in indices}) < len(indices):
        return Refused(node.name, "one part is read twice")
    outputs = [net.variable(node.inputs[0], f"{sequence.name}_{number}") for number in range(len(sizes))]
    for output in outputs:
        net.value_types.pop(output.name, None)
    for user, index in zip(users, indices, strict=True):
        outputs[index % len(sizes)] = user.outputs[0]
        net.drop(user)
    source, axis = node.inputs[0], int(node.attrs.get("axis", 0))
    net.drop(node)
    split(net, node, source, sizes, axis, outputs)
    return Rewritten(node.name, f"{len(sizes)} parts")


def _sizes(net: Graph, node: Node) -> list[int] | None:
    shape, tensor = net.shape(node.inputs[0]), net.input(node, 1)
    lengths = None if tensor is None else net.value(tensor)
    if not shape or lengths is None:
        return None
    size = shape[int(node.attrs.get("axis", 0))]
    if not isinstance(size, int):
        return None
    if lengths.ndim:
        sizes = [int(part) for part in lengths]
        return sizes if sum(sizes) == size and min(sizes, default=0) > 0 else None
    step = int(lengths)
    return [min(step, size - start) for start in range(0, size, step)] if step > 0 else None


PASS = Pass(rewrite, ("SplitToSequence",), "sequences of parts replaced by Split", lowest_opset=11)
