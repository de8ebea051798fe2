"""Eliminate channel shuffles: every Conv outputs its channels in the order that its consumers need.

Before: Concat(a, b) -> Reshape (N, 2, C/2, H, W) -> Transpose -> Reshape (N, C, H, W) -> Split -> Conv ...
After:  each Conv's filters permuted so that the channels of one consumer are contiguous; one Split per source, one
        Concat per consumer, and the consumers' weights permuted to match
When:   a network of Concat, Split, Slice, Gather and shuffles connects Convs that read all channels, depthwise Convs,
        activations and pools. A consumer that needs the original order (outputs, sums) gets it by one Gather.
Why:    Conv(x)[p] = Conv with filters [p], and sum over i of W[i] x[i] has no order: the copies are not needed.
        For ort-x86, channels between Convs are padded with zeros to the channel block, because ONNX Runtime leaves its
        blocked layout for a depthwise Conv with other numbers of channels. Groups are padded if that costs little.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node, is_a
from ._base import Outcome, Pass, Refused, RewriteFilter, Rewritten
from ._channel_provenance import ChannelUse, Provenance, demands
from ._channel_reordering import ReorderingPlan, Source, components, padding_pays, plan
from .eliminate_dead_nodes import cascade
from .slices_to_split import split

Array = np.ndarray[Any, Any]
Parts = dict[str, list[tuple[int, int, GraphTensor]]]  # source -> (begin, end, the tensor of these channels)


class DropShuffles(Pass):
    """The pass; it works on whole networks of routing, so it is called once per graph."""

    def call(self, net: Graph, name: str, permit: RewriteFilter) -> list[Outcome]:
        """Rewrite every network of routing that contains a shuffle."""
        if self.requires(net) or not any(net.nodes("Reshape", "Gather")):
            return []
        for node in net.everything():  # unread nodes have no demands
            cascade(net, node)
        provenance = Provenance(net)
        if not provenance.inner and not any(provenance.routes(node) for node in net.nodes("Gather")):
            return []
        shuffled, chains = components(provenance, demands(net, provenance))
        routing = [node for node in reversed(net.everything()) if provenance.routes(node)]
        outcomes = [
            _rewrite(net, provenance, wanted, _block(net, provenance, wanted), where, routing)
            for wanted, where in shuffled
            if permit.allows(name, where)
        ]
        done = [outcome for outcome in outcomes if isinstance(outcome, Rewritten)]
        for outcome in done:
            permit.note(name, outcome.node)
        for wanted, where in chains if done and net.block > 1 else []:
            _rewrite(net, provenance, wanted, net.block, where, routing)
        if not done:
            return outcomes
        net.value_types, net.inferred = {}, False
        net.sweep()
        self.ensures(net, name)
        return outcomes


def _block(net: Graph, provenance: Provenance, wanted: list[ChannelUse]) -> int:
    """Return the target's channel block, or 1 if padding groups to it costs more than it gains."""
    reordering = plan(net, provenance, wanted, net.block) if net.block > 1 else ""
    return net.block if isinstance(reordering, ReorderingPlan) and padding_pays(reordering) else 1


def _rewrite(
    net: Graph, provenance: Provenance, wanted: list[ChannelUse], block: int, where: str, routing: list[Node]
) -> Outcome:
    reordering = plan(net, provenance, wanted, block)
    if isinstance(reordering, str):
        return Refused(where, reordering)
    names = {owner for demand in wanted for owner, _ in demand.atoms}
    shuffled_channels = [provenance.memo[key] or () for key in provenance.shuffled]
    shuffles = sum(any(owner in names for owner, _ in atoms) for atoms in shuffled_channels)
    gathers = sum(demand.kind == "rigid" and not _is_plain(reordering, demand) for demand in reordering.demands)
    if gathers and gathers >= shuffles:
        return Refused(where, "as many consumers need the shuffled order as there are shuffles")
    parts = _cut(net, reordering)
    for demand in reordering.demands:
        _serve(net, reordering, demand, parts)
    for source in reordering.sources.values():
        _permute_outputs(net, source)
    for node in routing:
        if id(node) not in net.dead:
            cascade(net, node)
    _rename(net, reordering)
    return Rewritten(where, f"{shuffles} shuffles" + (f", {gathers} Gather instead" if gathers else ""))


def _rename(net: Graph, reordering: ReorderingPlan) -> None:
    """Rename tensors whose channels changed, so that no outdated declared shape remains."""
    for source in reordering.sources.values():
        if source.layout != list(range(len(source.layout))) or len(source.group) != len(source.layout):
            source.tensor.name = net.fresh(f"{source.tensor.name}_regrouped")


def _is_plain(reordering: ReorderingPlan, demand: ChannelUse) -> bool:
    return reordering.layout(demand) == list(range(len(demand.atoms)))


def _cut(net: Graph, reordering: ReorderingPlan) -> Parts:
    """Insert one Split per source of which only a part is read; return the parts of every source."""
    parts = {}
    for name, source in reordering.sources.items():
        size = len(source.layout)
        ranges = [item for demand in reordering.demands for item in reordering.ranges(demand) if item[0] == name]
        bounds = sorted({0, size} | {bound for _, begin, end in ranges for bound in (begin, end)})
        sizes = [last - first for first, last in itertools.pairwise(bounds)]
        if len(sizes) < 2:
            parts[name] = [(0, size, source.tensor)]
            continue
        outputs = [net.blank(f"{name}_group") for _ in sizes]
        near = source.tensor.inputs[0] if source.tensor.inputs else net.graph.nodes[0]
        split(net, near, source.tensor, sizes, 1, outputs)
        parts[name] = list(zip(bounds[:-1], bounds[1:], outputs, strict=True))
    return parts


def _serve(net: Graph, reordering: ReorderingPlan, demand: ChannelUse, parts: Parts) -> None:
    """Connect one consumer to its channels."""
    tensors: list[GraphTensor] = []
    layout = reordering.layout(demand)
    for name, begin, end in reordering.ranges(demand):
        # A layer that is also read whole cannot be computed in parts; whole blocks are cheap to concatenate.
        whole = reordering.block == 1 and (begin, end) == (0, len(reordering.sources[name].layout))
        pieces = [part for first, last, part in parts[name] if begin <= first < end]
        tensors += [reordering.sources[name].tensor] if whole else pieces
    if len(tensors) == 1 and tensors[0] is demand.tensor and layout == list(range(len(layout))):
        return
    near = demand.node if demand.node is not None else net.graph.nodes[-1]
    channels = _join(net, tensors, near)
    if demand.kind == "rigid":
        _restore(net, demand, channels, layout, near)
        return
    inputs = demand.reader.inputs
    for index, tensor in enumerate(inputs):
        if tensor is demand.tensor:
            inputs[index] = channels
    if demand.kind == "dense" and layout != list(range(len(demand.atoms))):
        inputs[1] = net.constant(f"{inputs[1].name}_regrouped", _take(net.array(inputs[1]), layout, 1))


def _join(net: Graph, tensors: list[GraphTensor], near: Node) -> GraphTensor:
    """Return the Concat of some tensors, an existing one if possible."""
    if len(tensors) == 1:
        return tensors[0]
    for user in net.users(tensors[0]):
        same = is_a(user, "Concat") and user.attrs.get("axis") == 1 and len(user.inputs) == len(tensors)
        if same and all(one is other for one, other in zip(user.inputs, tensors, strict=True)):
            return user.outputs[0]
    output = net.blank(f"{near.name or near.op}_channels")
    net.add("Concat", tensors, [output], near, {"axis": 1})
    return output


def _restore(net: Graph, demand: ChannelUse, channels: GraphTensor, layout: list[int], near: Node) -> None:
    """Restore the original order for a consumer that needs it."""
    order = [layout.index(channel) for channel in range(len(demand.atoms))]
    result = demand.tensor
    if demand.node is None:
        for node in list(result.inputs):
            node.outputs[next(place for place, item in enumerate(node.outputs) if item is result)] = net.blank(
                f"{result.name}_old"
            )
    else:
        result = net.blank(f"{demand.tensor.name}_ordered")
    if order == list(range(len(layout))):
        net.add("Identity", [channels], [result], near)
    else:
        indices = net.constant(f"{result.name}_order", np.array(order, np.int64))
        net.add("Gather", [channels, indices], [result], near, {"axis": 1})
    if demand.node is not None:
        for index, tensor in enumerate(demand.node.inputs):
            if tensor is demand.tensor:
                demand.node.inputs[index] = result


def _permute_outputs(net: Graph, source: Source) -> None:
    """Permute the parameters of a source's node into the order of its layout."""
    layout, node = source.layout, net.producer(source.tensor)
    whole = layout == list(range(len(layout))) and len(layout) == len(source.group)
    if source.kind == "fixed" or whole:
        return
    assert node is not None, source.tensor.name
    last = 3 if node.op == "Conv" else 5 if node.op == "BatchNormalization" else 0
    for index in range(1, min(last, len(node.inputs))):
        array = net.value(node.inputs[index])
        if array is not None:
            fill = 1.0 if (node.op, index) == ("BatchNormalization", 4) else 0.0
            name = f"{node.inputs[index].name}_regrouped"
            node.inputs[index] = net.constant(name, _take(array, layout, 0, fill))
    if source.kind == "tied" and node.op == "Conv":
        node.attrs["group"] = len(layout)


def _take(array: Array, layout: list[int], axis: int, fill: float = 0.0) -> Array:
    """Take slices of an array in an order; -1 gives a slice of `fill`."""
    slices = np.take(array, [max(index, 0) for index in layout], axis=axis)
    empty = np.array([index < 0 for index in layout])
    slices[(slice(None),) * axis + (empty,)] = fill
    return slices


PASS = DropShuffles(lambda net, node: None, (), "channel shuffles replaced by the order of the Convs' filters")
