"""Union-find over a dict of parent links: groups of items, each with one representative.

Source: Tarjan and van Leeuwen 1984, «Worst-case Analysis of Set Union Algorithms» (path halving).
"""

from __future__ import annotations

from typing import TypeVar

Item = TypeVar("Item")


def root(parents: dict[Item, Item], item: Item) -> Item:
    """Return the representative of an item's group: the item itself if it was never joined.

    Args:
        parents: Item -> an item of its group nearer to the representative; paths are shortened in place.
        item: The item.
    """
    while item in parents:
        parent = parents[item]
        if parent in parents:
            parents[item] = parents[parent]
        item = parent
    return item


def join(parents: dict[Item, Item], kept: Item, other: Item) -> None:
    """Join two groups; the representative of the first becomes that of both."""
    first, second = root(parents, kept), root(parents, other)
    if first != second:
        parents[second] = first
