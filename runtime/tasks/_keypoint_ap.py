"""Average precision of people's keypoints as COCO computes it: object keypoint similarity, thresholds .50 to .95.

Lin et al., «Microsoft COCO», 2014, and `cocoeval.py` of pycocotools, with which a test compares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST = 20  # people of an image that count
# COCO's standard deviations of what annotators agree on, by keypoint from nose to ankles.
COCO_SIGMAS = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
OTHER_SIGMA = 0.05  # where there are not COCO's 17


@dataclass(frozen=True)
class People:
    """The people of one image as annotated: pixels of the image.

    Attributes:
        keypoints: float64 (people, K, 3): x, y, and 0 where a keypoint is not labelled.
        boxes: float64 (people, 4): x1, y1, x2, y2.
        areas: float64 (people,), of the person in pixels.
        crowd: bool (people,): a group, in which any number of answers is neither right nor wrong.
    """

    keypoints: NDArray[np.float64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def sigmas(count: int) -> NDArray[np.float64]:
    """Return the standard deviation of each of some keypoints, as a share of the person's size."""
    return COCO_SIGMAS if count == len(COCO_SIGMAS) else np.full(count, OTHER_SIGMA)


def oks(points: NDArray[Any], people: People) -> NDArray[np.float64]:
    """Return the object keypoint similarity of each answer and each person, float64 (answers, people), 0 to 1.

    Args:
        points: (answers, K, 2) or more columns: x, y.
        people: The annotated people, with as many keypoints.

    Raises:
        DataError: The numbers of keypoints differ.
    """
    if points.shape[1] != people.keypoints.shape[1]:
        got = f"{points.shape[1]} keypoints of the network, {people.keypoints.shape[1]} of the data"
        raise DataError("keypoints cannot be compared", got=got, expected="the same keypoints in the same order")
    x, y = points[:, None, :, 0].astype(np.float64), points[:, None, :, 1].astype(np.float64)
    known = people.keypoints[..., 2] > 0
    away_x, away_y = x - people.keypoints[..., 0], y - people.keypoints[..., 1]
    # Of a person without a labelled keypoint: how far the answer lies outside twice the box.
    low, high = people.boxes[:, None, :2], people.boxes[:, None, 2:]
    low, high = low - (high - low), high + (high - low)
    nobody = ~known.any(axis=1, keepdims=True)
    away_x = np.where(nobody, np.maximum(low[..., 0] - x, 0) + np.maximum(x - high[..., 0], 0), away_x)
    away_y = np.where(nobody, np.maximum(low[..., 1] - y, 0) + np.maximum(y - high[..., 1], 0), away_y)
    variance = (2 * sigmas(points.shape[1])) ** 2
    error = (away_x**2 + away_y**2) / variance / (people.areas[:, None] + np.spacing(1)) / 2
    weights = known | nobody
    total: NDArray[np.float64] = (np.exp(-error) * weights).sum(axis=2) / weights.sum(axis=1)
    return total


def keypoint_ap(answers: Sequence[tuple[NDArray[Any], NDArray[Any]]], truths: Sequence[People]) -> dict[str, float]:
    """Return `ap_ratio`, the mean over the thresholds, and `ap50_ratio`.

    Args:
        answers: For each image the points (answers, K, 2+) in pixels of the image, and the scores (answers,).
        truths: The people of each image.

    Raises:
        DataError: Nobody is annotated, or the numbers of keypoints differ.
    """
    scores, right, countable, positives = [], [], [], 0
    for (points, confidence), people in zip(answers, truths, strict=True):
        order = np.argsort(-confidence, kind="stable")[:MOST]
        ignored = people.crowd | ~(people.keypoints[..., 2] > 0).any(axis=1)
        positives += int((~ignored).sum())
        alike = oks(points[order], people) if len(order) else np.zeros((0, len(ignored)))
        partner = _partners(alike, ignored, people.crowd)
        scores.append(confidence[order])
        right.append(partner >= 0)
        countable.append(~((partner >= 0) & np.append(ignored, False)[partner]))
    if not positives:
        raise DataError("keypoint AP cannot be computed", got="no person with a labelled keypoint")
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits, judged = np.concatenate(right, axis=1)[:, order], np.concatenate(countable, axis=1)[:, order]
    precisions = [_precision(hit & one, ~hit & one, positives) for hit, one in zip(hits, judged, strict=True)]
    return {"ap_ratio": float(np.mean(precisions)), "ap50_ratio": precisions[0]}


def _partners(alike: NDArray[np.float64], ignored: NDArray[np.bool_], crowd: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the person that each answer stands for at each threshold, -1 for none: int64 (thresholds, answers).

    The best answer chooses first; who is not to be judged is chosen only where nobody else is left.
    """
    partner = np.full((len(THRESHOLDS), len(alike)), -1, np.int64)
    for level, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(ignored), bool)
        for answer, row in enumerate(alike):
            for group in (~ignored, ignored):
                able = np.flatnonzero(group & (free | crowd) & (row >= min(threshold, 1 - 1e-10)))
                if len(able):
                    best = able[len(able) - 1 - int(np.argmax(row[able][::-1]))]  # of equal ones the last, as COCO
                    partner[level, answer], free[best] = best, False
                    break
    return partner


def _precision(right: NDArray[np.bool_], wrong: NDArray[np.bool_], positives: int) -> float:
    """Return the mean over RECALLS of the best precision at that recall or a higher one."""
    hits, misses = np.cumsum(right), np.cumsum(wrong)
    precision = hits / (hits + misses + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / positives, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(at, len(precision))].mean())
