"""Topological order of nodes, without recursion, so that depth is no limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from .node import GraphTensor, Node

Reads = Callable[[Node], Iterable[GraphTensor]]


def topological(nodes: Sequence[Node], reads: Reads) -> list[Node]:
    """Return the nodes, each after those that make what it reads, otherwise in their order."""
    identities: set[int] = set()
    order: list[Node] = []
    for root in nodes:
        _place(root, reads, identities, order)
    return order


def _place(root: Node, reads: Reads, identities: set[int], order: list[Node]) -> None:
    """Append `root` after everything that it needs; iterative, so that depth is no limit."""
    stack = [(root, iter(reads(root)))]
    if id(root) in identities:
        return
    identities.add(id(root))
    while stack:
        node, pending = stack[-1]
        tensor = next(pending, None)
        if tensor is None:
            order.append(node)
            stack.pop()
            continue
        maker = tensor.inputs[0] if tensor.inputs else None
        if maker is not None and id(maker) not in identities:
            identities.add(id(maker))
            stack.append((maker, iter(reads(maker))))
