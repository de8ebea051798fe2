"""Segmentation: maps of classes back in the image, mIoU against masks, and the picture with its legend."""

import numpy as np
import pytest

from edgesmith.runtime import tasks
from edgesmith.runtime.answer import Answer
from edgesmith.runtime.datasets.truths import Truth
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images.preprocess import apply
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.tasks import DecodeContext

SEGMENT = tasks.find("segment")


class Mask(Truth):
    """A mask in memory."""

    def __init__(self, pixels):
        super().__init__(pixels.shape)
        object.__setattr__(self, "mask", pixels)

    def pixels(self):
        return self.mask


def spec(**preprocess):
    settings = {"crop": (32, 32), "resize": 0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "nearest"}
    return ModelSpec("painter", (3, 32, 32), 3, "segment", preprocess=Preprocess(**{**settings, **preprocess}),
                     labels=("red", "green", "blue"))  # fmt: skip


def scene(height, width, seed=0):
    """A picture of blocks in pure red, green and blue, and which of them each pixel is."""
    rng = np.random.default_rng(seed)
    classes = np.kron(rng.integers(0, 3, (height // 8, width // 8)), np.ones((8, 8), np.int64))
    return (255 * np.eye(3)[classes]).astype(np.uint8), classes


FITS = {
    "stretch": ({}, (32, 32)), "twice as large": ({}, (64, 64)), "another ratio": ({}, (64, 128)),
    "letterbox": ({"fit": "letterbox"}, (32, 64)), "upright letterbox": ({"fit": "letterbox"}, (64, 32)),
    "pad": ({"fit": "pad"}, (16, 32)), "crop": ({"fit": "crop", "resize": 32}, (32, 64)),
}  # fmt: skip


def scored(case, wrong=0):
    """The score of a network whose scores are the colours themselves, shifted by `wrong` classes."""
    settings, size = FITS[case]
    one = spec(**settings)
    image, classes = scene(*size)
    outputs = {"scores": np.roll(apply([image], one)[0], wrong, axis=0)}
    reduced = SEGMENT.reduce(outputs, one.context())
    batch = {name: np.stack([value]) for name, value in reduced.items()}
    return outputs, one, classes, SEGMENT.score(batch, [Mask(classes)], one.context())


@pytest.mark.parametrize("case", FITS)
def test_the_map_lies_on_the_image(case):
    """Nearest pixels and blocks of eight: what the network saw is exact, however the image was brought to the input."""
    outputs, one, classes, score = scored(case)
    answer = SEGMENT.decode(outputs, one.context(classes.shape))
    seen = answer.pixels != -1
    assert answer.pixels.shape == classes.shape
    assert np.array_equal(answer.pixels[seen], classes[seen])
    assert seen.mean() == (0.5 if case == "crop" else 1.0)
    if case != "crop":
        assert (score.values["miou_ratio"], score.values["pixel_accuracy_ratio"]) == (1.0, 1.0)
    else:  # half of the image was cut off, and counts as missed
        assert score.values["pixel_accuracy_ratio"] == 0.5
        assert score.values["miou_ratio"] < 0.6


@pytest.mark.parametrize("case", FITS)
def test_a_wrong_map_scores_nothing(case):
    assert scored(case, wrong=1)[3].values["miou_ratio"] == 0.0


def test_miou_is_that_of_a_loop_over_all_images():
    rng = np.random.default_rng(1)
    maps, masks = rng.integers(0, 3, (4, 9, 7)), rng.integers(0, 3, (4, 9, 7))
    masks[rng.random(masks.shape) < 0.2] = 255
    score = SEGMENT.score({"classes": maps.astype(np.uint8)}, [Mask(one) for one in masks], DecodeContext(classes=3))
    judged = masks != 255
    ious = [((maps == at) & (masks == at)).sum() / (((maps == at) | (masks == at)) & judged).sum() for at in range(3)]
    assert score.values["miou_ratio"] == pytest.approx(np.mean(ious))
    assert score.values["pixel_accuracy_ratio"] == pytest.approx((maps == masks)[judged].mean())
    assert [row["miou_ratio"] for row in score.by_class] == pytest.approx(ious)
    assert score.values["images_count"] == 4


REFUSED = {
    "a class of the network": (np.full((2, 2), 3), np.zeros((2, 2), int), "a class that its spec has not"),
    "a class of the mask": (np.zeros((2, 2), int), np.full((2, 2), 3), "a class that the network has not"),
    "a size": (np.zeros((2, 2), int), np.zeros((2, 3), int), "different sizes"),
    "nothing judged": (np.zeros((2, 2), int), np.full((2, 2), 255), "no pixel that is judged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_masks_that_do_not_fit_are_refused(case):
    classes, mask, message = REFUSED[case]
    with pytest.raises(DataError, match=message):
        SEGMENT.score({"classes": classes[None]}, [Mask(mask)], DecodeContext(classes=3))


OUTPUTS = {
    "scores": (np.eye(3, dtype=np.float32)[[[0, 1], [2, 0]]].transpose(2, 0, 1), [[0, 1], [2, 0]]),
    "one logit": (np.array([[[-1.0, 2.0], [0.1, -9.0]]], np.float32), [[0, 1], [1, 0]]),
    "one probability": (np.array([[[0.4, 0.6], [0.9, 0.0]]], np.float32), [[0, 1], [1, 0]]),
    "classes": (np.array([[7, 1], [0, 2]], np.int64), [[7, 1], [0, 2]]),
    "classes with a channel": (np.array([[[7, 1], [0, 2]]], np.int32), [[7, 1], [0, 2]]),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_outputs_in_use(case):
    output, classes = OUTPUTS[case]
    assert SEGMENT.fits({"o": output}, DecodeContext())
    assert SEGMENT.decode({"o": output}, DecodeContext()).pixels.tolist() == classes


def test_coarse_scores_are_enlarged_before_the_best_is_taken():
    """As torch: bilinear, corners not aligned; the border between two classes lies between the cells' centres."""
    torch = pytest.importorskip("torch")
    scores = np.random.default_rng(2).standard_normal((3, 8, 8)).astype(np.float32)
    large = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], size=(32, 32), mode="bilinear")
    expected = large[0].numpy().argmax(axis=0)
    classes = SEGMENT.reduce({"o": scores}, spec().context())["classes"]
    assert classes.shape == (32, 32)
    assert (classes == expected).mean() > 0.999
    assert (np.kron(scores.argmax(axis=0), np.ones((4, 4))) != expected).mean() > 0.05  # cells alone would be coarse


def test_agreement_is_the_share_of_equal_pixels():
    one, two = np.zeros((4, 2, 2), np.uint8), np.zeros((4, 2, 2), np.uint8)
    two[:2, 0] = 1
    assert SEGMENT.agreement({"classes": one}, {"classes": two}, DecodeContext()) == 0.75
    assert SEGMENT.agreement({"classes": one}, {"classes": list(one[:, :1])}, DecodeContext()) is None


def test_the_picture_has_the_colours_and_a_legend():
    image, classes = scene(240, 320)
    outputs = {"o": np.eye(3, dtype=np.float32)[classes].transpose(2, 0, 1)}
    answer = Answer(
        outputs, "segment", DecodeContext(labels=("road", "sky", "a very long name of a class in a legend"))
    )
    picture = answer.draw(image)
    assert picture.shape == image.shape
    top = picture[:100].astype(int) * 2 - image[:100]
    assert len(np.unique(top.reshape(-1, 3) // 4, axis=0)) == 3  # the colours of three classes
    corner = picture[-60:, :60]
    assert (corner.max(axis=2) > 240).any()  # letters
    assert (corner.max(axis=2) < 120).mean() > 0.2  # on a dark ground
    assert answer.class_map().shape == (240, 320)
    assert set(answer.show(2)["class_map"]["shares"]) < {"road", "sky", "a very long name of a class in a legend"}
