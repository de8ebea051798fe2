"""Questions that several steps ask of a layer: its padding, who reads behind a quantiser, does it read RGB images."""

from __future__ import annotations

from onnx import NodeProto

from ..graph.proto_graph import ProtoGraph, attributes


def pads(node: NodeProto) -> list[int]:
    """Return a convolution's padding, [] for none and for other operators."""
    sizes = [int(pad) for pad in attributes(node).get("pads", [])]
    return sizes if any(sizes) else []


def pads_by_list(node: NodeProto) -> bool:
    """Say whether a convolution's padding stands in `pads`, not in words whose meaning depends on the image's size."""
    return attributes(node).get("auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"}


def readers_behind(net: ProtoGraph, quantiser: NodeProto) -> list[NodeProto]:
    """Return who reads the dequantised value."""
    return [node for pair in net.readers[quantiser.output[0]] for node in net.readers[pair.output[0]]]


def is_plain(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a Conv or Gemm has constant weights, output channels first, and nothing besides."""
    values = attributes(node)
    if node.op_type == "Gemm" and (not values.get("transB") or values.get("transA") or values.get("alpha", 1) != 1):
        return False
    constant = all(name in net.arrays for name in node.input[1:] if name)
    return constant and node.input[0] not in net.arrays and values.get("beta", 1) == 1


def reads_rgb_input(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a quantised 2-D convolution alone reads an input of three channels, before Q/DQ stand or after."""
    name = node.input[0]
    while name not in net.inputs:
        producer = net.producer.get(name)
        if producer is None or producer.op_type not in ("QuantizeLinear", "DequantizeLinear", "Pad"):
            return False
        name = producer.input[0]
        if len(net.readers[name]) != 1:
            return False
    weight = net.producer.get(node.input[1])
    shape = net.arrays[node.input[1] if weight is None else weight.input[0]].shape
    alone = len(net.readers[node.input[0]]) == 1 and name not in net.outputs
    flat = node.op_type == "Conv" and len(shape) == 4 and attributes(node).get("group", 1) == 1
    return flat and alone and shape[1] == 3
