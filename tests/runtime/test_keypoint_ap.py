"""AP of keypoints against the figures of pycocotools 2.0.11 on the same people and answers."""

import numpy as np
import pytest

from edgesmith.runtime.errors import DataError
from edgesmith.runtime.tasks._keypoint_ap import People, keypoint_ap, oks


def draws(seed):
    """Answers and people of six images: hidden keypoints, nobody labelled, crowds, equal scores, extra answers."""
    rng = np.random.default_rng(seed)
    answers, truths = [], []
    for _ in range(6):
        count = int(rng.integers(1, 5))
        corner, size = rng.integers(0, 300, (count, 1, 2)), rng.integers(40, 200, (count, 1, 2))
        points = corner + rng.random((count, 17, 2)) * size
        seen = rng.random((count, 17)) < 0.7
        seen[rng.random(count) < 0.2] = False
        keypoints = np.dstack([points * seen[..., None], 2 * seen])
        boxes = np.hstack([corner[:, 0], (corner + size)[:, 0]])
        truths.append(People(keypoints, boxes, size.prod(axis=2)[:, 0] * 0.6, rng.random(count) < 0.15))
        copies = rng.integers(0, count, count + 2)
        noise = rng.standard_normal((count + 2, 17, 2)) * rng.choice([1, 5, 20], (count + 2, 1, 1))
        answers.append((points[copies] + noise, rng.integers(1, 20, count + 2) / 20))
    return answers, truths


# (AP, AP50) of `COCOeval(…, "keypoints")`
PYCOCOTOOLS = [
    (0.43441129827268443, 0.5808580858085809), (0.1980654988575781, 0.2552322924600153),
    (0.1698064806480648, 0.3564356435643564), (0.49558707793856316, 0.5611830413810611),
    (0.22301399967582966, 0.3143159143500557),
]  # fmt: skip


@pytest.mark.parametrize("seed", range(len(PYCOCOTOOLS)))
def test_ap_is_that_of_pycocotools(seed):
    figures = keypoint_ap(*draws(seed)).values
    assert (figures["oks_ap_ratio"], figures["oks_ap50_ratio"]) == pytest.approx(PYCOCOTOOLS[seed], abs=1e-9)


def person(x=10.0, count=17):
    points = np.stack([np.full(count, x), np.arange(count) * 5.0, np.full(count, 2.0)], axis=1)[None]
    return People(points, np.array([[0.0, 0, 80, 80]]), np.array([4000.0]), np.zeros(1, bool))


def test_similarity_falls_with_the_distance():
    """exp(-d² / (2 · area · (2σ)²)): at the nose, σ = 0.026, one keypoint."""
    one = person()
    one.keypoints[0, 1:, 2] = 0
    answer = one.keypoints[..., :2] + [3.0, 4.0]
    assert oks(answer, one)[0, 0] == pytest.approx(np.exp(-25 / (2 * 4000 * (2 * 0.026) ** 2)))


def test_the_right_answer_is_right_and_a_wrong_one_wrong():
    truth = person()
    one = np.array([0.9])
    assert keypoint_ap([(truth.keypoints, one)], [truth]).values["oks_ap_ratio"] == pytest.approx(1.0)
    assert keypoint_ap([(truth.keypoints + 400, one)], [truth]).values["oks_ap_ratio"] == 0.0
    assert keypoint_ap([(np.zeros((0, 17, 3)), np.zeros(0))], [truth]).values["oks_ap_ratio"] == 0.0


def test_what_cannot_be_judged_is_refused():
    with pytest.raises(DataError, match=r"4 keypoints of the network, 17 of the data"):
        keypoint_ap([(np.zeros((1, 4, 3)), np.ones(1))], [person()])
    nobody = person()
    nobody.keypoints[..., 2] = 0
    with pytest.raises(DataError, match="no person with a labelled keypoint"):
        keypoint_ap([(nobody.keypoints, np.ones(1))], [nobody])
