"""The progress of a build as one percentage, from the builder's nested phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Percent:
    """Convert `build_engine`'s events to calls of `advance(points)`, 100 points in total; it never decreases.

    The share of a phase is one step of its parent; phases without a parent share the total evenly.
    """

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self._told = advance, 0
        self._open: dict[str, _Phase] = {}

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Process one event: {"event": "phase" | "step" | "end", "name": …}."""
        kind, name = event["event"], event.get("name", "")
        if kind == "phase":
            self._open[name] = _Phase(event.get("parent"), max(int(event.get("steps") or 1), 1))
        elif kind == "step" and name in self._open:
            self._open[name].done = min(int(event["step"]) + 1, self._open[name].steps)
        elif kind == "end":
            self._open.pop(name, None)
        self._tell()

    def finish(self) -> None:
        """Fill the bar."""
        self._advance(100 - self._told)
        self._told = 100

    def _tell(self) -> None:
        roots = [name for name, phase in self._open.items() if phase.parent not in self._open]
        points = int(100 * max((self._share(name) for name in roots), default=0.0))
        if self._told < points < 100:
            self._advance(points - self._told)
            self._told = points

    def _share(self, name: str) -> float:
        phase = self._open[name]
        inner = max((self._share(other) for other, item in self._open.items() if item.parent == name), default=0.0)
        return min((phase.done + inner) / phase.steps, 1.0)
