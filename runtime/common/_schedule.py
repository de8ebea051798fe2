"""How much activation memory a network needs at once, in the order that needs least.

A value lives from the operation that makes it to the last one that reads it. Element-wise operations work in place
when nobody else reads their input, as deployed graphs do it; views share their input's memory.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .complexity import Op

IN_PLACE = ("act", "norm", "add", "dropout")
MOST_STATES = 20_000


def peak_bytes(ops: Sequence[Op], inputs: Mapping[str, tuple[int, ...]], width: int) -> tuple[int, bool]:
    """Return the peak in bytes, and whether it is proven to be that of the best order.

    All orders are searched (best first, over sets of finished operations) while there are few; a network with too many
    is given its own order, which is an upper bound.
    """
    graph = _Graph(ops, inputs, width)
    found = graph.search()
    return (found, True) if found is not None else (graph.in_order(), False)


class _Graph:
    """Operations by number; for each, what its output adds and whom it waits for."""

    def __init__(self, ops: Sequence[Op], inputs: Mapping[str, tuple[int, ...]], width: int) -> None:
        self.root: dict[str, str] = {name: name for name in inputs}
        self.size = {name: width * math.prod(shape) for name, shape in inputs.items()}
        self.start = tuple(self.size)
        self.kept = [op for op in ops if not self._alias(op)]
        self.makes = [op.output for op in self.kept]
        self.reads = [tuple({self.root[name] for name in op.inputs if name in self.root}) for op in self.kept]
        self.size |= {op.output: width * math.prod(op.out) for op in self.kept}
        self.readers: dict[str, list[int]] = {name: [] for name in self.size}
        for number, read in enumerate(self.reads):
            for name in read:
                self.readers[name].append(number)
        maker = {name: number for number, name in enumerate(self.makes)}
        self.waits = [{maker[name] for name in read if name in maker} for read in self.reads]
        self.ends = {name for name in self.makes if not self.readers[name]}

    def _alias(self, op: Op) -> bool:
        """Record whose memory the output is; True when the operation itself takes no part."""
        known = [name for name in op.inputs if name in self.root]
        self.root[op.output] = self.root[known[0]] if op.view and known else op.output
        return bool(op.view and known)

    def step(self, done: frozenset[int], live: int, number: int) -> tuple[int, int]:
        """Return (bytes while `number` runs, bytes afterwards)."""
        freed = [
            name
            for name in self.reads[number]
            if name not in self.ends and all(reader in done or reader == number for reader in self.readers[name])
        ]
        made, free = self.size[self.makes[number]], sum(self.size[name] for name in freed)
        in_place = self.kept[number].kind in IN_PLACE and any(self.size[name] >= made for name in freed)
        return live + (0 if in_place else made), live + made - free

    def in_order(self) -> int:
        """Return the peak in the given order."""
        done: frozenset[int] = frozenset()
        live = peak = sum(self.size[name] for name in self.start)
        for number in range(len(self.kept)):
            during, live = self.step(done, live, number)
            peak, done = max(peak, during), done | {number}
        return peak

    def search(self) -> int | None:
        """Return the least peak over all orders; None when there are too many."""
        live = sum(self.size[name] for name in self.start)
        queue: list[tuple[int, int, int, frozenset[int], int]] = [(live, 0, 0, frozenset(), live)]
        seen: set[frozenset[int]] = set()
        pushed = 0
        while queue:
            peak, _, _, done, live = heapq.heappop(queue)
            if len(done) == len(self.kept):
                return peak
            if done in seen:
                continue
            seen.add(done)
            if len(seen) > MOST_STATES:
                return None
            for number, during, after in self._choices(done, live, peak):
                pushed += 1
                heapq.heappush(queue, (max(peak, during), -len(done) - 1, pushed, done | {number}, after))
        return None

    def _choices(self, done: frozenset[int], live: int, peak: int) -> list[tuple[int, int, int]]:
        """Return (operation, bytes during, bytes after) to try next; one alone if it costs nothing to run it now."""
        choices = [(n, *self.step(done, live, n)) for n in self._ready(done)]
        free = [choice for choice in choices if choice[1] <= peak and choice[2] <= live]
        return free[:1] or choices

    def _ready(self, done: frozenset[int]) -> list[int]:
        return [n for n in range(len(self.kept)) if n not in done and self.waits[n] <= done]
