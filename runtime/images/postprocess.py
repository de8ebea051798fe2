"""Postprocessing of a network's output: softmax, top-k classes, class map, non-maximum suppression of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = 1e-3  # how far from 1 the sum of what are taken for probabilities may be


@dataclass(frozen=True)
class Guess:
    """One class: its label, its index, and its probability, 0 to 1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True)
class Box:
    """A box as shares of the image, 0 to 1: the upper left corner (x1, y1), the lower right corner (x2, y2)."""

    x1: float
    y1: float
    x2: float
    y2: float


def softmax(logits: NDArray[Any], axis: int = -1) -> NDArray[np.float32]:
    """Return exp(x) / sum(exp(x)) along an axis, without overflow for large logits; float32."""
    x = logits.astype(np.float32)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    result: NDArray[np.float32] = e / e.sum(axis=axis, keepdims=True)
    return result


def probabilities(values: NDArray[Any], scores: str = "", axis: int = -1) -> NDArray[np.float32]:
    """Return the probability of each class, float32; probabilities are returned unchanged.

    Args:
        values: A network's output.
        scores: "logits" or "probabilities"; with "" values are probabilities if none is negative and they add up to 1
            along the axis, within 1e-3.
        axis: Axis of the classes.
    """
    are_probabilities = scores == "probabilities"
    if not scores and values.size and values.min() >= 0:
        are_probabilities = bool(np.abs(values.sum(axis=axis, dtype=np.float64) - 1).max() <= WHOLE)
    return values.astype(np.float32) if are_probabilities else softmax(values, axis)


def top_k(values: NDArray[Any], k: int, labels: Sequence[str] = (), scores: str = "") -> tuple[Guess, ...]:
    """Return the `k` best classes of one image, best first; ties are ordered by index.

    Args:
        values: A network's output, (classes,).
        k: Number of classes; all if there are fewer.
        labels: A name per class; without labels the index is the name.
        scores: See `probabilities`.
    """
    chances = probabilities(values, scores)
    order = np.argsort(-chances, kind="stable")[:k]
    return tuple(
        Guess(labels[at] if at < len(labels) else str(at), int(at), float(chances[at])) for at in order.tolist()
    )


def class_map(logits: NDArray[Any]) -> NDArray[np.int64]:
    """Return the best class of each pixel, int64 (H, W), from scores (classes, H, W)."""
    best: NDArray[np.int64] = logits.argmax(axis=0)
    return best


def box(values: NDArray[Any]) -> Box:
    """Return the box of a localisation head: centre x, centre y, width, height, as shares of the image, (4,).

    Corners outside the image are clipped to its edge.
    """
    x, y, width, height = (float(value) for value in values)
    edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return Box(*(min(max(edge, 0.0), 1.0) for edge in edges))


def iou(box: NDArray[Any], boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Return intersection over union of one box (4,) with each of (N, 4); boxes are x1, y1, x2, y2.

    Empty boxes have an overlap of 0 with every box, including themselves.
    """
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None).astype(np.float64), axis=1)
    areas = np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).astype(np.float64), axis=1)
    total = areas + float(np.prod(np.clip(box[2:] - box[:2], 0, None).astype(np.float64))) - shared
    overlap: NDArray[np.float64] = np.divide(shared, total, out=np.zeros_like(shared), where=total > 0)
    return overlap


def nms(
    boxes: NDArray[Any], scores: NDArray[Any], threshold: float, classes: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: keep the best box, drop boxes that overlap it too much, repeat.

    Args:
        boxes: (N, 4), x1, y1, x2, y2, in any unit.
        scores: (N,); ties are ordered by index.
        threshold: A box is dropped if its intersection over union with a kept box is greater.
        classes: (N,); if given, only boxes of the same class suppress each other.

    Returns:
        Indices of the kept boxes, best first, int64.

    Raises:
        DataError: The shapes do not match, or a value is NaN or Inf.
    """
    if boxes.shape != (len(scores), 4) or scores.ndim != 1 or (classes is not None and classes.shape != scores.shape):
        raise DataError("boxes and scores do not fit", got=f"{boxes.shape}, {scores.shape}", expected="(N, 4) and (N,)")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError("boxes or scores hold NaN or Inf")
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        drop = iou(boxes[best], boxes[left]) > threshold
        if classes is not None:
            drop &= classes[left] == classes[best]
        left = left[~drop]
    return np.array(kept, dtype=np.int64)
