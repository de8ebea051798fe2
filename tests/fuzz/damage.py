"""Damage to bytes: flips, cuts, junk, and parts moved about."""

import numpy as np


def flip(rng, data):
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if data else 0):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def cut(rng, data):
    return data[: rng.integers(len(data) + 1)]


def junk(rng, data):
    at = int(rng.integers(len(data) + 1))
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at + int(rng.integers(0, 64)) :]


def zero(rng, data):
    at, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 256))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def double(rng, data):
    at, size = int(rng.integers(len(data) + 1)), int(rng.integers(1, 256))
    return data[: at + size] + data[at : at + size] + data[at + size :]


def numbers(rng, data):
    """Put an extreme number in the place of four or eight bytes."""
    at = int(rng.integers(max(len(data) - 8, 0) + 1))
    number = rng.choice(np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1], np.uint64))
    size = int(rng.choice([4, 8]))
    return data[:at] + int(number).to_bytes(8, "little")[:size] + data[at + size :]


def head(rng, data):
    """Damage the first 64 bytes only: lengths and magic numbers stand there."""
    return flip(rng, data[:64]) + data[64:]


def nothing(rng, data):
    return b"" if rng.integers(2) else rng.bytes(int(rng.integers(1, 500)))


WAYS = (flip, flip, cut, junk, zero, double, numbers, head, nothing)


def damaged(rng, data: bytes) -> tuple[str, bytes]:
    """Return what was done, and the damaged bytes."""
    way = WAYS[rng.integers(len(WAYS))]
    return way.__name__, way(rng, data)
