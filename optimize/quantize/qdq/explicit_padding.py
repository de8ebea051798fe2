"""Padding done before a quantiser, with the value that zero has there: convolutions themselves pad with zero.

Before    x ─Q(s, 0)─DQ─▶ Conv(pads p), Conv(no pads)
After     x ─Q(s, 0)─DQ─▶ Conv(no pads)
          └─▶ Pad(p, v) ─Q(s, 0)─DQ─▶ Conv(no pads)          the first pair is not there where all readers pad alike
When      v stands for zero in x: all of x was moved by v (`centre`).
Why       A convolution's own padding would now be -v.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from ...graph.proto_graph import ProtoGraph
from ..layer_queries import pads, readers_behind

PAD = "pad"


def to_explicit_pad(net: ProtoGraph, quantiser: NodeProto, value: float) -> None:
    """Let a Pad before a quantiser do the padding of the convolutions behind it, with a value of its own.

    Where readers pad differently, each padding gets a quantiser of its own.
    """
    readers, source = readers_behind(net, quantiser), quantiser.input[0]
    wanted = sorted({tuple(pads(node)) for node in readers})
    for number, sizes in enumerate(wanted):
        if sizes:
            alike = [node for node in readers if tuple(pads(node)) == sizes]
            own = quantiser if len(wanted) == 1 else _split(net, quantiser, alike, number)
            half, name = len(sizes) // 2, f"{quantiser.name}/{PAD}{number}"
            padding = np.array([0, 0, *sizes[:half], 0, 0, *sizes[half:]], np.int64)
            inputs = [
                source,
                net.add_array(f"{name}/sizes", padding),
                net.add_array(f"{name}/value", np.array(value, np.float32)),
            ]
            net.insert(own, helper.make_node("Pad", inputs, [net.fresh(f"{source}_padded")], name))
            for node in alike:
                _set_pads(node, [0] * len(sizes))


def _split(net: ProtoGraph, quantiser: NodeProto, readers: list[NodeProto], number: int) -> NodeProto:
    """Give some of a quantiser's readers a copy of it."""
    (pair,) = net.readers[quantiser.output[0]]
    value = net.fresh(pair.output[0])
    integers = net.fresh(quantiser.output[0])
    one = helper.make_node("QuantizeLinear", quantiser.input, [integers], f"{quantiser.name}/{number}")
    two = helper.make_node("DequantizeLinear", [integers, *pair.input[1:]], [value], f"{pair.name}/{number}")
    for node in readers:
        node.input[0] = value
    at = net.nodes.index(pair) + 1
    for node in (two, one):
        net.graph.node.insert(at, node)
    net.index()
    copy: NodeProto = net.producer[integers]
    return copy


def to_conv_pads(net: ProtoGraph, quantiser: NodeProto) -> None:
    """Give the padding back to the convolutions, and their quantisers' copies up."""
    source = quantiser.input[0]
    own = net.producer.get(source)
    if own is not None and own.name.startswith(f"{quantiser.name}/{PAD}"):
        _unpad(net, own, quantiser)
        net.remove(quantiser, own)
        return
    (pair,) = net.readers[quantiser.output[0]]
    for pad in [node for node in net.readers[source] if node.name.startswith(f"{quantiser.name}/{PAD}")]:
        (copy,) = net.readers[pad.output[0]]
        (other,) = net.readers[copy.output[0]]
        _unpad(net, pad, copy)
        for node in net.readers[other.output[0]]:
            node.input[0] = pair.output[0]
        for node in (pad, copy, other):
            net.graph.node.remove(node)
        net.index()


def _unpad(net: ProtoGraph, pad: NodeProto, quantiser: NodeProto) -> None:
    sizes = net.arrays[pad.input[1]].tolist()
    half = len(sizes) // 2
    for node in readers_behind(net, quantiser):
        _set_pads(node, [*sizes[2:half], *sizes[half + 2 :]])


def _set_pads(node: NodeProto, pads: list[int]) -> None:
    for item in node.attribute:
        if item.name == "pads":
            item.ints[:] = pads
