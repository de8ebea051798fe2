"""Postprocessing of a network's output: softmax, top-k classes, class map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
