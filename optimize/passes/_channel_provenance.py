"""The source of each channel of a tensor, traced through Concat, Split, Slice, Gather and channel shuffles.

A source is a tensor that is not an output of such routing: the output of a Conv or activation, or a graph input. The
provenance of a tensor is a list with one atom (source, channel) per channel of axis 1. A demand is an input of a
node other than routing; it needs the atoms of its tensor, in any order if the node is flexible (a Conv that reads all
channels: its weights are permuted; an operator per channel: its output has the order of its input).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..graph.graph import Graph, Shape
from ..graph.node import GraphTensor, Node

SourceChannel = tuple[str, int]
ROUTING = ("Concat", "Split", "Slice", "Gather", "Reshape")
UNARY = {
    "Relu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Identity", "MaxPool",
    "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Neg", "Abs", "Sqrt", "Exp", "Softplus", "Mish", "Gelu",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class ChannelUse:
    """The channels that one input of one node needs.

    Attributes:
        number: Its index among the demands.
        node: The consumer; None for graph outputs and bodies.
        tensor: The tensor that is read.
        atoms: Its provenance.
        kind: "dense" (any order, weights follow), "tied" (any order, output follows), "rigid" (this order).
    """

    number: int
    node: Node | None
    tensor: GraphTensor
    atoms: tuple[SourceChannel, ...]
    kind: str

    @property
    def reader(self) -> Node:
        """The consumer of a use that has one."""
        assert self.node is not None, self.tensor.name
        return self.node


class Provenance:
    """Provenances of one graph, computed on demand.

    Attributes:
        sources: Tensors that are not outputs of routing, by name.
        shuffled: The last node of each shuffle, by the name of its output.
        behind: Names of tensors after a shuffle.
    """

    def __init__(self, net: Graph) -> None:
        self.net = net
        self.memo: dict[str, tuple[SourceChannel, ...] | None] = {}
        self.sources: dict[str, GraphTensor] = {}
        self.shuffled: dict[str, Node] = {}
        self.behind: set[str] = set()
        self.inner = _inner_nodes(net)

    def of(self, tensor: GraphTensor) -> tuple[SourceChannel, ...] | None:
        """Return the atoms of a tensor; None if it has no known number of channels on axis 1."""
        if tensor.name not in self.memo:
            self.memo[tensor.name] = self._find(tensor)
        return self.memo[tensor.name]

    def routes(self, node: Node | None) -> bool:
        """Return whether a node only moves channels."""
        if node is None or node.domain or id(node) in self.inner:
            return node is not None and id(node) in self.inner
        return node.op in ROUTING and self._indices(node) is not None

    def _find(self, tensor: GraphTensor) -> tuple[SourceChannel, ...] | None:
        shape, node = self.net.shape(tensor), self.net.producer(tensor)
        if shape is None or len(shape) < 3 or not isinstance(shape[1], int) or self.net.value(tensor) is not None:
            return None
        if node is not None and not node.domain and node.op in ROUTING:
            channels = self._routed(tensor, node)
            if channels is not None:
                return channels
        self.sources[tensor.name] = tensor
        return tuple((tensor.name, channel) for channel in range(shape[1]))

    def _routed(self, tensor: GraphTensor, node: Node) -> tuple[SourceChannel, ...] | None:
        indices = self._indices(node)
        if indices is None:
            return None
        origin = self.inner_source(node) if node.op == "Reshape" else node.inputs[0]
        parts = [self.of(item) for item in (node.inputs if node.op == "Concat" else [origin])]
        if any(part is None for part in parts):
            return None
        atoms = [atom for part in parts if part for atom in part]
        if node.op in ("Reshape", "Gather"):
            self.shuffled[tensor.name] = node
        inputs = node.inputs if node.op == "Concat" else [origin]
        if node.op in ("Reshape", "Gather") or any(item.name in self.behind for item in inputs):
            self.behind.add(tensor.name)
        if node.op == "Split":
            place = next(index for index, item in enumerate(node.outputs) if item is tensor)
            sizes = self._sizes(node)
            start = sum(sizes[:place])
            return tuple(atoms[start : start + sizes[place]])
        return tuple(atoms[index] for index in indices)

    def _indices(self, node: Node) -> list[int] | None:
        """Return the channels of its concatenated inputs that a routing node takes, in order; None for other nodes."""
        net, source = self.net, node.inputs[0]
        if node.op == "Reshape":
            return _shuffle(net, node) if id(node) in self.inner else None
        shape = net.shape(source)
        if shape is None or len(shape) < 3 or not isinstance(shape[1], int):
            return None
        if node.op == "Slice":
            return _slice(net, node, shape)
        axis = int(node.attrs.get("axis", 0)) % len(shape)
        if axis != 1:
            return None
        if node.op == "Concat":
            channels = [(net.shape(tensor) or (0, None))[1] for tensor in node.inputs]
            constant = any(net.value(tensor) is not None for tensor in node.inputs)
            known = not constant and all(isinstance(size, int) for size in channels)
            return list(range(sum(channels))) if known else None
        if node.op == "Split":
            return list(range(shape[1])) if self._sizes(node) else None
        indices = net.value(node.inputs[1])
        if indices is None or indices.ndim != 1:
            return None
        return [int(index) % shape[1] for index in indices]

    def _sizes(self, node: Node) -> list[int]:
        shapes = [self.net.shape(tensor) for tensor in node.outputs]
        sizes = [shape[1] if shape and len(shape) > 1 else None for shape in shapes]
        return [int(size) for size in sizes if size is not None] if all(isinstance(s, int) for s in sizes) else []

    def inner_source(self, last: Node) -> GraphTensor:
        """Return the input of a shuffle, given by its last Reshape."""
        return last.inputs[0].inputs[0].inputs[0].inputs[0].inputs[0]


def _inner_nodes(net: Graph) -> set[int]:
    """Return the nodes of all channel shuffles."""
    identities: set[int] = set()
    for node in net.nodes("Reshape"):
        turn = net.producer_of_type(node.inputs[0], "Transpose")
        first = net.producer_of_type(turn.inputs[0], "Reshape") if turn is not None else None
        if turn is None or first is None:
            continue
        if net.only_user(turn.outputs[0]) is None or net.only_user(first.outputs[0]) is None:
            continue
        if _shuffle(net, node) is not None:
            identities |= {id(node), id(turn), id(first)}
    return identities


def _shuffle(net: Graph, last: Node) -> list[int] | None:
    """Return the channel permutation of Reshape-Transpose-Reshape, or None if it is not a channel shuffle."""
    turn = net.producer_of_type(last.inputs[0], "Transpose")
    first = net.producer_of_type(turn.inputs[0], "Reshape") if turn is not None else None
    if turn is None or first is None:
        return None
    start, middle, end = (net.shape(item) for item in (first.inputs[0], first.outputs[0], last.outputs[0]))
    if start is None or middle is None or start != end or len(start) < 3 or not isinstance(start[1], int):
        return None
    extra, order = len(middle) - len(start), turn.attrs.get("perm")
    sizes = middle[1 : 2 + extra]
    if extra < 1 or order is None or None in (*start, *middle) or not all(isinstance(size, int) for size in sizes):
        return None
    if middle[0] != start[0] or middle[2 + extra :] != start[2:] or math.prod(sizes) != start[1]:
        return None
    inside = order[1 : 2 + extra]
    if order[0] != 0 or order[2 + extra :] != list(range(2 + extra, len(middle))):
        return None
    moved = np.arange(start[1]).reshape(sizes).transpose([axis - 1 for axis in inside])
    return [int(index) for index in moved.reshape(-1)]


def _slice(net: Graph, node: Node, shape: Shape) -> list[int] | None:
    starts, ends = net.ints(node, "starts", 1), net.ints(node, "ends", 2)
    axes = net.ints(node, "axes", 3) if net.input(node, 3) is not None or "axes" in node.attrs else [0]
    steps = net.ints(node, "steps", 4) if net.input(node, 4) is not None else [1]
    if not starts or not ends or not axes or not steps or len(starts) != 1 or axes[0] % len(shape) != 1:
        return None
    # A negative end of a backward slice means «before the first», which is None in Python's slice.
    end = None if steps[0] < 0 and ends[0] < -shape[1] else ends[0]
    return list(range(shape[1]))[slice(starts[0], end, steps[0])]


def demands(net: Graph, provenance: Provenance) -> list[ChannelUse]:
    """Return the demands of all nodes other than routing, of graph outputs and of bodies."""
    uses: list[ChannelUse] = []

    def note(node: Node | None, tensor: GraphTensor, kind: str) -> None:
        atoms = provenance.of(tensor) if tensor.name else None
        if atoms is not None:
            uses.append(ChannelUse(len(uses), node, tensor, atoms, kind))

    for node in net.everything():
        if provenance.routes(node):
            for tensor in node.outputs:
                if tensor.name in net.protected_names:
                    note(None, tensor, "rigid")
            continue
        for index, tensor in enumerate(node.inputs):
            note(node, tensor, _flexibility(net, node) if index == 0 else "rigid")
        for tensor in (
            *net.captures.get(id(node), ()),
            *(item for item in node.outputs if item.name in net.protected_names),
        ):
            note(None, tensor, "rigid")
    return uses


def _flexibility(net: Graph, node: Node) -> str:
    if node.domain:
        return "rigid"
    if node.op in UNARY:
        constant = all(net.scalar(tensor) is not None for tensor in node.inputs[1:] if tensor.name)
        return "tied" if constant and len(node.outputs) == 1 else "rigid"
    if node.op == "BatchNormalization":
        constant = all(net.value(tensor) is not None for tensor in node.inputs[1:5])
        return "tied" if constant and len(node.outputs) == 1 and not node.attrs.get("training_mode", 0) else "rigid"
    if node.op != "Conv" or any(net.value(tensor) is None for tensor in node.inputs[1:] if tensor.name):
        return "rigid"
    weights, groups = net.shape(node.inputs[1]) or (0, 0), int(node.attrs.get("group", 1))
    if groups == 1:
        return "dense"
    return "tied" if weights[0] == groups and weights[1] == 1 else "rigid"
