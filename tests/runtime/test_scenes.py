"""The embedded scenes: the same everywhere, with boxes, areas and classes that their pixels confirm."""

import numpy as np
import pytest

from edgesmith.runtime import datasets
from edgesmith.runtime.datasets import digits, scene_drawing, scenes
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.tasks import find

DIGESTS = {
    "calibration": "8196f1c925c0d5b611fc0e7e28da15e13e814f2d704b30f0ac2873f808106ed3",
    "test": "51a31726969edeb28f838dd82816c6098d4528acb1424f0e0a1db1d6a0121b94",
    "hard": "1cbcebdb07bae0e2ba1794152510c3090ec16c5ea0692dd35a716b16317fed68",
}
SIZES = {"calibration": 128, "test": 512, "hard": 512}
OBJECTS = {"calibration": 326, "test": 1364, "hard": 1712}


@pytest.mark.parametrize("split", DIGESTS)
def test_scenes_are_the_same_on_every_machine(split):
    data = datasets.load("scenes", split)
    assert (len(data), data.images.shape[1:], data.images.dtype) == (SIZES[split], (96, 96, 3), np.uint8)
    assert sum(len(truth.labels) for truth in data.truths) == OBJECTS[split]
    assert data.digest == DIGESTS[split]
    assert data.classes == tuple("0123456789")


def box_of(pixels):
    rows, columns = np.nonzero(pixels)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("split", ["calibration", "hard"])
def test_boxes_areas_and_classes_are_those_of_the_pixels(split):
    for truth in datasets.load("scenes", split).head(60).truths:
        signs = [truth.members == number for number in range(1, len(truth.labels) + 1)]
        assert truth.boxes.tolist() == [box_of(sign) for sign in signs]
        assert truth.areas.tolist() == [sign.sum() for sign in signs]
        assert truth.members.max() == len(signs)
        pixels = truth.pixels()
        assert all((pixels[sign] == label).all() for sign, label in zip(signs, truth.labels, strict=True))
        assert (pixels[truth.members == 0] == truth.background).all()
        assert not truth.crowd.any()


def test_a_scene_depends_on_its_number_alone():
    chosen = digits.parts()[0]
    first, truth = scenes.draw_scene(5, scenes.USUAL, chosen)
    scenes.draw_scene(6, scenes.HARD, chosen)
    again, other = scenes.draw_scene(5, scenes.USUAL, chosen)
    assert (first == again).all()
    assert (truth.members == other.members).all()
    assert not (first == scenes.draw_scene(6, scenes.USUAL, chosen)[0]).all()


def test_calibration_comes_from_train_and_the_splits_have_digits_of_their_own(monkeypatch):
    asked = {}

    def note(seed, hard, chosen):
        asked[seed] = (hard, chosen)
        return np.zeros((96, 96, 3), np.uint8), None

    monkeypatch.setattr(scenes, "draw_scene", note)
    seeds = {}
    for split in datasets.SPLITS:
        asked.clear()
        scenes._scenes.cache_clear()
        scenes.load_scenes(split, 100)
        seeds[split] = set(asked)
        train = split in ("train", "calibration")
        assert {chosen for _, chosen in asked.values()} == {digits.parts()[not train]}
        assert {hard for hard, _ in asked.values()} == {scenes.HARD if split == "hard" else scenes.USUAL}
    scenes._scenes.cache_clear()
    assert seeds["calibration"] < seeds["train"]
    assert len(seeds["calibration"]) == 100
    assert sum(map(len, seeds.values())) - 100 == len(set.union(*seeds.values()))


def test_signs_that_may_not_be_covered_are_not():
    for seed in range(20):
        scene = scene_drawing.Drawing(seed)
        for _ in range(6):
            scene.add_sign((20, 40), (90, 100), label=3, visible=100)
        counts = np.bincount(scene.members.ravel())[1:].tolist()
        assert counts == scene.areas


def test_interpolation_is_linear_between_centres():
    for size, length in ((8, 24), (8, 31), (5, 96), (8, 8)):
        weights = scene_drawing.stretch_weights(size, length)
        values = np.random.default_rng(0).integers(0, 17, size)
        centres = (np.arange(length) + 0.5) * size / length
        expected = np.interp(centres, np.arange(size) + 0.5, values)
        np.testing.assert_allclose(weights @ values / (2 * length), expected, atol=1e-9)


AREAS = {"rectangle": 1.0, "disc": np.pi / 4, "octagon": 0.875}


@pytest.mark.parametrize("shape", AREAS)
def test_shapes_fill_their_boxes(shape):
    for tall, wide in ((20, 20), (40, 31), (64, 45)):
        pixels = scene_drawing.sign_pixels(shape, tall, wide)
        assert box_of(pixels) == [0, 0, wide, tall]
        assert (pixels == pixels[::-1]).all()
        assert (pixels == pixels[:, ::-1]).all()
        assert pixels.mean() == pytest.approx(AREAS[shape], abs=0.03)


RELABELLED = {
    "maps with the background first": (np.arange(1, 11), [5, 4], [[0, 5], [4, 4]]),
    "another order": (np.arange(9, -1, -1), [5, 6], [[10, 5], [6, 6]]),
}


@pytest.mark.parametrize("case", RELABELLED)
def test_other_names_of_classes_are_those_of_the_pixels_too(case):
    order, labels, pixels = RELABELLED[case]
    members = np.array([[0, 1], [2, 2]], np.uint8)
    truth = scenes.SceneTruth(
        (2, 2), np.zeros((2, 4)), np.array([4, 3]), np.zeros(2, bool), np.ones(2), None, members
    )  # fmt: skip
    assert truth.pixels().tolist() == [[10, 4], [3, 3]]
    assert truth.relabelled(order).labels.tolist() == labels
    assert truth.relabelled(order).pixels().tolist() == pixels


PIXELS = Preprocess(crop=(96, 96), resize=0)


def spec_of(task, labels, **more):
    return ModelSpec("net", (3, 96, 96), len(labels), task, labels=labels, preprocess=PIXELS, **more)


def test_right_answers_are_judged_right_by_three_tasks_and_wrong_ones_wrong():
    data = datasets.load("scenes", "test").head(20)
    names = data.classes
    maps = spec_of("segment", ("background", *names))
    truths = data.truths_for(maps, "masks")
    right = {"classes": [truth.pixels() for truth in truths]}
    wrong = {"classes": [np.roll(truth.pixels(), 40, 0) for truth in truths]}
    score = [find("segment").score(batch, truths, maps.context()).values["miou_ratio"] for batch in (right, wrong)]
    assert score[0] == 1
    assert score[1] < 0.3
    labels = spec_of("multi_label", names)
    truths = data.truths_for(labels, "label sets")
    table = np.stack([np.isin(np.arange(10), truth.labels) for truth in truths]).astype(np.float32)
    score = [find("multi_label").score({"scores": one}, truths, labels.context()).values["map_ratio"]
             for one in (table, 1 - table)]  # fmt: skip
    assert score[0] == 1
    assert score[1] < 0.6
    boxes = spec_of("detect", names, decoder={"head": "selected"})
    truths = data.truths_for(boxes, "boxes")
    score = []
    for shift in (0, 20):
        batch = {"boxes": [one.boxes + shift for one in truths], "labels": [one.labels for one in truths],
                 "scores": [np.ones(len(one.labels)) for one in truths]}  # fmt: skip
        score.append(find("detect").score(batch, truths, boxes.context()).values["map_ratio"])
    assert score[0] == pytest.approx(1)
    assert score[1] < 0.1
