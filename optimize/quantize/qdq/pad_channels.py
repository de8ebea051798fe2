"""Pad channels to the numbers that ONNX Runtime's INT8 kernels on x86 are quick at, with channels of zeros.

Its quick convolutions (MLAS: `MlasConvSym`, `MlasConvSymDepthwise`) take input and output channels in fours, depthwise
ones channels in sixteens; everything else goes through slower ones, three times for a depthwise one. So ShuffleNet's 58
channels are slower than 64, and 3 colours take twice the time of 4 channels (docs/quantisation.md has the figures).

A channel of zeros is made by weights and bias of zero, stays zero through ReLU, pooling, addition and quantisation, and
is read with weights of zero: every result stays the same number. Channels that another operator sees stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto, helper

from ...graph.proto_graph import ProtoGraph, attributes, set_attributes, sort_nodes
from ...graph.union_find import join, root
from ..layer_queries import readers_behind, reads_rgb_input

DENSE, DEPTHWISE = 4, 16
# Padding must not cost more than it brings: at most a third more channels.
MOST = 4 / 3
# What leaves a channel of zeros one of zeros, and all of its inputs with equally many channels.
KEEPING = {"QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "MaxPool", "AveragePool", "Add"}


@dataclass
class _Group:
    """Tensors with the same channels: who writes and reads them, or why they must stay."""

    counts: set[int] = field(default_factory=set)
    writers: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)
    depthwise: list[NodeProto] = field(default_factory=list)
    fixed: bool = False


def pad_channels(net: ProtoGraph) -> dict[str, int]:
    """Pad what can be padded in a graph with Q/DQ and INT8 weights; it is changed in place and sorted.

    Returns:
        Name of each convolution that writes more channels now -> how many; the graph's input too, if it was padded.
    """
    widths = {}
    for group in _groups(net):
        (count,) = group.counts if len(group.counts) == 1 else (0,)
        wanted = _wanted(count, bool(group.depthwise))
        if group.fixed or not group.writers or not count < wanted <= MOST * count:
            continue
        more = wanted - count
        for node in group.writers + group.depthwise:
            _grow(net, node, more, axis=0)
            widths[node.name] = wanted
        for node in group.depthwise:
            set_attributes(node, group=wanted)
        for node in group.readers:
            _grow(net, node, more, axis=1)
    widths |= _pad_colours(net)
    if widths:
        del net.graph.value_info[:]
        sort_nodes(net.graph)
        net.index()
        net.prune()
    return widths


def _wanted(count: int, depthwise: bool) -> int:
    step = DEPTHWISE if depthwise else DENSE
    return -(-count // step) * step


def _groups(net: ProtoGraph) -> list[_Group]:
    """Partition the tensors by whose channels are the same, and say who touches each group."""
    parents: dict[str, str] = {}
    kinds = {id(node): _kind(net, node) for node in net.nodes}
    for node in net.nodes:
        if kinds[id(node)] in ("keeping", "depthwise"):
            for name in _moving(net, node):
                join(parents, node.output[0], name)
    groups: dict[str, _Group] = {}

    def of(name: str) -> _Group:
        return groups.setdefault(root(parents, name), _Group())

    for node in net.nodes:
        kind = kinds[id(node)]
        if kind in ("dense", "depthwise"):
            shape = _shape(net, node)
            of(node.output[0]).counts.add(shape[0])
            if kind == "depthwise":
                of(node.output[0]).depthwise.append(node)
            else:
                of(node.output[0]).writers.append(node)
                of(node.input[0]).readers.append(node)
                of(node.input[0]).counts.add(shape[1])
        elif kind == "other":
            for name in (*_moving(net, node), *node.output):
                of(name).fixed = True
    for name in (*net.inputs, *net.outputs):
        of(name).fixed = True
    return list(groups.values())


def _kind(net: ProtoGraph, node: NodeProto) -> str:
    """Return "dense" or "depthwise" for a convolution with INT8 weights, "keeping", "constant" or "other"."""
    moving = _moving(net, node)
    if not moving and node.op_type == "DequantizeLinear":
        return "constant"
    shape = _shape(net, node) if node.op_type == "Conv" and moving == [node.input[0]] else ()
    if shape:
        groups = attributes(node).get("group", 1)
        if groups == 1:
            return "dense"
        return "depthwise" if shape[1] == 1 and groups == shape[0] else "other"
    scalar = all(net.arrays[name].size == 1 for name in node.input if name in net.arrays)
    zero = node.op_type != "Clip" or _holds_zero(net, node)
    whole = len(node.output) == 1 and scalar and zero
    alone = node.op_type != "Add" or len(moving) == 2
    return "keeping" if node.op_type in KEEPING and whole and alone else "other"


def _moving(net: ProtoGraph, node: NodeProto) -> list[str]:
    """Return the inputs of a node that are neither constants nor dequantised ones."""
    names = []
    for name in node.input:
        producer = net.producer.get(name)
        constant = name in net.arrays or (
            producer is not None and producer.op_type == "DequantizeLinear" and producer.input[0] in net.arrays
        )
        if name and not constant:
            names.append(name)
    return names


def _holds_zero(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a Clip has constant bounds and lets zero through."""
    for index, name in enumerate(node.input[1:]):
        bound = net.arrays.get(name, np.array(np.nan)) if name else np.array(0.0)
        if not (bound <= 0 if index == 0 else bound >= 0):
            return False
    return True


def _shape(net: ProtoGraph, node: NodeProto) -> tuple[int, ...]:
    """Return the shape of a convolution's INT8 weights; () where they are float."""
    producer = net.producer.get(node.input[1])
    weights = (
        net.arrays.get(producer.input[0]) if producer is not None and producer.op_type == "DequantizeLinear" else None
    )
    return weights.shape if weights is not None and weights.dtype == np.int8 else ()


def _grow(net: ProtoGraph, node: NodeProto, more: int, axis: int) -> None:
    """Append channels of zeros to a convolution's weights; on axis 0 to scales, zero points and bias too."""
    weight = net.producer[node.input[1]]
    _append(net, weight, 0, more, axis)
    if axis:
        return
    _append_scales(net, weight, more)
    if len(node.input) < 3 or not node.input[2]:
        return
    bias = net.producer.get(node.input[2])
    if bias is None:
        node.input[2] = net.add_array(f"{node.input[2]}_wide", _padded(net.arrays[node.input[2]], more, 0))
        return
    _append(net, bias, 0, more, 0)
    _append_scales(net, bias, more)


def _append_scales(net: ProtoGraph, node: NodeProto, more: int) -> None:
    """Give the new channels of a DequantizeLinear the scale and the zero point of the last one."""
    for index in range(1, len(node.input)):
        if net.arrays[node.input[index]].ndim:
            _append(net, node, index, more, 0, mode="edge")


def _append(net: ProtoGraph, node: NodeProto, index: int, more: int, axis: int, mode: str = "constant") -> None:
    name = node.input[index]
    wide = _padded(net.arrays[name], more, axis, mode)
    if len(net.readers[name]) == 1:
        net.set_array(name, wide)
    else:
        node.input[index] = net.add_array(f"{name}_wide", wide)


def _padded(array: np.ndarray, more: int, axis: int, mode: str = "constant") -> np.ndarray:
    widths = [(0, more if at == axis else 0) for at in range(array.ndim)]
    return np.pad(array, widths, mode=mode)  # type: ignore[call-overload,no-any-return]


def _pad_colours(net: ProtoGraph) -> dict[str, int]:
    """Pad an input of three channels to four, between Q and DQ, where one dense convolution reads it."""
    widths = {}
    for node in [item for item in net.nodes if item.op_type == "QuantizeLinear" and item.input[0] in net.inputs]:
        readers = readers_behind(net, node)
        if len(readers) != 1 or _kind(net, readers[0]) != "dense" or not reads_rgb_input(net, readers[0]):
            continue
        (pair,) = net.readers[node.output[0]]
        pads = net.add_array(f"{node.input[0]}_pads", np.array([0] * 5 + [1, 0, 0], np.int64))
        integers = net.fresh(f"{node.output[0]}_wide")
        pad = helper.make_node("Pad", [node.output[0], pads, node.input[2]], [integers], f"{node.input[0]}/Pad")
        net.graph.node.append(pad)
        pair.input[0] = integers
        _grow(net, readers[0], 1, axis=1)
        widths[node.input[0]] = DENSE
    return widths
