"""Corruptions of the hard split: rotation, occlusion and noise, in integers, from the raw PCG64 stream of a seed.

`Generator`'s methods may change between NumPy versions; a bit generator's `random_raw` may not, so only that is used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROTATION_DEGREES = 20
OCCLUDED_PERCENT = (21, 36)
NOISE_SIGMA = (10, 30)
_FRACTION = 15  # bits after the point in source coordinates


def perturb(image: NDArray[np.uint8], seed: int, rotation: bool = True) -> NDArray[np.uint8]:
    """Rotate an image, cover it with a grey rectangle, and add noise.

    Args:
        image: uint8, (H, W, C).
        seed: Seed of the corruption; equal seed and size give the same corruption.
        rotation: Whether to rotate; not where a truth is about places in the image.

    Returns:
        uint8, (H, W, C). Rotation within +-20 degrees about the centre (outside is 0), a rectangle with sides of 21 to
        36 % of the image's, near-Gaussian noise with a standard deviation of 10 to 30 grey levels, equal in all
        channels.
    """
    height, width, _ = image.shape
    raw = np.random.PCG64(seed).random_raw(height * width + 8)
    draws = [int(value) for value in raw[:8]]
    angle = draws[0] % (2 * ROTATION_DEGREES + 1) - ROTATION_DEGREES
    out = (rotate(image, angle) if rotation else image).astype(np.int64)
    _occlude(out, draws[1:6])
    sigma = NOISE_SIGMA[0] + draws[6] % (NOISE_SIGMA[1] - NOISE_SIGMA[0] + 1)
    out += near_gaussian(raw[8:], sigma).reshape(height, width, 1)
    return np.clip(out, 0, 255).astype(np.uint8)


def rotate(image: NDArray[np.uint8], degrees: int) -> NDArray[np.uint8]:
    """Rotate (H, W, C) uint8 about its centre, bilinear in fixed point; pixels outside the image are 0."""
    height, width, _ = image.shape
    sine, cosine = (round(f(math.radians(degrees)) * (1 << _FRACTION - 1)) for f in (math.sin, math.cos))
    y = (2 * np.arange(height, dtype=np.int64) - (height - 1))[:, None]
    x = (2 * np.arange(width, dtype=np.int64) - (width - 1))[None, :]
    row = cosine * y - sine * x + ((height - 1) << _FRACTION - 1)
    column = sine * y + cosine * x + ((width - 1) << _FRACTION - 1)
    padded = np.pad(image.astype(np.int64), ((2, 2), (2, 2), (0, 0)))
    top, left = np.clip(row >> _FRACTION, -2, height), np.clip(column >> _FRACTION, -2, width)
    down, right = ((at & ((1 << _FRACTION) - 1))[..., None] for at in (row, column))
    one = 1 << _FRACTION
    upper = padded[top + 2, left + 2] * (one - right) + padded[top + 2, left + 3] * right
    lower = padded[top + 3, left + 2] * (one - right) + padded[top + 3, left + 3] * right
    total: NDArray[np.int64] = upper * (one - down) + lower * down
    return ((total + (1 << 2 * _FRACTION - 1)) >> 2 * _FRACTION).astype(np.uint8)


def _occlude(image: NDArray[np.int64], draws: list[int]) -> None:
    height, width, _ = image.shape
    low, high = OCCLUDED_PERCENT
    tall, wide = (
        size * (low + draw % (high - low + 1)) // 100 for size, draw in zip((height, width), draws[:2], strict=True)
    )
    top, left = draws[2] % (height - tall + 1), draws[3] % (width - wide + 1)
    image[top : top + tall, left : left + wide] = draws[4] % 256


def near_gaussian(raw: NDArray[np.uint64], sigma: int) -> NDArray[np.int64]:
    """Return whole numbers that are nearly Gaussian about 0, of a standard deviation `sigma`, one of each draw.

    Four 16-bit fields of a draw are added: mean 131070, standard deviation 37837.
    """
    fields = sum((raw >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48))
    return (np.asarray(fields).astype(np.int64) - 131070) * sigma // 37837
