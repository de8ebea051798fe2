"""Resizing in numpy: with antialiasing, bit-exact with Pillow 13 (and torchvision on Pillow images); others by name.

OpenCV's and torch's methods are in `opencv_resize.py` and `torch_resize.py`. Of Pillow's, each output pixel is a
weighted mean of the input pixels under a filter whose width grows with the reduction; weights are rounded to 22
fractional bits, and the image is rounded to 8 bits between the two passes. The horizontal pass is first, unless the
height shrinks by more than twice as many pixels as the width. (Before version 13 it was always first, which differs by
at most one grey level for bilinear.)
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from . import opencv_resize, torch_resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 22


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution with a = -0.5."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


def _box(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0), "lanczos": (_lanczos, 3.0), "box": (_box, 0.5)}
PILLOW = ("nearest", *FILTERS)
INTERPOLATIONS = (*PILLOW, *opencv_resize.METHODS, *torch_resize.METHODS)


def resize(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Resize uint8 (H, W, C) to `size`, (height, width) in pixels; `interpolation` is one of INTERPOLATIONS."""
    if interpolation in opencv_resize.METHODS:
        return opencv_resize.resize(image, size, interpolation)
    if interpolation in torch_resize.METHODS:
        return torch_resize.resize(image, size, interpolation)
    height, width = size
    if interpolation == "nearest":
        rows, columns = (_nearest(old, new) for old, new in zip(image.shape, size, strict=False))
        return image[rows][:, columns]
    vertical_first = image.shape[0] - height > 2 * max(image.shape[1] - width, 0)
    for axis in (0, 1) if vertical_first else (1, 0):
        if size[axis] != image.shape[axis]:
            image = _pass(image.swapaxes(0, axis), size[axis], interpolation).swapaxes(0, axis)
    return image


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Pillow accumulates the step from pixel to pixel with rounding; `cumsum` does the same."""
    steps = np.full(new, old / new)
    steps[0] /= 2
    return np.minimum(np.cumsum(steps).astype(np.int64), old - 1)


def _pass(image: NDArray[np.uint8], new: int, interpolation: str) -> NDArray[np.uint8]:
    """Resize the first axis; sums are exact, since integers below 2**53 are exact in float64."""
    weights, index = _weights(image.shape[0], new, interpolation)
    total = np.full((new, *image.shape[1:]), float(1 << (_BITS - 1)))
    for tap in range(weights.shape[1]):
        total += weights[:, tap, None, None] * image[index[:, tap]]
    return np.clip(np.floor(total / (1 << _BITS)), 0, 255).astype(np.uint8)


@functools.lru_cache(maxsize=32)
def _weights(old: int, new: int, interpolation: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the integer weights, float64 (new, taps), and the input pixel of each, int64 (new, taps)."""
    function, support = FILTERS[interpolation]
    scale = old / new
    stretch = max(scale, 1.0)
    centre = (np.arange(new) + 0.5) * scale
    first = np.maximum((centre - support * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support * stretch + 0.5).astype(np.int64), old)
    taps = np.arange(int((last - first).max()))
    position = first[:, None] + taps
    weights = function((position - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[position >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    rounded = np.trunc(weights * (1 << _BITS) + np.where(weights < 0, -0.5, 0.5))
    return rounded, np.minimum(position, old - 1)
