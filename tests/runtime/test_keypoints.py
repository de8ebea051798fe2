"""Keypoints: heatmaps and rows of YOLO-pose, back in the image, judged by OKS, drawn with limbs."""

import dataclasses

import numpy as np
import pytest

from edgesmith.runtime import tasks
from edgesmith.runtime.answer import Answer
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.tasks._keypoint_ap import People

KEYPOINTS = tasks.find("keypoints")
# x, y of COCO's 17 keypoints of a standing person in an input of 128 pixels, y in 192.
PERSON = np.array([
    (64, 30), (68, 26), (60, 26), (74, 30), (54, 30), (84, 54), (44, 54), (94, 84), (34, 84), (98, 110), (30, 110),
    (78, 110), (50, 110), (80, 144), (48, 144), (82, 176), (46, 176),
], np.float64)  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Truth(People):
    size: tuple = (192, 128)


def truth_of(*people, size=(192, 128), scale=1.0):
    points = np.stack([np.column_stack([one * scale, np.full(17, 2.0)]) for one in people])
    low, high = points[..., :2].min(axis=1), points[..., :2].max(axis=1)
    return Truth(points, np.hstack([low, high]), (high - low).prod(axis=1), np.zeros(len(people), bool), size)


def context(**settings):
    preprocess = Preprocess(crop=(192, 128), resize=0, **settings)
    return ModelSpec("pose", (3, 192, 128), 1, "keypoints", preprocess=preprocess).context()


def heatmaps(points, stride=4):
    """Gaussians of two cells, as HRNet's targets: float32 (17, 48, 32)."""
    y, x = np.mgrid[: 192 // stride, : 128 // stride]
    return np.stack([np.exp(-((x - px / stride) ** 2 + (y - py / stride) ** 2) / 8) for px, py in points]).astype(
        np.float32
    )


def rows(people, scores, each=3):
    """Rows of YOLO-pose (5 + 17·d, M), each person with a weaker copy beside it that is to be suppressed."""
    columns = []
    for one, score in zip(people, scores, strict=True):
        low, high = one.min(axis=0), one.max(axis=0)
        points = np.column_stack([one, np.full(17, 0.9)])[:, :each].ravel()
        columns.append([*((low + high) / 2), *(high - low), score, *points])
        columns.append([*((low + high) / 2 + 1), *(high - low), score / 2, *(points + 40)])
    return np.array(columns, np.float32).T


def test_heatmaps_give_the_points_within_a_quarter_of_a_cell():
    (answer,) = KEYPOINTS.decode({"o": heatmaps(PERSON)}, context())
    assert np.abs(answer.points[:, :2] - PERSON).max() <= 1.0  # a quarter of 4 pixels
    assert answer.score > 0.9
    plain = np.floor(PERSON / 4 + 0.5) * 4
    assert np.abs(answer.points[:, :2] - PERSON).sum() < np.abs(plain - PERSON).sum()  # better than the cell alone


def test_heatmaps_by_the_centres_of_cells():
    """Pixels averaged four by four: the point of cell c is 4c + 1.5 in the numbers of pixels."""
    y, x = np.mgrid[:192, :128]
    points = np.array([(40 + 1.5, 80 + 1.5), (60 + 1.5, 20 + 1.5)])
    fine = np.stack([np.exp(-((x - px) ** 2 + (y - py) ** 2) / 50) for px, py in points])
    coarse = fine.reshape(2, 48, 4, 32, 4).mean(axis=(2, 4))
    (answer,) = KEYPOINTS.decode({"o": coarse}, dataclasses.replace(context(), decoder={"offset": 0.5}))
    np.testing.assert_allclose(answer.points[:, :2], points, atol=1e-9)


FORMS = {
    "rows": lambda two, each: rows(two, [0.9, 0.6], each),
    "rows, transposed": lambda two, each: rows(two, [0.9, 0.6], each).T,
    "detected": lambda two, each: np.array([
        [*one.min(axis=0), *one.max(axis=0), score, 0, *np.column_stack([one, np.full(17, 0.9)])[:, :each].ravel()]
        for one, score in zip([*two, two[0]], [0.6, 0.9, 0.1], strict=True)
    ], np.float32),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("each", [2, 3])
def test_rows_give_the_people(form, each):
    two = [PERSON * 0.5, PERSON * 0.5 + [60, 90]]
    output = FORMS[form](two, each)
    if form == "detected":
        output = np.vstack([output, np.zeros((300, output.shape[1]), np.float32)])
    else:
        padding = np.zeros((output.shape[0], 400), np.float32)
        output = (
            np.hstack([output, padding]) if form == "rows" else np.vstack([output, np.zeros((400, output.shape[1]))])
        )
    one = dataclasses.replace(context(), decoder={"dimensions": each})
    assert KEYPOINTS.fits({"o": output}, one)
    answer = KEYPOINTS.decode({"o": output}, one)
    order = (1, 0) if form == "detected" else (0, 1)
    assert [round(person.score, 3) for person in answer] == [0.9, 0.6]
    for person, at in zip(answer, order, strict=True):
        np.testing.assert_allclose(person.points[:, :2], two[at], atol=1e-4)
        np.testing.assert_allclose(person.box, [*two[at].min(axis=0), *two[at].max(axis=0)], atol=1e-4)
    assert len(KEYPOINTS.decode({"o": output}, dataclasses.replace(one, most=1))) == 1


def test_what_has_no_keypoints_does_not_fit():
    for shape in ((84, 8400), (5, 10), (3,)):
        assert not KEYPOINTS.fits({"o": np.zeros(shape)}, dataclasses.replace(context(), classes=80))
    assert KEYPOINTS.fits({"o": np.zeros((56, 8400))}, context())
    assert KEYPOINTS.decode({"o": np.zeros((0, 57))}, context()) == ()  # a file that suppresses, and found nobody


@pytest.mark.parametrize("fit", ["letterbox", "pad", "stretch"])
def test_points_lie_on_the_image(fit):
    """An image of 384x512 in an input of 192x128: whatever the placement, the points come back."""
    size = (384, 512)
    one = dataclasses.replace(context(fit=fit), size=size)
    person = PERSON * 2
    output = rows([one.place.points_to_input(person)], [0.8])
    (answer,) = KEYPOINTS.decode({"o": np.hstack([output, np.zeros((56, 100))])}, one)
    np.testing.assert_allclose(answer.points[:, :2], person, atol=1e-3)
    score = KEYPOINTS.score(batch([output], one), [truth_of(person, size=size)], one)
    assert score.values["oks_ap_ratio"] == pytest.approx(1.0)


def batch(outputs, one):
    parts = [KEYPOINTS.reduce({"o": output}, one) for output in outputs]
    return {name: [part[name] for part in parts] for name in parts[0]}


def test_right_people_score_and_wrong_ones_do_not():
    outputs = [rows([PERSON], [0.9]), rows([PERSON + 5, PERSON * 0.4], [0.8, 0.7])]
    truths = [truth_of(PERSON), truth_of(PERSON + 5, PERSON * 0.4)]
    right = KEYPOINTS.score(batch(outputs, context()), truths, context()).values
    assert (right["oks_ap_ratio"], right["oks_ap50_ratio"], right["images_count"]) == (
        pytest.approx(1),
        pytest.approx(1),
        2.0,
    )
    assert KEYPOINTS.score(batch(outputs[::-1], context()), truths, context()).values["oks_ap_ratio"] < 0.7


def test_forms_agree_on_the_same_people():
    one = batch([rows([PERSON], [0.9]), rows([PERSON * 0.4, PERSON * 0.4 + 70], [0.9, 0.6])], context())
    near = batch([rows([PERSON + 0.3], [0.8]), rows([PERSON * 0.4, PERSON * 0.4 + 70], [0.9, 0.6])], context())
    other = batch([rows([PERSON + 30], [0.9]), rows([PERSON * 0.4], [0.9])], context())
    assert KEYPOINTS.agreement(one, one, context()) == 1.0
    assert KEYPOINTS.agreement(near, one, context()) == 1.0
    assert KEYPOINTS.agreement(other, one, context()) == pytest.approx(1 / 3)
    nobody = batch([rows([PERSON], [0.01])] * 2, context())
    assert KEYPOINTS.agreement(nobody, nobody, context()) is None


@pytest.mark.parametrize("decoder", [{"dimensions": 4}, {"threshold": 2}, {"iou": "0.7"}, {"k": 1}, {"iou": True}])
def test_settings_that_cannot_be_are_refused(decoder):
    with pytest.raises(TypeError, match="expected dimensions"):
        KEYPOINTS.check_decoder(decoder)


def test_limbs_are_drawn_between_confident_points():
    image = np.full((192, 128, 3), 30, np.uint8)
    answer = Answer({"o": heatmaps(PERSON)}, "keypoints", dataclasses.replace(context(), size=(192, 128)))
    picture = answer.draw(image)
    assert (picture[127, 78:81] != 30).any()  # a thigh, between hip and knee
    assert (picture[100, 64] == 30).all()  # nothing in the middle of the trunk
    weak = Answer({"o": 0.1 * heatmaps(PERSON)}, "keypoints", answer.context)
    assert np.array_equal(weak.draw(image), image)
    assert KEYPOINTS.line(answer.show()) == "1 found: 96 % with 17 keypoints"
    assert KEYPOINTS.line({"instances": []}) == "0 found"
