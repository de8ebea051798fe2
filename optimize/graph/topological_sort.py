"""Topological order of nodes, without recursion, so that depth is no limit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Reads = Callable[[Any], Iterable[Any]]


def topological(nodes: Sequence[Any], reads: Reads) -> list[Any]:
    """Return the nodes, each after those that make what it reads, otherwise in their order."""
    placed: set[int] = set()
    order: list[Any] = []
    for root in nodes:
        _place(root, reads, placed, order)
    return order


def _place(root: Any, reads: Reads, placed: set[int], order: list[Any]) -> None:
    """Append `root` after everything that it needs; iterative, so that depth is no limit."""
    stack = [(root, iter(reads(root)))]
    if id(root) in placed:
        return
    placed.add(id(root))
    while stack:
        node, pending = stack[-1]
        tensor = next(pending, None)
        if tensor is None:
            order.append(node)
            stack.pop()
            continue
        maker = tensor.inputs[0] if tensor.inputs else None
        if maker is not None and id(maker) not in placed:
            placed.add(id(maker))
            stack.append((maker, iter(reads(maker))))
