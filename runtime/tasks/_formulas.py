"""Formulas of the tasks' metrics, each with its source; plain arrays in, plain numbers out, float64 inside."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = 255  # the value of a mask's pixels that nobody judges, as in PASCAL VOC and Cityscapes
UNSEEN = -1  # the class of a pixel that the network did not see, because it was cropped


def confusion(truth: NDArray[Any], answer: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Return how many pixels of each true class got each class, int64 (classes, classes + 1); the last one is UNSEEN.

    Args:
        truth: Class of each pixel, 0 to classes - 1, or IGNORED; any shape.
        answer: The network's class of each pixel, or UNSEEN; the same shape.
        classes: Number of classes.

    Raises:
        DataError: The shapes differ, or the truth has a class that is not one.
    """
    if truth.shape != answer.shape:
        raise DataError("a mask and an answer have different sizes", got=str(answer.shape), expected=str(truth.shape))
    judged = truth != IGNORED
    true, guess = truth[judged].astype(np.int64), answer[judged].astype(np.int64)
    if true.size and not 0 <= true.min() <= true.max() < classes:
        expected = f"0 to {classes - 1}, or {IGNORED} where nobody judges"
        raise DataError("a mask has a class that the network has not", got=f"{true.min()} to {true.max()}",
                        expected=expected)  # fmt: skip
    cells = true * (classes + 1) + np.where(guess == UNSEEN, classes, guess)
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def class_ious(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each class's intersection over union from `confusion`; NaN for a class that is in no mask and no answer.

    Everingham et al., «The PASCAL Visual Object Classes Challenge», 2010: true / (true + false + missed pixels), over
    all images together. Their mean over the classes is the mIoU.
    """
    right = np.diagonal(counts).astype(np.float64)
    union = counts.sum(axis=1) + counts[:, :-1].sum(axis=0) - right
    ious: NDArray[np.float64] = np.divide(right, union, out=np.full(len(counts), np.nan), where=union > 0)
    return ious


def edit_distance(one: str, two: str) -> int:
    """Return how many characters to insert, delete or replace make two of one (Levenshtein, 1966)."""
    row = list(range(len(two) + 1))
    for at, char in enumerate(one, 1):
        left, row[0] = row[0], at
        for place, other in enumerate(two, 1):
            left, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, left + (char != other))
    return row[-1]


def average_precision(scores: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Return the area below the steps of precision over recall, as scikit-learn's `average_precision_score`.

    Args:
        scores: (N,); equal scores are one step.
        truth: Which of the N are positive, bool; at least one.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    hits = np.cumsum(truth[order])[ends]
    return float((np.diff(hits, prepend=0) / hits[-1] * hits / (ends + 1)).sum())


def roc_area(scores: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Return the share of (positive, negative) pairs whose positive scores higher, ties half (Hanley & McNeil, 1982).

    Args:
        scores: (N,).
        truth: Which of the N are positive, bool; some are and some are not.
    """
    negatives = np.sort(scores[~truth])
    below, at_most = (np.searchsorted(negatives, scores[truth], side) for side in ("left", "right"))
    return float((below + at_most).mean() / (2 * len(negatives)))


def determination(answers: NDArray[Any], truths: NDArray[Any]) -> float | None:
    """Return R² = 1 - residual / total sum of squares, the mean over the columns of (N, columns).

    None if a column's truths are all equal: there is nothing to explain.
    """
    residual = np.square(truths.astype(np.float64) - answers).sum(axis=0)
    total = np.square(truths.astype(np.float64) - truths.mean(axis=0, dtype=np.float64)).sum(axis=0)
    return None if (total == 0).any() else float((1 - residual / total).mean())


def unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Return vectors (..., D) of length 1; a vector of zeros stays one."""
    values = vectors.astype(np.float64)
    length = np.linalg.norm(values, axis=-1, keepdims=True)
    result: NDArray[np.float64] = np.divide(values, length, out=np.zeros_like(values), where=length > 0)
    return result


def cosine(one: NDArray[Any], two: NDArray[Any]) -> NDArray[np.float64]:
    """Return the cosine of the angle between the vectors of two arrays (..., D), float64 (...), -1 to 1."""
    product: NDArray[np.float64] = np.clip((unit(one) * unit(two)).sum(axis=-1), -1, 1)
    return product


def verification_accuracy(similarity: NDArray[Any], same: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the share of pairs that the best threshold tells right, and that threshold: `same` if it is reached.

    Args:
        similarity: (pairs,), larger is more alike.
        same: Which pairs show the same thing, bool (pairs,).
    """
    order = np.argsort(-similarity, kind="stable")
    values, truth = similarity[order], same[order]
    right = np.concatenate([[0], np.cumsum(truth)]) + (~truth).sum() - np.concatenate([[0], np.cumsum(~truth)])
    ends = np.append(np.flatnonzero(np.append(values[:-1] != values[1:], True)) + 1, 0)  # only between unequal values
    best = int(ends[np.argmax(right[ends])])
    return float(right[best] / len(same)), float(values[best - 1]) if best else float(np.nextafter(values[0], np.inf))


def recall_at_1(vectors: NDArray[Any], classes: NDArray[Any], sources: NDArray[Any]) -> float | None:
    """Return the share of vectors (N, D) whose nearest other one, by cosine, is of the same class.

    Musgrave et al., «A Metric Learning Reality Check», 2020: precision at 1. Others are those of another source: the
    hard split has several copies of an image. Vectors whose class has no other one are not judged; None if that leaves
    none.
    """
    alike = unit(vectors) @ unit(vectors).T
    alike[sources[:, None] == sources] = -np.inf
    pairs = {(one, source) for one, source in zip(classes.tolist(), sources.tolist(), strict=True)}
    counts = collections.Counter(one for one, _ in pairs)
    judged = np.array([counts[one] > 1 for one in classes.tolist()], bool)
    return float((classes[alike.argmax(axis=1)] == classes)[judged].mean()) if judged.any() else None


def abs_rel(depth: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return mean(|depth - truth| / truth) over pixels whose truth is above 0 (Eigen et al., 2014)."""
    return float((np.abs(depth - truth.astype(np.float64)) / truth).mean())
