"""Topological order of numbered nodes, without recursion, so the depth is not limited."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from collections.abc import Set as AbstractSet


def topological(needs: Sequence[AbstractSet[int]]) -> tuple[list[int], list[int]]:
    """Sort nodes after the nodes that they need, and keep the given order otherwise (Kahn's algorithm).

    Args:
        needs: For each node the numbers of the producers of its inputs.

    Returns:
        The order, and the nodes of one cycle; nodes that depend on a cycle are at the end of the order.
    """
    users: dict[int, list[int]] = {}
    for index, wanted in enumerate(needs):
        for other in wanted:
            users.setdefault(other, []).append(index)
    left = [len(wanted) for wanted in needs]
    ready = [index for index, count in enumerate(left) if not count]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, []):
            left[user] -= 1
            if not left[user]:
                heapq.heappush(ready, user)
    waiting = [index for index, count in enumerate(left) if count]
    return [*order, *waiting], _cycle(needs, waiting)


def _cycle(needs: Sequence[AbstractSet[int]], waiting: list[int]) -> list[int]:
    """Follow the dependencies of waiting nodes until a node repeats."""
    path: dict[int, None] = {}
    stuck, node = set(waiting), waiting[0] if waiting else -1
    while stuck and node not in path:
        path[node] = None
        node = min(needs[node] & stuck)
    steps = list(path)
    return steps[steps.index(node) :] if steps else []
