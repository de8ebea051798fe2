"""Topological order of numbered nodes, without recursion, so that depth is no limit."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from collections.abc import Set as AbstractSet


def topological(needs: Sequence[AbstractSet[int]]) -> tuple[list[int], list[int]]:
    """Put nodes after those that they need, keeping the given order where it is free (Kahn's algorithm).

    Args:
        needs: For each node the numbers of the nodes that make what it reads.

    Returns:
        The order, and the nodes of one cycle; with a cycle, those that need it stand at the end of the order.
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
    """Follow what waiting nodes wait for until one comes again."""
    path: dict[int, None] = {}
    stuck, node = set(waiting), waiting[0] if waiting else -1
    while stuck and node not in path:
        path[node] = None
        node = min(needs[node] & stuck)
    steps = list(path)
    return steps[steps.index(node) :] if steps else []
