"""Replace a Conv whose output is split by one Conv per part.

Before: Split(Relu(Conv(x, W, b)), (32, 16, 16), axis 1)
After:  Relu(Conv(x, W[0:32], b[0:32])), Relu(Conv(x, W[32:48], b[32:48])), Relu(Conv(x, W[48:64], b[48:64]))
When:   the parts are multiples of the target's channel block, the Conv reads all channels, its weights are constant
        and the tensors between have no other consumer. Only for ort-x86, because it has more nodes.
Why:    ONNX Runtime has no Split in its blocked layout: each Split costs two layout conversions.
"""

from __future__ import annotations

import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node, is_a
from ._base import Outcome, Pass, Refused, Rewritten


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Split one Conv."""
    conv, between = net.producer(node.inputs[0]), list[Node]()
    if conv is not None and is_a(conv, "Relu", "Clip"):
        between, conv = [conv], net.producer(conv.inputs[0])
    sizes = net.ints(node, "split", 1)
    if conv is None or not is_a(conv, "Conv") or int(conv.attrs.get("group", 1)) != 1:
        return None
    if sizes is None or node.attrs.get("axis", 0) != 1 or net.block == 1:
        return None
    if any(size % net.block for size in sizes):
        return Refused(node.name, f"its parts {sizes} are not multiples of {net.block}")
    if any(net.value(tensor) is None for tensor in conv.inputs[1:]):
        return Refused(node.name, f"the weights of {conv.name!r} are not constant")
    if any(net.only_user(item.outputs[0]) is None for item in (conv, *between)):
        return Refused(node.name, f"the output of {conv.name!r} is also read elsewhere")
    _split(net, node, conv, between, sizes)
    return Rewritten(node.name, f"{conv.name!r} into {len(sizes)} Convs")


def _split(net: Graph, node: Node, conv: Node, between: list[Node], sizes: list[int]) -> None:
    outputs, source = list(node.outputs), conv.inputs[0]
    weights = [(tensor.name, net.array(tensor)) for tensor in conv.inputs[1:]]
    node.outputs.clear()
    for output, end, size in zip(outputs, np.cumsum(sizes), sizes, strict=True):
        parts = [net.constant(f"{name}_part", array[end - size : end]) for name, array in weights]
        part_output = output if not between else net.variable(output, f"{output.name}_layer")
        net.add("Conv", [source, *parts], [part_output], conv, dict(conv.attrs))
        for item in between:
            net.add(item.op, [part_output, *item.inputs[1:]], [output], item, dict(item.attrs))
    for item in (node, *between, conv):
        net.drop(item)


PASS = Pass(rewrite, ("Split",), "a Conv whose output is split replaced by one Conv per part")
