"""The tasks' formulas against loops in float64, and against figures of scikit-learn and scikit-image."""

import math

import numpy as np
import pytest

from edgesmith.runtime.errors import DataError
from edgesmith.runtime.tasks import _formulas as formulas
from edgesmith.runtime.tasks import _image_quality as quality


def looped_ious(truth, answer, classes):
    """Each class's IoU, pixel by pixel."""
    ious = []
    for one in range(classes):
        both = union = 0
        for true, guess in zip(truth.ravel().tolist(), answer.ravel().tolist(), strict=True):
            if true == formulas.IGNORED:
                continue
            both += true == one and guess == one
            union += true == one or guess == one
        ious.append(both / union if union else math.nan)
    return ious


@pytest.mark.parametrize("seed", range(4))
def test_iou_is_that_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    truth, answer = rng.integers(0, 4, (9, 7)), rng.integers(-1, 4, (9, 7))
    truth[rng.random(truth.shape) < 0.2] = formulas.IGNORED
    ious = formulas.class_ious(formulas.confusion(truth, answer, 5))
    np.testing.assert_allclose(ious, looped_ious(truth, answer, 5), rtol=1e-12)
    assert math.isnan(ious[4])  # in no mask and no answer


def test_pixels_that_the_network_did_not_see_are_missed():
    truth = np.array([[0, 0], [1, 1]])
    counts = formulas.confusion(truth, np.array([[0, -1], [1, 1]]), 2)
    assert formulas.class_ious(counts).tolist() == [0.5, 1.0]


@pytest.mark.parametrize("truth", [np.array([[0, 2]]), np.array([[0, -1]]), np.array([[0, 1, 1]])])
def test_a_mask_that_does_not_fit_is_refused(truth):
    with pytest.raises(DataError, match="mask"):
        formulas.confusion(truth, np.array([[0, 1]]), 2)


WORDS = {
    ("kitten", "sitting"): 3, ("", "abc"): 3, ("abc", ""): 3, ("abc", "abc"): 0, ("flaw", "lawn"): 2, ("é", "e"): 1,
}  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
def test_edit_distance(words):
    assert formulas.edit_distance(*words) == formulas.edit_distance(*words[::-1]) == WORDS[words]


def test_average_precision_and_the_area_below_roc_are_those_of_scikit_learn():
    """scikit-learn 1.9 on the same draws: `average_precision_score`, `roc_auc_score`, `r2_score`; with equal scores."""
    rng = np.random.default_rng(8)
    scores, truth = rng.integers(0, 12, 40) / 12, rng.random(40) < 0.3
    assert formulas.average_precision(scores, truth) == pytest.approx(0.3444632290786137, abs=1e-12)
    assert formulas.roc_area(scores, truth) == pytest.approx(0.51994301994302, abs=1e-12)
    truths = rng.standard_normal((30, 2))
    answers = truths + 0.5 * rng.standard_normal((30, 2))
    assert formulas.determination(answers, truths) == pytest.approx(0.6871345767756567, abs=1e-12)
    assert formulas.determination(truths[::-1], truths) < 0.1  # wrong answers explain nothing


def test_nothing_is_explained_where_nothing_varies():
    assert formulas.determination(np.zeros((3, 1)), np.ones((3, 1))) is None


def test_a_perfect_and_a_reversed_order():
    truth = np.array([True, True, False, False])
    assert formulas.average_precision(np.array([4, 3, 2, 1]), truth) == 1.0
    assert formulas.roc_area(np.array([4, 3, 2, 1]), truth) == 1.0
    assert formulas.roc_area(np.array([1, 2, 3, 4]), truth) == 0.0


@pytest.mark.parametrize("seed", range(6))
def test_verification_takes_the_best_threshold(seed):
    rng = np.random.default_rng(seed)
    similarity, same = rng.integers(0, 8, 20) / 8, rng.random(20) < 0.5
    share, threshold = formulas.verification_accuracy(similarity, same)
    cuts = [-9.0, *similarity.tolist(), 9.0]
    assert share == pytest.approx(max(np.mean((similarity >= cut) == same) for cut in cuts))
    assert np.mean((similarity >= threshold) == same) == pytest.approx(share)


def test_recall_at_1_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    vectors, classes = rng.standard_normal((20, 6)), rng.integers(0, 5, 20)
    classes[0] = 99  # alone: not asked
    hits = []
    for at in range(1, 20):
        others = [other for other in range(20) if other != at]
        best = max(others, key=lambda other: float(formulas.cosine(vectors[at], vectors[other])))
        if (classes == classes[at]).sum() > 1:
            hits.append(classes[best] == classes[at])
    each = np.arange(20)
    assert formulas.recall_at_1(vectors, classes, each) == pytest.approx(np.mean(hits))
    assert formulas.recall_at_1(vectors, each, each) is None
    assert formulas.recall_at_1(np.eye(4)[[0, 0, 1, 1]], np.array([0, 0, 1, 1]), each[:4]) == 1.0
    assert formulas.recall_at_1(np.eye(4)[[0, 1, 0, 1]], np.array([0, 0, 1, 1]), each[:4]) == 0.0


def test_a_copy_of_an_image_is_no_other_one():
    """Twice the same four vectors: the nearest is always the copy, which must not count."""
    vectors, classes = np.tile([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], (2, 1)), np.tile([0, 0, 1, 1], 2)
    assert formulas.recall_at_1(vectors, classes, np.arange(8)) == 1.0
    assert formulas.recall_at_1(vectors, classes, np.tile(np.arange(4), 2)) == 0.0
    assert formulas.recall_at_1(vectors, np.tile(np.arange(4), 2), np.tile(np.arange(4), 2)) is None


def test_cosine_of_nothing_is_nothing():
    assert formulas.cosine(np.zeros(3), np.ones(3)) == 0.0
    assert formulas.cosine(np.array([2.0, 0]), np.array([-3.0, 0])) == -1.0
    assert np.linalg.norm(formulas.unit(np.array([3.0, 4.0]))) == 1.0


def test_the_relative_error_of_two_depths():
    assert formulas.abs_rel(np.array([1.0, 5.0]), np.array([2.0, 4.0])) == pytest.approx((0.5 + 0.25) / 2)


def pair():
    rng = np.random.default_rng(7)
    one = rng.integers(0, 256, (3, 40, 52)).astype(np.uint8)
    return one, np.clip(one.astype(int) + rng.integers(-30, 31, one.shape), 0, 255).astype(np.uint8)


def test_ssim_and_psnr_are_those_of_scikit_image():
    """scikit-image 0.26 on the same draws: Gaussian weights, sigma 1.5, no sample covariance."""
    one, two = pair()
    assert quality.ssim(one, two, 255) == pytest.approx(0.9723694272765866, abs=1e-12)
    assert quality.ssim(one[0], two[0], 255) == pytest.approx(0.9726842311128499, abs=1e-12)
    assert quality.psnr_db(one, two, 255) == pytest.approx(23.461954006256644, abs=1e-12)
    assert (quality.ssim(one, one, 255), quality.psnr_db(one, one, 255)) == (pytest.approx(1.0), math.inf)


def test_ssim_is_that_of_a_loop():
    """Wang et al. 2004, formulas 14 to 16, window by window."""
    one, two = (image[0, :14, :13].astype(np.float64) / 255 for image in pair())
    distance = np.add.outer((np.arange(11) - 5) ** 2, (np.arange(11) - 5) ** 2)
    weights = np.exp(-distance / (2 * 1.5**2))
    weights /= weights.sum()
    places = []
    for top in range(4):
        for left in range(3):
            x, y = (image[top : top + 11, left : left + 11] for image in (one, two))
            mx, my = (weights * x).sum(), (weights * y).sum()
            vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
            cov = (weights * (x - mx) * (y - my)).sum()
            c1, c2 = 0.01**2, 0.03**2
            places.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2)))
    assert quality.ssim(one, two) == pytest.approx(np.mean(places), abs=1e-9)
    assert quality.ssim(one, two[::-1]) < 0.5  # another image is unlike


@pytest.mark.parametrize("shapes", [((3, 20, 20), (3, 20, 21)), ((8, 8), (8, 8)), ((30,), (30,))])
def test_images_that_cannot_be_compared_are_refused(shapes):
    with pytest.raises(DataError, match="SSIM cannot|cannot be compared"):
        quality.ssim(*(np.zeros(shape) for shape in shapes))
