"""What the torch backend's operators share: reading shapes, and padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..packages import need

Attributes = dict[str, Any]
Function = Callable[..., Any]


def ints(value: Any) -> list[int]:
    return [int(item) for item in (value.tolist() if hasattr(value, "tolist") else value)]


def from_input(attributes: Attributes, name: str, given: Any) -> list[int] | None:
    """Return what older opsets have as an attribute and newer ones as an input."""
    found = given if given is not None else attributes.get(name)
    return None if found is None else ints(found)


def padded(x: Any, pads: list[int], value: float = 0.0, mode: str = "constant") -> Any:
    """Pad the last dimensions; torch wants (begin, end) of the last one first."""
    half = len(pads) // 2
    pairs = [part for at in reversed(range(half)) for part in (pads[at], pads[half + at])]
    functional = need("torch").nn.functional
    return functional.pad(x, pairs, mode, value) if mode == "constant" else functional.pad(x, pairs, mode)
