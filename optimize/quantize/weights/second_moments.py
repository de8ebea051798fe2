"""What a layer reads in the quantised network, as second moments: all that fitting and rounding its weights needs.

For a layer y = W x, with x^ what the quantised network feeds it and y what the float network answers, both centred:

    gram   H = E[x^ x^T]                 (G, d, d)
    cross  C = E[x^ (y - W x^)^T]        (G, d, m)

G groups of d inputs (channels times taps) and m outputs each. The memory does not grow with the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Most float32 elements of the matrix of patches, and most positions.
ELEMENTS, PLACES = 1 << 23, 1 << 13
# Beyond this many inputs to one output (3x3 over 128 channels) the matrices take too long and too much memory.
WIDEST = 1152


@dataclass(frozen=True)
class Moments:
    """Second moments of `count` positions; `error` is E|y - W x^|^2 summed over outputs."""

    gram: np.ndarray
    cross: np.ndarray
    error: float
    count: int

    def loss(self, change: np.ndarray) -> float:
        """Return E|y - (W + D) x^|^2 summed over outputs for a change D of the weights, (G, m, d)."""
        transpose = change.transpose(0, 2, 1)
        return self.error + float((transpose * (self.gram @ transpose - 2 * self.cross)).sum())


def merge(one: Moments, two: Moments) -> Moments:
    """Return the moments of both sets of positions."""
    count = one.count + two.count
    first, second = one.count / count, two.count / count
    return Moments(
        first * one.gram + second * two.gram,
        first * one.cross + second * two.cross,
        first * one.error + second * two.error,
        count,
    )


def measure(
    value: np.ndarray, answer: np.ndarray, weight: np.ndarray, values: dict[str, Any]
) -> tuple[Moments, Moments]:
    """Return the moments for fitting and those for judging.

    Args:
        value: What the quantised layer reads, (N, C, H, W) or (N, K); a convolution may have one to three dimensions.
        answer: What the float layer answers on its own input, (N, M, H', W') or (N, M).
        weight: The float weights, (M, C/G, kH, kW) or (M, K).
        values: The node's attributes.
    """
    groups = values.get("group", 1) if weight.ndim > 2 else 1
    images, *place = sample_positions(answer, weight.size // len(weight) * groups)
    rows = patches(value, weight.shape[2:], values, images, *place) if weight.ndim > 2 else value[images]
    rows = np.ascontiguousarray(rows.reshape(len(images), groups, -1).transpose(1, 0, 2))
    where: tuple[Any, ...] = (images, slice(None), *place) if weight.ndim > 2 else (images,)
    target = answer[where]
    target = target.reshape(len(images), groups, -1).transpose(1, 0, 2)
    rows = rows - rows.mean(axis=1, keepdims=True)
    residual = target - rows @ weight.reshape(groups, len(weight) // groups, -1).transpose(0, 2, 1)
    residual -= residual.mean(axis=1, keepdims=True)
    judge = (images + images // 2) % 4 == 3  # a quarter of the images, even and odd ones
    if not judge.any():
        judge = np.arange(len(images)) % 4 == 3
    return _moments(rows[:, ~judge], residual[:, ~judge]), _moments(rows[:, judge], residual[:, judge])


def _moments(rows: np.ndarray, residual: np.ndarray) -> Moments:
    count, transpose = max(rows.shape[1], 1), rows.transpose(0, 2, 1)
    gram, cross = (np.asarray(transpose @ other / count, np.float64) for other in (rows, residual))
    return Moments(gram, cross, float(np.square(residual, dtype=np.float64).sum() / count), count)


def sample_positions(answer: np.ndarray, width: int) -> tuple[np.ndarray, ...]:
    """Return (image, row, column, …) of output positions, or (image,): all of them, or a seeded draw of what fits."""
    sizes = (len(answer), *answer.shape[2:])
    total, most = int(np.prod(sizes)), min(PLACES, max(256, ELEMENTS // width))
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(0).choice(total, most, replace=False))
    return tuple(np.unravel_index(chosen, sizes))


def patches(
    value: np.ndarray, kernel: tuple[int, ...], values: dict[str, Any], image: np.ndarray, *place: np.ndarray
) -> np.ndarray:
    """Return what a convolution over one, two or three dimensions reads at some output positions, (P, C, taps)."""
    rank = len(kernel)
    pads = values.get("pads", [0] * 2 * rank)
    strides, dilations = (values.get(key, [1] * rank) for key in ("strides", "dilations"))
    padded = np.pad(value, ((0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True))) if any(pads) else value
    starts = [at * stride for at, stride in zip(place, strides, strict=True)]
    taps = []
    for tap in np.ndindex(*kernel):
        where = (start + at * far for start, at, far in zip(starts, tap, dilations, strict=True))
        taps.append(padded[(image, slice(None), *where)])
    return np.stack(taps, axis=2) if len(taps) > 1 else taps[0][:, :, None]
