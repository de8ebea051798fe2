"""Operators between ONNX Runtime's conversions of layout computed on the blocked layout.

Before: ReorderInput(f(ReorderOutput(x), ...))      in ONNX Runtime's own optimised graph; f one operator or several
After:  f(x, ...)                                   see `blocked_forms` for how each operator looks there
When:   f is an operator on single elements, Concat or Split of channels at whole blocks, a global pooling, or a product
        with one factor per channel; every activation it reads is blocked; fewer conversions are left than before.
Why:    ONNX Runtime leaves the blocked layout for squeeze-excite, Split and unaligned channels: two copies each time.
"""

from __future__ import annotations

from typing import Any

from ..base import Outcome, Pass, Refused, Rewritten
from ..blocked_forms import Build, Shapes, data, form, is_blocked, is_kind, make, reordered, shapes
from ..graph import Net

Region = dict[int, tuple[Any, Build]]


def at(net: Net, node: Any) -> Outcome | None:
    """Move one node into the blocked layout, with what it is connected to."""
    if not is_kind(node):
        return None
    known = shapes(net)
    able, refused = _able(net, known)
    if id(node) not in able:
        return Refused(node.name, refused[id(node)]) if id(node) in refused else None
    region = _pruned(net, _connected(net, able, node), known)
    gain = _gain(net, region, known)
    if gain < 1 or id(node) not in region:
        return Refused(node.name, "as many conversions of layout would be left")
    count = len(region)
    _move(net, region, known)
    return Rewritten(node.name, f"{count} nodes, {gain} conversions of layout less")


def _able(net: Net, known: Shapes) -> tuple[Region, dict[int, str]]:
    """Return the nodes whose activations are all blocked, or made by such nodes; and why others are not."""
    able: Region = {}
    refused: dict[int, str] = {}
    for node in net.ordered():
        if not is_kind(node):
            continue
        sources = data(net, node)
        if not sources or not all(_is_source(net, tensor, able, known) for tensor in sources):
            continue
        found = form(net, node, known)
        if isinstance(found, str):
            refused[id(node)] = found
        else:
            able[id(node)] = (node, found)
    return able, refused


def _is_source(net: Net, tensor: Any, able: Region, known: Shapes) -> bool:
    return id(net.producer(tensor)) in able or reordered(net, tensor, known) is not None


def _connected(net: Net, able: Region, node: Any) -> Region:
    """Return the part of `able` that hangs together with a node, in the graph's order."""
    found, pending = set[int](), [node]
    while pending:
        last = pending.pop()
        if id(last) in found:
            continue
        found.add(id(last))
        near = [net.producer(tensor) for tensor in last.inputs]
        near += [user for tensor in last.outputs for user in net.users(tensor)]
        pending += [other for other in near if id(other) in able]
    return {key: entry for key, entry in able.items() if key in found}


def _pruned(net: Net, region: Region, known: Shapes) -> Region:
    """Leave out the last nodes that gain nothing."""
    while True:
        for key, (node, _) in list(region.items()):
            less = {other: entry for other, entry in region.items() if other != key}
            readers = [user for tensor in node.outputs for user in net.users(tensor)]
            if any(id(user) in region for user in readers) or _gain(net, less, known) < _gain(net, region, known):
                continue
            region = less
            break
        else:
            return region


def _gain(net: Net, region: Region, known: Shapes) -> int:
    """Count the conversions that vanish when the region is blocked, less those that come."""
    sources = {tensor.name: tensor for node, _ in region.values() for tensor in data(net, node)}
    outputs = [tensor for node, _ in region.values() for tensor in node.outputs]
    outer = [tensor for tensor in sources.values() if id(net.producer(tensor)) not in region]
    gone = sum(not _plain_readers(net, tensor, region, known) for tensor in outer)
    gone += sum(is_input(user) for tensor in outputs for user in net.users(tensor))
    return gone - sum(_plain_readers(net, tensor, region, known) for tensor in outputs)


def _plain_readers(net: Net, tensor: Any, region: Region, known: Shapes) -> bool:
    """Say whether a tensor is still needed in plain order when the region is blocked."""
    users = [user for user in net.users(tensor) if id(user) not in region]
    return tensor.name in net.pinned or not all(is_input(user) or is_narrow(net, user, known) for user in users)


def is_input(node: Any) -> bool:
    """Say whether a node turns (N, C, H, W) into the blocked layout."""
    return is_blocked(node, "ReorderInput") and not node.attrs.get("channels_last", 0)


def is_narrow(net: Net, node: Any, known: Shapes) -> bool:
    """Say whether a blocked Conv reads less than a block of channels, in plain order, and could read them blocked."""
    if not is_blocked(node, "Conv") or node.attrs.get("group", 1) != 1:
        return False
    channels, weights = known.get(node.inputs[0].name, (0, 0))[1], net.value(node.inputs[1])
    return 0 < channels < net.block and weights is not None and weights.shape[1] == channels


def _move(net: Net, region: Region, known: Shapes) -> None:
    held: dict[str, Any] = {}
    sources = [tensor for node, _ in region.values() for tensor in data(net, node)]
    reorders = [node for tensor in sources if (node := reordered(net, tensor, known)) is not None]
    held |= {node.outputs[0].name: node.inputs[0] for node in reorders}
    made: list[tuple[Any, Any, Any]] = []
    for node, build in region.values():
        outputs = build(held)
        held |= {tensor.name: blocked for tensor, blocked in zip(node.outputs, outputs, strict=True)}
        made += [(node, tensor, blocked) for tensor, blocked in zip(list(node.outputs), outputs, strict=True)]
    for node, _ in region.values():
        net.drop(node)
    for near, tensor, blocked in made:
        for user in net.users(tensor):
            if is_input(user):
                net.substitute(user.outputs[0], blocked)
                net.drop(user)
        if tensor.outputs or tensor.name in net.pinned:
            attrs = {"channels": known[tensor.name][1], "channels_last": 0}
            make(net, "ReorderOutput", [blocked], [tensor], near, attrs)
    for node in reorders:
        if id(node) not in net.dead and not node.outputs[0].outputs and node.outputs[0].name not in net.pinned:
            net.drop(node)


PASS = Pass(at, (), "operators between conversions of layout computed on ONNX Runtime's blocked layout", custom=True)
