"""A plan that meets all channel demands without shuffles: the channel order, splits and padding of each source.

Channels of one source with the same demands form a group. A Conv that reads all channels may output its channels in any
order, so its groups are made contiguous. For a target that works on blocks of channels a group is padded to whole
blocks, and the remainders of groups share blocks, padded with zero channels; a consumer of a block has zero weights for
the channels that it does not need. A tensor that cannot be permuted is split into runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..graph.graph import Graph
from ..graph.node import GraphTensor, is_a
from ..graph.union_find import join, root
from ._channel_provenance import ChannelUse, Provenance

MOST_RUNS = 8
# Limits for padding groups: the ratio of channels read to channels needed, and the mean number of pieces. Measured with
# blocks of 16 on ShuffleNetV2 x0.5 to x2.0: stages of four units read 1.05 to 1.22 of the needed channels in 3 pieces
# and become faster (x0.5: 2.0), stages of eight 1.12 to 1.88 in 5 pieces and become slower.
MOST_READ, MOST_PIECES = 1.25, 3.0
Component = tuple[list[ChannelUse], str]
Range = tuple[str, int, int]


@dataclass
class Source:
    """A tensor whose channels get a new order.

    Attributes:
        tensor: The tensor.
        channels: Its number of channels.
        kind: "free" (output of a Conv that reads all channels), "tied" (in the order of its input), "fixed".
        group: The group of each channel; -1 for a channel without demands.
        layout: New order: channel numbers, -1 for a zero channel.
        spans: Begin and end of each piece in the layout: channels with the same demands, or a shared block.
    """

    tensor: GraphTensor
    kind: str
    channels: int
    group: list[int] = field(default_factory=list)
    layout: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class ReorderingPlan:
    """Sources by name, demands, and for each demand the (source, group) pieces to concatenate."""

    sources: dict[str, Source]
    demands: list[ChannelUse]
    pieces: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    block: int = 1

    def layout(self, demand: ChannelUse) -> list[int]:
        """Return the channel order of a demand: indices in its tensor, -1 for an ignored channel."""
        place = {atom: index for index, atom in enumerate(demand.atoms)}
        order = []
        for name, number in self.pieces[demand.number]:
            source = self.sources[name]
            begin, end = source.spans[number]
            order += [place.get((name, channel), -1) for channel in source.layout[begin:end]]
        return order

    def ranges(self, demand: ChannelUse) -> list[Range]:
        """Return the pieces of a demand as (source, begin, end) in the sources' layouts, adjacent pieces merged."""
        ranges: list[Range] = []
        for name, number in self.pieces[demand.number]:
            begin, end = self.sources[name].spans[number]
            if ranges and ranges[-1][0] == name and ranges[-1][2] == begin:
                ranges[-1] = (name, ranges[-1][1], end)
            else:
                ranges.append((name, begin, end))
        return ranges


def padding_pays(reordering: ReorderingPlan) -> bool:
    """Return whether the Convs of a plan with padded groups read few unneeded channels, in few pieces."""
    dense = [demand for demand in reordering.demands if demand.kind == "dense"]
    wanted, read = sum(len(demand.atoms) for demand in dense), sum(len(reordering.layout(demand)) for demand in dense)
    pieces = sum(len(reordering.ranges(demand)) for demand in dense)
    return read <= MOST_READ * wanted and pieces <= MOST_PIECES * len(dense)


def components(provenance: Provenance, wanted: list[ChannelUse]) -> tuple[list[Component], list[Component]]:
    """Return the demands in sets that share sources, each with the name of its position.

    Returns:
        The sets with a channel shuffle, and the sets that are chains, without Concat or Split.
    """
    parents: dict[str, str] = {}
    for demand in wanted:
        names = list(dict.fromkeys(name for name, _ in demand.atoms))
        names += [demand.reader.outputs[0].name] if demand.kind == "tied" else []
        for name in names[1:]:
            join(parents, names[0], name)
    shuffled: dict[str, str] = {}
    for demand in wanted:
        if demand.tensor.name in provenance.behind:
            shuffled.setdefault(root(parents, demand.atoms[0][0]), demand.tensor.name)
    sets: dict[str, list[ChannelUse]] = {}
    for demand in wanted:
        if demand.atoms:
            sets.setdefault(root(parents, demand.atoms[0][0]), []).append(demand)
    chains = [
        (uses, name)
        for name, uses in sets.items()
        if name not in shuffled and all(demand.tensor.name == demand.atoms[0][0] for demand in uses)
    ]
    return [(sets[name], place) for name, place in shuffled.items() if name in sets], chains


def plan(net: Graph, provenance: Provenance, wanted: list[ChannelUse], block: int) -> ReorderingPlan | str:
    """Plan one component, or return why it is not changed.

    Args:
        net: The graph.
        provenance: The sources of its channels.
        wanted: The component's demands.
        block: Groups are padded to a multiple of this number of channels; 1 for no padding.
    """
    if any(len(set(demand.atoms)) < len(demand.atoms) for demand in wanted):
        return "a channel is read twice by one node"
    wanted = _settled(wanted)
    position = {id(node): index for index, node in enumerate(net.ordered())}
    names = {name for demand in wanted for name, _ in demand.atoms}
    names |= {demand.reader.outputs[0].name for demand in wanted if demand.kind == "tied"}
    ordered = sorted((provenance.sources[name] for name in names if name in provenance.sources), key=_order(position))
    reordering = ReorderingPlan(
        {
            tensor.name: Source(tensor, _kind(net, tensor, wanted), len(provenance.of(tensor) or ()))
            for tensor in ordered
        },
        wanted,
        block=block,
    )
    for tensor in reversed(ordered):
        _group(reordering, reordering.sources[tensor.name])
    for tensor in ordered:
        source = reordering.sources[tensor.name]
        _lay_out(reordering, source, block)
        if source.kind == "fixed" and len(source.spans) > MOST_RUNS:
            return f"{tensor.name!r} cannot be permuted, and would be cut into {len(source.spans)} pieces"
    for demand in wanted:
        if demand.number not in reordering.pieces:
            _assemble(reordering, demand)
    return reordering


def _settled(wanted: list[ChannelUse]) -> list[ChannelUse]:
    """Make uses rigid whose output has a consumer that needs a fixed order."""
    while True:
        rigid = {demand.tensor.name for demand in wanted if demand.kind == "rigid"}
        numbers = {
            demand.number for demand in wanted if demand.kind == "tied" and demand.reader.outputs[0].name in rigid
        }
        if not numbers:
            return wanted
        wanted = [replace(demand, kind="rigid") if demand.number in numbers else demand for demand in wanted]


def _order(position: dict[int, int]) -> Callable[[GraphTensor], int]:
    return lambda tensor: position[id(tensor.inputs[0])] if tensor.inputs else -1


def _kind(net: Graph, tensor: GraphTensor, wanted: list[ChannelUse]) -> str:
    """Return the kind of a source: free, tied or fixed."""
    if any(demand.kind == "rigid" and demand.tensor is tensor for demand in wanted):
        return "fixed"
    maker = net.producer(tensor)
    if any(demand.kind == "tied" and demand.node is maker for demand in wanted):
        return "tied"
    if maker is not None and is_a(maker, "Conv") and int(maker.attrs.get("group", 1)) == 1:
        return "free" if all(net.value(item) is not None for item in maker.inputs[1:] if item.name) else "fixed"
    return "fixed"


def _group(reordering: ReorderingPlan, source: Source) -> None:
    """Group a source's channels by demand; a consumer that passes channels on is split by its own groups."""
    name = source.tensor.name
    labels: list[list[tuple[int, int]]] = [[] for _ in range(source.channels)]
    for demand in reordering.demands:
        passed = reordering.sources[demand.reader.outputs[0].name].group if demand.kind == "tied" else None
        for index, (owner, channel) in enumerate(demand.atoms):
            if owner == name:
                group = passed[index] if passed is not None and index < len(passed) else 0
                if group >= 0:
                    labels[channel].append((demand.number, group))
    signatures = [tuple(label) for label in labels]
    known = {signature: index for index, signature in enumerate(sorted({item for item in signatures if item}))}
    source.group = [known.get(signature, -1) for signature in signatures]


def _lay_out(reordering: ReorderingPlan, source: Source, block: int) -> None:
    if source.kind == "tied":
        _follow(reordering, source)
    elif source.kind == "fixed":
        _cut_runs(source)
    else:
        for channels in _packed(source, block):
            begin = len(source.layout)
            source.layout += channels + [-1] * (-len(channels) % block)
            source.spans.append((begin, len(source.layout)))


def _packed(source: Source, block: int) -> list[list[int]]:
    """Return the pieces: the whole blocks of each group, and blocks shared by the remainders of groups.

    A consumer of a remainder reads a whole block in any case, so other channels instead of zeros in the block cost
    nothing and save a second block. First-fit decreasing: the largest remainder first, into the first block with space.
    """
    blocks: list[tuple[int, list[int]]] = []
    rests: list[tuple[int, list[int]]] = []
    for number in range(max(source.group, default=-1) + 1):
        channels = [channel for channel, group in enumerate(source.group) if group == number]
        whole = len(channels) - len(channels) % block
        blocks += [(number, channels[:whole])] if whole else []
        rests += [(number, channels[whole:])] if channels[whole:] else []
    shared: list[tuple[int, list[int]]] = []
    for number, channels in sorted(rests, key=lambda one: -len(one[1])):
        place = next((i for i, (_, rest) in enumerate(shared) if len(rest) + len(channels) <= block), len(shared))
        first, rest = shared[place] if place < len(shared) else (number, [])
        shared[place : place + 1] = [(min(first, number), [*rest, *channels])]
    # By the first group in each, as in `_follow`: then an activation reads its layer's output unchanged.
    return [channels for _, channels in sorted([*blocks, *shared], key=lambda item: item[0])]


def _follow(reordering: ReorderingPlan, source: Source) -> None:
    """Give an operator per channel the layout of its input, concatenated in the order of the operator's groups."""
    demand = next(
        item for item in reordering.demands if item.kind == "tied" and item.reader.outputs[0] is source.tensor
    )
    place = {atom: index for index, atom in enumerate(demand.atoms)}
    positions = []
    for rank, name in enumerate(dict.fromkeys(owner for owner, _ in demand.atoms)):
        origin = reordering.sources[name]
        for number, (begin, end) in enumerate(origin.spans):
            indices = [place.get((name, channel), len(source.group)) for channel in origin.layout[begin:end]]
            groups = [source.group[index] for index in indices if index < len(source.group)]
            if wanted := [group for group in groups if group >= 0]:
                positions.append((min(wanted), rank, number, name))
    reordering.pieces[demand.number] = [(name, number) for _, _, number, name in sorted(positions)]
    source.layout = reordering.layout(demand)
    end = 0
    for _, _, number, name in sorted(positions):
        first, last = reordering.sources[name].spans[number]
        begin, end = end, end + last - first
        source.spans.append((begin, end))


def _cut_runs(source: Source) -> None:
    """Keep the order; each run of one group becomes a group of its own."""
    source.layout = list(range(len(source.group)))
    runs: list[int] = []
    for channel, group in enumerate(source.group):
        if channel == 0 or group != source.group[channel - 1]:
            runs.append(channel)
    source.spans = list(zip(runs, [*runs[1:], len(source.group)], strict=True))


def _assemble(reordering: ReorderingPlan, demand: ChannelUse) -> None:
    """Return the pieces that a demand concatenates, for any order or for a fixed one."""
    place = set(demand.atoms)
    pieces = []
    for name in dict.fromkeys(owner for owner, _ in demand.atoms):
        origin = reordering.sources[name]
        for number, (begin, end) in enumerate(origin.spans):
            if any((name, channel) in place for channel in origin.layout[begin:end] if channel >= 0):
                pieces.append((name, number))
    reordering.pieces[demand.number] = pieces
