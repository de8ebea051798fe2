"""Boxes: corners from other forms, intersection over union, and non-maximum suppression in numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMS = ("xyxy", "yxyx", "xywh", "cxcywh")  # two corners, or a corner or the centre, with width and height
BLOCK = 64  # boxes that are compared with each other at once


def corners(boxes: NDArray[Any], form: str) -> NDArray[np.float64]:
    """Return boxes (N, 4) of a form out of FORMS as x1, y1, x2, y2, float64."""
    boxes = boxes.astype(np.float64)
    if form == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if form == "xyxy":
        return boxes
    low = boxes[:, :2] - boxes[:, 2:] / 2 if form == "cxcywh" else boxes[:, :2]
    return np.concatenate([low, low + boxes[:, 2:]], 1)


def iou(ones: NDArray[Any], others: NDArray[Any]) -> NDArray[np.float64]:
    """Return the intersection over union of each of (M, 4) with each of (N, 4), float64 (M, N); x1, y1, x2, y2.

    Empty boxes have an overlap of 0 with every box, including themselves.
    """
    return _overlaps(_edges(ones), _edges(others))


def _edges(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Return x1, y1, x2, y2 and the area of each box, (5, N)."""
    edges = np.empty((5, len(boxes)))
    edges[:4] = np.asarray(boxes).T
    edges[4] = np.maximum(edges[2] - edges[0], 0) * np.maximum(edges[3] - edges[1], 0)
    return edges


def _overlaps(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    column = ones[..., None]
    shared: NDArray[np.float64] = np.minimum(column[2], others[2])
    shared -= np.maximum(column[0], others[0])
    np.maximum(shared, 0, out=shared)
    height = np.minimum(column[3], others[3])
    height -= np.maximum(column[1], others[1])
    np.maximum(height, 0, out=height)
    shared *= height
    total = column[4] + others[4]
    total -= shared
    total[total <= 0] = 1.0  # then nothing is shared
    shared /= total
    return shared


def nms(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    threshold: float,
    classes: NDArray[Any] | None = None,
    most: int | None = None,
) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: keep the best box, drop boxes that overlap it too much, repeat.

    Args:
        boxes: (N, 4), x1, y1, x2, y2, in any unit.
        scores: (N,); ties are ordered by index.
        threshold: A box is dropped if its intersection over union with a kept box is greater.
        classes: (N,); if given, only boxes of the same class suppress each other.
        most: Stop at so many kept boxes.

    Returns:
        Indices of the kept boxes, best first, int64.

    Raises:
        DataError: The shapes do not match, or a value is NaN or Inf.
    """
    if boxes.shape != (len(scores), 4) or scores.ndim != 1 or (classes is not None and classes.shape != scores.shape):
        raise DataError("boxes and scores do not fit", got=f"{boxes.shape}, {scores.shape}", expected="(N, 4) and (N,)")
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise DataError("boxes or scores hold NaN or Inf")
    order, most = np.argsort(-scores, kind="stable"), len(scores) if most is None else most
    edges = np.empty((6, len(order)))
    edges[:5] = _edges(boxes[order])
    edges[5] = 0 if classes is None else classes[order]
    kept = np.zeros(0, np.int64)  # places in the order
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            clashes = _clashes(edges[:, kept], edges[:, start : start + BLOCK], threshold, classes is not None)
            block = block[~clashes.any(0)]
        kept = np.append(
            kept, block[_greedy(_clashes(edges[:, block], edges[:, block], threshold, classes is not None))]
        )
        if len(kept) >= most:
            break
    return order[kept[:most]]


def _clashes(
    ones: NDArray[np.float64], others: NDArray[np.float64], threshold: float, by_class: bool
) -> NDArray[np.bool_]:
    """Return which of M boxes suppress which of N, bool (M, N); of each the edges, the area and the class."""
    clash: NDArray[np.bool_] = _overlaps(ones, others) > threshold
    if by_class:
        clash &= ones[5][:, None] == others[5]
    return clash


def _greedy(clashes: NDArray[np.bool_]) -> list[int]:
    """Return which boxes of a block are kept, of which the better ones come first; each row is one number of bits."""
    rows = np.packbits(clashes, axis=1, bitorder="little")
    masks = [int.from_bytes(row.tobytes(), "little") for row in rows]
    dropped, kept = 0, []
    for at, mask in enumerate(masks):
        if not dropped >> at & 1:
            kept.append(at)
            dropped |= mask
    return kept
