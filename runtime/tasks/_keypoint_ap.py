"""Object keypoint similarity (Lin et al., «Microsoft COCO», 2014), and the average precision of keypoints by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ._base import Score
from ._coco import average_precision, box_records

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
    _check(points, people)
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


def keypoint_ap(answers: Sequence[tuple[NDArray[Any], NDArray[Any]]], truths: Sequence[Any]) -> Score:
    """Return COCO's metrics of keypoints: `oks_ap_ratio` over the similarities .50 to .95, and others.

    Args:
        answers: For each image the points (answers, K, 2+) in pixels of the image, and the scores (answers,).
        truths: For each image what `People` has.

    Raises:
        DataError: Nobody is annotated, or the numbers of keypoints differ.
        NotAvailable: faster-coco-eval is not installed.
    """
    images, known, objects = [], [], []
    for number, ((points, scores), people) in enumerate(zip(answers, truths, strict=True), 1):
        images.append({"id": number})
        _check(points, people)
        person = zip(box_records(number, people.boxes, np.zeros(len(people.boxes), np.int64)), people.keypoints,
                     people.areas.tolist(), people.crowd.tolist(), strict=True)  # fmt: skip
        known += [{**one, "keypoints": flat.ravel().tolist(), "num_keypoints": int((flat[:, 2] > 0).sum()),
                   "area": area, "iscrowd": int(crowd)} for one, flat, area, crowd in person]  # fmt: skip
        objects += [{"image_id": number, "category_id": 1, "score": score,
                     "keypoints": np.insert(flat[:, :2], 2, 1, axis=1).ravel().tolist()}
                    for flat, score in zip(points, scores.tolist(), strict=True)]  # fmt: skip
    if not any(one["num_keypoints"] and not one["iscrowd"] for one in known):
        raise DataError("keypoint AP cannot be computed", got="no person with a labelled keypoint")
    deviations = sigmas(len(known[0]["keypoints"]) // 3)
    return average_precision(images, known, objects, range(1), "keypoints", kpt_oks_sigmas=deviations)


def _check(points: NDArray[Any], people: Any) -> None:
    if len(points) and points.shape[1] != people.keypoints.shape[1]:
        got = f"{points.shape[1]} keypoints of the network, {people.keypoints.shape[1]} of the data"
        raise DataError("keypoints cannot be compared", got=got, expected="the same keypoints in the same order")
