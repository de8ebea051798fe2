"""Replace Slices that divide a tensor into consecutive parts by one Split.

Before: Slice(x, 0, 58, axis 1), Slice(x, 58, 116, axis 1)       x (N, 116, H, W)
After:  Split(x, (58, 58), axis 1)
When:   the parts are consecutive along one axis of known size, with step 1, and complete.
Why:    one node instead of several; other passes recognise Split. TorchScript writes `chunk` as Slices.
"""

from __future__ import annotations

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node, is_a
from ._base import Outcome, Pass, Rewritten

Part = tuple[int, int, int]


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Replace one Slice and the other Slices of the same tensor."""
    own = part(net, node)
    if own is None:
        return None
    source, axis = node.inputs[0], own[0]
    slices = {other: user for user in net.users(source) if is_a(user, "Slice") and (other := part(net, user))}
    chain, end, size = [], 0, (net.shape(source) or ())[axis]
    while (following := next((item for item in slices if item[:2] == (axis, end)), None)) is not None:
        chain.append(following)
        end = following[2]
    if own not in chain or end != size or len(chain) < 2:
        return None
    _split(net, node, [slices[item] for item in chain], chain)
    return Rewritten(node.name, f"{len(chain)} Slices of {source.name!r}")


def _split(net: Graph, node: Node, slices: list[Node], chain: list[Part]) -> None:
    source, sizes = node.inputs[0], [end - start for _, start, end in chain]
    outputs = [item.outputs[0] for item in slices]
    for item in slices:
        net.drop(item)
    split(net, node, source, sizes, chain[0][0], outputs)


def split(net: Graph, near: Node, source: GraphTensor, sizes: list[int], axis: int, outputs: list[GraphTensor]) -> Node:
    """Insert a Split in the form of the graph's opset."""
    if net.opset < 13:
        return net.add("Split", [source], outputs, near, {"axis": axis, "split": sizes})
    constant = net.constant(f"{near.name}_sizes", np.array(sizes, np.int64))
    return net.add("Split", [source, constant], outputs, near, {"axis": axis})


def part(net: Graph, node: Node) -> Part | None:
    """Return axis, start and end of a Slice along one axis of known size with step 1; else None."""
    shape = net.shape(node.inputs[0])
    starts, ends = net.ints(node, "starts", 1), net.ints(node, "ends", 2)
    has_axes = net.input(node, 3) is not None or "axes" in node.attrs
    axes, steps = net.ints(node, "axes", 3) if has_axes else [0], net.ints(node, "steps", 4)
    if not shape or not starts or not ends or not axes or not len(starts) == len(ends) == len(axes) == 1:
        return None
    if net.input(node, 4) is not None and steps != [1]:
        return None
    axis = axes[0] % len(shape)
    size = shape[axis]
    if not isinstance(size, int):
        return None
    start, end, _ = slice(starts[0], ends[0]).indices(size)
    return (axis, start, end) if start < end else None


PASS = Pass(rewrite, ("Slice",), "Slices that divide a tensor into consecutive parts replaced by one Split")
