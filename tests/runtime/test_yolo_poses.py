"""YOLO folders with `kpt_shape`: keypoints in pixels of the image; what cannot be is refused in one line."""

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime import datasets
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.spec import ModelSpec

LINES = {
    3: "0 0.5 0.5 0.4 0.5 0.25 0.5 2 0 0 0\n0 0.2 0.2 0.1 0.1 0.1 0.2 1 0.3 0.4 2\n",
    2: "0 0.5 0.5 0.4 0.5 0.25 0.5 0 0\n",
}


def folder(place, text, shape="[2, 3]"):
    (place / "labels").mkdir(parents=True)
    (place / "images").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (100, 40)).save(place / "images" / f"{name}.png")
    (place / "labels" / "a.txt").write_text(text)
    (place / "data.yaml").write_text(f"train: images\nval: images\nkpt_shape: {shape}\nnames: [person]\n")
    return place


def everybody(place):
    """All truths by the images' names, whatever their split."""
    splits = [datasets.load(place, split) for split in ("train", "test")]
    assert all(data.knows("keypoints") and data.knows("boxes") for data in splits)
    spec = ModelSpec("pose", (3, 8, 8), 1, labels=("person",))
    return {path.stem: truth for data in splits
            for path, truth in zip(data.images.paths, data.truths_for(spec, "keypoints"), strict=True)}  # fmt: skip


@pytest.mark.parametrize("each", LINES)
def test_keypoints_lie_in_the_image(each, tmp_path):
    truths = everybody(folder(tmp_path / "data", LINES[each], f"[2, {each}]"))
    one = truths["a"]
    np.testing.assert_allclose(one.keypoints[0], [[25, 20, 2 if each == 3 else 1], [0, 0, 0]])
    np.testing.assert_allclose(one.boxes[0], [30, 10, 70, 30])
    assert one.areas[0] == pytest.approx(0.53 * 40 * 20)
    assert truths["b"].keypoints.shape == (0, 2, 3)
    if each == 3:
        np.testing.assert_allclose(one.keypoints[1], [[10, 8, 1], [30, 16, 2]])


BAD = {
    "too few numbers": ("0 .5 .5 .4 .5 .1 .2 2\n", "[2, 3]", "a.txt line 1 is not valid.*3 numbers for each of 2"),
    "a word": ("0 .5 .5 .4 .5 .1 .2 2 .1 .2 x\n", "[2, 3]", "a.txt line 1 is not valid"),
    "no number": ("0 .5 .5 .4 .5 .1 .2 2 .1 .2 nan\n", "[2, 3]", "a.txt line 1 is not valid"),
    "an unknown class": ("1 .5 .5 .4 .5 .1 .2 2 .1 .2 2\n", "[2, 3]", "unknown class; got 1"),
    "a shape of words": (LINES[3], "many", "data.yaml is not valid; got kpt_shape"),
    "four numbers each": (LINES[3], "[2, 4]", "data.yaml is not valid; got kpt_shape"),
    "no keypoints": (LINES[3], "[0, 3]", "data.yaml is not valid; got kpt_shape"),
    "too many": (LINES[3], "[99999999, 3]", "data.yaml is not valid; got kpt_shape"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_refused_in_one_line(case, tmp_path):
    text, shape, message = BAD[case]
    with pytest.raises(DataError, match=message) as error:
        everybody(folder(tmp_path / "data", text, shape))
    assert "\n" not in str(error.value)
