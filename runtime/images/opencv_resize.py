"""Resizing of uint8 images as OpenCV's own code does it, in numpy: INTER_LINEAR, INTER_AREA and INTER_CUBIC.

Linear and area are bit-exact with OpenCV 4 and 5. Cubic is OpenCV's fixed-point code within one grey level (4 values in
100 000 differ, the last ones of a row); where OpenCV 5 hands cubic to Intel's IPP, one value in twenty differs by one
level. There is no antialiasing: linear and cubic read two and four pixels a side, however much the image shrinks.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Taps = list[tuple["NDArray[np.int64]", "NDArray[Any]"]]  # for each tap: the input pixel and the weight of each output
METHODS = ("opencv-linear", "opencv-area", "opencv-cubic")
_ONE = np.float32(2048)  # a weight of 1 in fixed point
_A = np.float32(-0.75)  # of Keys' cubic convolution
_LEAST = 1e-3  # share of a pixel that INTER_AREA leaves out


def resize(image: NDArray[np.uint8], size: tuple[int, int], method: str) -> NDArray[np.uint8]:
    """Resize uint8 (H, W, C) to `size`, (height, width) in pixels; `method` is one of METHODS."""
    shape = (image.shape[0], image.shape[1])
    steps = tuple(old // new if old % new == 0 else 0 for old, new in zip(shape, size, strict=True))
    shrinks = shape[0] >= size[0] and shape[1] >= size[1]
    if method == "opencv-cubic":
        return _cubic(image, size)
    if all(steps) and (method == "opencv-area" or steps == (2, 2)):
        return _mean(image, size, steps)
    return _area(image, size) if method == "opencv-area" and shrinks else _linear(image, size, method == "opencv-area")


def _linear(image: NDArray[np.uint8], size: tuple[int, int], area: bool) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    at, share = _positions(width, size[1], area)
    share[(at < 0) | (at >= width - 1)] = 0
    row, below = _positions(height, size[0], area)
    columns = [(np.clip(at + tap, 0, width - 1), _fixed(weight)) for tap, weight in enumerate((1 - share, share))]
    total = np.full((*size, image.shape[2]), 2, np.int32)
    for tap, weight in enumerate((1 - below, below)):
        across = _sum(image[np.clip(row + tap, 0, height - 1)].swapaxes(0, 1), columns, np.int32).swapaxes(0, 1)
        total += (_fixed(weight)[:, None, None] * (across >> 4)) >> 16
    return (total >> 2).astype(np.uint8)


def _cubic(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Sum across in integers, then down in float32 with fused steps, as the vector code does."""
    across, down = _cubic_taps(image.shape[1], size[1]), _cubic_taps(image.shape[0], size[0])
    sums = _sum(image.swapaxes(0, 1), across, np.int32).swapaxes(0, 1).astype(np.float64)
    total = np.zeros((*size, image.shape[2]), np.float32)
    for index, weight in reversed(down):
        total = (sums[index] * (weight / float(_ONE) ** 2)[:, None, None] + total).astype(np.float32)
    return _rounded(total)


def _mean(image: NDArray[np.uint8], size: tuple[int, int], steps: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the mean of whole blocks; of 2 by 2 pixels half is rounded up, of others to even."""
    blocks = image.reshape(size[0], steps[0], size[1], steps[1], -1)
    total: NDArray[np.int64] = blocks.sum(axis=(1, 3), dtype=np.int64)
    if steps == (2, 2):
        return ((total + 2) >> 2).astype(np.uint8)
    return _rounded(total.astype(np.float32) * np.float32(1 / (steps[0] * steps[1])))


def _area(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    across = _sum(image.swapaxes(0, 1), _shares(image.shape[1], size[1]), np.float32).swapaxes(0, 1)
    return _rounded(_sum(across, _shares(image.shape[0], size[0]), np.float32))


def _sum(values: NDArray[Any], taps: Taps, dtype: Any) -> NDArray[Any]:
    """Return the weighted sums along the first axis, added tap by tap."""
    total = np.zeros((len(taps[0][0]), *values.shape[1:]), dtype)
    for index, weight in taps:
        total += values[index].astype(dtype) * weight.astype(dtype)[:, None, None]
    return total


def _rounded(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _fixed(weight: NDArray[np.float32]) -> NDArray[np.int32]:
    rounded: NDArray[np.int32] = np.rint(weight * _ONE).astype(np.int32)
    return rounded


def _positions(old: int, new: int, area: bool = False) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each output pixel the input pixel to its left, and its distance from that, 0 to 1.

    Where INTER_AREA enlarges (`area`), only outputs that straddle two input pixels mix them.
    """
    scale = 1 / (new / old)
    if area:
        at = np.floor(np.arange(new) * scale).astype(np.int64)
        over = ((np.arange(new) + 1) - (at + 1) * (new / old)).astype(np.float32)
        return at, np.where(over <= 0, np.float32(0), over - np.floor(over))
    centre = ((np.arange(new) + 0.5) * scale - 0.5).astype(np.float32)
    at = np.floor(centre).astype(np.int64)
    return at, (centre - at).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _cubic_taps(old: int, new: int) -> Taps:
    at, x = _positions(old, new)
    one = np.float32(1)
    far = ((_A * (x + one) - 5 * _A) * (x + one) + 8 * _A) * (x + one) - 4 * _A
    near, next_ = (((_A + 2) * side - (_A + 3)) * side * side + one for side in (x, one - x))
    weights = (far, near, next_, one - far - near - next_)
    return [(np.clip(at + tap - 1, 0, old - 1), _fixed(weight)) for tap, weight in enumerate(weights)]


@functools.lru_cache(maxsize=32)
def _shares(old: int, new: int) -> Taps:
    """Return how much of each input pixel lies in each output pixel, in shares of the output pixel."""
    scale = 1 / (new / old)
    start = np.arange(new) * scale
    end, width = start + scale, np.minimum(scale, old - start)
    last = np.minimum(np.floor(end).astype(np.int64), old - 1)
    first = np.minimum(np.ceil(start).astype(np.int64), last)
    before = np.where(first - start > _LEAST, (first - start) / width, 0)
    after = np.where(end - last > _LEAST, np.minimum(np.minimum(end - last, 1.0), width) / width, 0)
    taps = [(np.maximum(first - 1, 0), before)]
    for tap in range(int((last - first).max())):
        taps.append((np.minimum(first + tap, old - 1), np.where(first + tap < last, 1 / width, 0)))
    return [(index, weight.astype(np.float32)) for index, weight in (*taps, (last, after))]
