"""Random draws that are equal on every machine: from SHA-256 of a seed and a name, without a generator's state."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..errors import DataError


def rank_by_hash(name: str, seed: str) -> int:
    """Return a pseudorandom number in [0, 2**64) that depends only on the arguments."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8], "big")


def stratified(names: Sequence[str], labels: Sequence[int], count: int, *, seed: str) -> list[int]:
    """Draw `count` sorted indices, stratified by class, with rounding by largest remainder.

    Args:
        names: One name per item; the draw depends on it and on the seed.
        labels: One class per item.
        count: Number of items to draw.
        seed: Any text.

    Raises:
        DataError: There are fewer items than that.
    """
    if not 0 < count <= len(names):
        raise DataError(f"cannot draw {count} images", got=f"{len(names)} images", expected="between 1 and all of them")
    groups: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        groups.setdefault(label, []).append(index)
    indices: list[int] = []
    for label, share in _shares({label: len(group) for label, group in groups.items()}, count).items():
        indices += sorted(groups[label], key=lambda index: rank_by_hash(names[index], seed))[:share]
    return sorted(indices)


def _shares(sizes: dict[int, int], count: int) -> dict[int, int]:
    total = sum(sizes.values())
    shares = {label: size * count // total for label, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda label: (-(sizes[label] * count % total), label))
    for label in by_remainder[: count - sum(shares.values())]:
        shares[label] += 1
    return shares
