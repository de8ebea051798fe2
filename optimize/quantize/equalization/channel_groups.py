"""Which tensors of a graph have channels that can only be scaled together, and who writes and reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from ...graph.proto_graph import ProtoGraph, attributes
from ...graph.protobuf import captured
from ...graph.union_find import join, root
from ..layer_queries import is_plain
from ..placement import foldable

SAME = frozenset({"Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Dropout", "Add"})


@dataclass
class ChannelGroup:
    """Tensors whose channels are scaled together, the layers that write and read them, and what forbids it.

    `channels`: tensor -> which of the space's factors each of its channels takes, (C,): through Concat and Split a
    channel keeps its factor, in an addition both sides have the same.
    """

    tensors: set[str] = field(default_factory=set)
    channels: dict[str, np.ndarray] = field(default_factory=dict)
    writers: list[NodeProto] = field(default_factory=list)
    readers: list[NodeProto] = field(default_factory=list)
    between: set[str] = field(default_factory=set)
    limit: float = np.inf
    frozen: str = ""


def channel_groups(net: ProtoGraph) -> list[ChannelGroup]:
    """Partition the activations of a graph into spaces (union-find over the operators that keep channels)."""
    parents: dict[str, str] = {}
    for node in net.nodes:
        if _keeps_channels(net, node):
            names = [name for name in node.input if name and name not in net.arrays]
            for name in (*names, *node.output[1:]):
                join(parents, node.output[0], name)
    groups: dict[str, ChannelGroup] = {}
    for node in net.nodes:
        _enter(net, node, lambda name: groups.setdefault(root(parents, name), ChannelGroup()))
    for name in (*net.inputs, *net.outputs):
        groups.setdefault(root(parents, name), ChannelGroup()).frozen = "an input or output of the graph"
    _number(net, groups.values())
    return list(groups.values())


def _number(net: ProtoGraph, groups: Iterable[ChannelGroup]) -> None:
    """Find out which channels are one and the same, and number them within each group."""
    numbers: dict[str, np.ndarray] = {}
    parents: dict[int, int] = {}
    count = 0
    for node in net.nodes:
        reads = [name for name in node.input if name and name not in net.arrays]
        parts = [numbers[name] for name in reads if name in numbers]
        if node.op_type in {"Conv", "Gemm"} and is_plain(net, node):
            numbers[node.output[0]] = np.arange(count, count + len(net.arrays[node.input[1]]))
            count += len(numbers[node.output[0]])
        elif not parts or len(parts) < len(reads) or not _keeps_channels(net, node):
            continue
        elif node.op_type == "Split":
            ends = np.cumsum(_split_sizes(net, node, len(parts[0])))[:-1]
            numbers.update(zip(node.output, np.split(parts[0], ends), strict=True))
        elif node.op_type == "Concat":
            numbers[node.output[0]] = np.concatenate(parts)
        elif len({len(each) for each in parts}) == 1:
            for other in parts[1:]:
                _unite(parents, parts[0], other)
            numbers[node.output[0]] = parts[0]
    for space in groups:
        known = [name for name in sorted(space.tensors) if name in numbers]
        if len(known) < len(space.tensors):
            space.frozen = space.frozen or "a tensor of unknown channels"
            continue
        roots = [np.array([root(parents, at) for at in numbers[name].tolist()], np.int64) for name in known]
        _, dense = np.unique(np.concatenate([np.zeros(0, np.int64), *roots]), return_inverse=True)
        space.channels = dict(zip(known, np.split(dense, np.cumsum([len(each) for each in roots])[:-1]), strict=True))


def _unite(parents: dict[int, int], one: np.ndarray, two: np.ndarray) -> None:
    """Make the channels of two tensors the same, one by one; the least number represents them."""
    for left, right in zip(one.tolist(), two.tolist(), strict=True):
        join(parents, *sorted((root(parents, left), root(parents, right))))


def _split_sizes(net: ProtoGraph, node: NodeProto, count: int) -> list[int]:
    sizes = net.arrays.get(node.input[1]) if len(node.input) > 1 else attributes(node).get("split")
    if sizes is None:
        step = -(-count // len(node.output))
        sizes = [min(step, count - at * step) for at in range(len(node.output))]
    return [int(size) for size in sizes]


def _keeps_channels(net: ProtoGraph, node: NodeProto) -> bool:
    if node.op_type == "Add":
        return not any(name in net.arrays for name in node.input)
    if node.op_type == "Clip":
        return _clip_limit(net, node) is not None
    if node.op_type in {"Concat", "Split"}:
        varying = node.op_type == "Concat" and any(name in net.arrays for name in node.input)
        free = node.op_type == "Split" and len(node.input) > 1 and node.input[1] not in net.arrays
        return attributes(node).get("axis", 0) == 1 and not varying and not free
    return node.op_type in SAME or _drops_ones(net, node) or _is_global_mean(net, node)


def _is_global_mean(net: ProtoGraph, node: NodeProto) -> bool:
    if node.op_type != "ReduceMean":
        return False
    axes = net.arrays.get(node.input[1]) if len(node.input) > 1 else attributes(node).get("axes")
    return axes is not None and sorted(int(axis) for axis in axes) in ([2, 3], [-2, -1])


def _drops_ones(net: ProtoGraph, node: NodeProto) -> bool:
    """Say whether a node only drops the 1x1 that global pooling left."""
    if node.op_type not in {"Flatten", "Squeeze", "Reshape"}:
        return False
    maker = net.producer.get(node.input[0])
    pooled = maker is not None and (maker.op_type == "GlobalAveragePool" or _is_global_mean(net, maker))
    return pooled and attributes(node).get("axis", 1) == 1


def _clip_limit(net: ProtoGraph, node: NodeProto) -> float | None:
    bounds = foldable(net, node)
    return None if bounds is None else bounds[1]


def _enter(net: ProtoGraph, node: NodeProto, space: Callable[[str], ChannelGroup]) -> None:
    """Note in the spaces of a node's tensors what it means for them."""
    if node.op_type in {"Conv", "Gemm"} and is_plain(net, node):
        space(node.input[0]).readers.append(node)
        space(node.output[0]).writers.append(node)
        space(node.input[0]).tensors.add(node.input[0])
        space(node.output[0]).tensors.add(node.output[0])
        return
    kept = _keeps_channels(net, node)
    for name in (*node.input, *captured(node), *node.output):
        if not name or name in net.arrays:
            continue
        space(name).tensors.add(name)
        if not kept:
            space(name).frozen = f"{node.op_type} {node.name}"
    if kept:
        here = space(node.output[0])
        here.between.add(node.op_type)
        if node.op_type == "Clip":
            here.limit = min(here.limit, _clip_limit(net, node) or np.inf)
