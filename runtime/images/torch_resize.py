"""Resizing of uint8 images as `torch.nn.functional.interpolate` does it in float32, rounded, in numpy.

It is what torchvision's `Resize` does to tensors, and kornia, with `align_corners=False`. Six values in 100 000 differ
from torch's by one grey level, where torch's float32 rounds the other way. With antialiasing the filter widens
as the image shrinks; without, two and four pixels a side are read. torch's own uint8 path, which some processors have,
rounds between the two passes, and differs from its float32 by a level in one value of six.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

METHODS = ("torch-bilinear", "torch-bicubic", "torch-bilinear-antialias", "torch-bicubic-antialias")
_HALF, _ONE = np.float32(0.5), np.float32(1)


def resize(image: NDArray[np.uint8], size: tuple[int, int], method: str) -> NDArray[np.uint8]:
    """Resize uint8 (H, W, C) to `size`, (height, width) in pixels; `method` is one of METHODS."""
    values = image.astype(np.float32)
    for axis in (1, 0):
        weights, index = _weights(image.shape[axis], size[axis], method)
        lines = values.swapaxes(0, axis)
        total = lines[index[:, 0]] * weights[:, 0, None, None]
        for tap in range(1, weights.shape[1]):
            total += lines[index[:, tap]] * weights[:, tap, None, None]
        values = total.swapaxes(0, axis)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=32)
def resize_matrix(old: int, new: int, method: str) -> Floats:
    """Return what resizes one axis, float32 (new, old): its product with values along that axis; read-only."""
    weights, index = _weights(old, new, method)
    matrix = np.zeros((new, old), np.float32)
    np.add.at(matrix, (np.arange(new)[:, None], index), weights)
    matrix.flags.writeable = False
    return matrix


@functools.lru_cache(maxsize=32)
def _weights(old: int, new: int, method: str) -> tuple[Floats, NDArray[np.int64]]:
    """Return the weights, float32 (new, taps), and the input pixel of each, int64 (new, taps)."""
    scale = np.float32(old) / np.float32(new)
    centre = scale * (np.arange(new, dtype=np.float32) + _HALF)
    cubic = "bicubic" in method
    if method.endswith("-antialias"):
        return _wide(centre, scale, old, cubic)
    centre = centre - _HALF if cubic else np.maximum(centre - _HALF, 0)
    at = np.minimum(np.floor(centre).astype(np.int64), old - 1)
    share = np.clip(centre - at.astype(np.float32), 0, 1).astype(np.float32)
    if not cubic:
        return np.stack([_ONE - share, share], axis=1), np.minimum(at[:, None] + np.arange(2), old - 1)
    weights = [_cubic(distance, np.float32(-0.75)) for distance in (share + _ONE, share, _ONE - share, 2 - share)]
    return np.stack(weights, axis=1), np.clip(at[:, None] + np.arange(-1, 3), 0, old - 1)


def _wide(centre: Floats, scale: np.float32, old: int, cubic: bool) -> tuple[Floats, NDArray[np.int64]]:
    """Return weights and pixels of a filter that is as wide as the reduction."""
    stretch = max(scale, _ONE)
    support = np.float32(2 if cubic else 1) * stretch
    first = np.maximum((centre - support + _HALF).astype(np.int64), 0)
    last = np.minimum((centre + support + _HALF).astype(np.int64), old)
    position = first[:, None] + np.arange(int((last - first).max()))
    distance = np.abs((position.astype(np.float32) - centre[:, None] + _HALF) * (_ONE / stretch))
    weights: Any = _cubic(distance, np.float32(-0.5)) if cubic else np.maximum(_ONE - distance, 0)
    weights[position >= last[:, None]] = 0
    total = np.zeros(len(centre), np.float32)
    for tap in range(weights.shape[1]):
        total += weights[:, tap]
    return weights / total[:, None], np.minimum(position, old - 1)


def _cubic(x: Floats, a: np.float32) -> Floats:
    """Return Keys' cubic convolution at distances of 0 or more, float32."""
    near = ((a + 2) * x - (a + 3)) * x * x + _ONE
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, np.float32(0))).astype(np.float32)
