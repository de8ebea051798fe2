"""Tasks whose answer is a map of numbers or a picture: depth, super-resolution, reconstruction."""

import dataclasses

import numpy as np
import pytest

from edgesmith.runtime import tasks
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images.preprocess import apply
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.tasks import DecodeContext
from edgesmith.runtime.tasks import _pictures as pictures

DEPTH, LARGER, AGAIN = (tasks.find(name) for name in ("depth", "super_resolve", "reconstruct"))


class Truth:
    """What is known of one image, in memory."""

    def __init__(self, content, size=None):
        self.content, self.size = content, size or content.shape[:2]

    def pixels(self):
        return self.content

    metres = pixels


def spec(channels="RGB", **settings):
    count = 1 if channels == "GRAY" else 3
    start = {"crop": (32, 32), "resize": 0, "mean": (0.5,) * count, "std": (0.25,) * count, "channels": channels,
             "interpolation": "nearest"}  # fmt: skip
    return ModelSpec("net", (count, 32, 32), 3, preprocess=Preprocess(**{**start, **settings}))


def photo(height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("channels", ["RGB", "BGR"])
def test_undoing_the_preprocessing_gives_the_image(channels):
    one = spec(channels)
    assert np.array_equal(pictures.as_picture(apply([photo()], one)[0], one.context()), photo())


RANGES = {"unit": (0.0, 1.0), "signed": (-1.0, 1.0), "byte": (0.0, 255.0)}


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("shape", [(3, 8, 9), (8, 9, 3), (1, 8, 9), (8, 9)])
def test_outputs_of_every_range_and_layout(kind, shape):
    low, high = RANGES[kind]
    values = np.random.default_rng(1).integers(0, 256, shape)
    picture = pictures.as_picture((low + values / 255 * (high - low)).astype(np.float32),
                                  DecodeContext(decoder={"range": kind}))  # fmt: skip
    assert picture.shape == (8, 9, 3)
    expected = values if shape[-1] == 3 else np.moveaxis(np.atleast_3d(values.T).T, 0, 2)
    assert np.array_equal(picture, np.broadcast_to(expected, (8, 9, 3)))
    assert np.array_equal(pictures.as_picture(values, DecodeContext()), picture)  # whole numbers are bytes


@pytest.mark.parametrize("decoder", [{"range": "0..1"}, {"range": 1}, {"scale": 2}])
def test_settings_that_cannot_be_are_refused(decoder):
    with pytest.raises(TypeError, match="expected range"):
        LARGER.check_decoder(decoder)


def enlarged(image):
    return image.repeat(2, axis=0).repeat(2, axis=1)


def batch(task, outputs, one):
    return {"picture": np.stack([task.reduce({"o": output}, one.context())["picture"] for output in outputs])}


def test_the_right_picture_scores_and_a_wrong_one_does_not():
    one = spec()
    images = [photo(seed=seed) for seed in range(3)]
    outputs = [enlarged(values.transpose(1, 2, 0)).transpose(2, 0, 1) for values in apply(images, one)]
    truths = [Truth(enlarged(image), (32, 32)) for image in images]
    right = LARGER.score(batch(LARGER, outputs, one), truths, one.context()).values
    assert (right["psnr_db"], right["ssim_ratio"], right["images_count"]) == (100.0, pytest.approx(1.0), 3.0)
    wrong = LARGER.score(batch(LARGER, outputs[::-1], one), truths, one.context()).values
    assert wrong["psnr_db"] < 50
    assert wrong["ssim_ratio"] < 0.5
    assert (LARGER.unit, LARGER.lost(30.0, 29.5)) == ("dB", 0.5)


def test_psnr_of_a_known_error():
    """One grey level everywhere: 10·log10(255²)."""
    one = spec()
    target = photo() // 2
    output = {"o": (target + 1)}
    values = LARGER.score(
        {"picture": [LARGER.reduce(output, one.context())["picture"]]}, [Truth(target)], one.context()
    )
    assert values.values["psnr_db"] == pytest.approx(20 * np.log10(255))


def test_what_was_filled_is_cut_off():
    """A letterbox of 16x32: the picture of the input has grey above and below, at twice the size 16 rows each."""
    one = spec(fit="letterbox")
    image = photo(16, 32)
    output = {"o": enlarged(apply([image], one)[0].transpose(1, 2, 0)).transpose(2, 0, 1)}
    assert np.array_equal(LARGER.decode(output, one.context((16, 32))), enlarged(image))
    score = LARGER.score(batch(LARGER, [output["o"]], one), [Truth(enlarged(image), (16, 32))], one.context())
    assert score.values["psnr_db"] == 100.0


def test_a_target_of_another_size_is_refused():
    with pytest.raises(DataError, match=r"target of image 0 has another size .* got 32x32; expected 64x64"):
        LARGER.score({"picture": [photo(64, 64)]}, [Truth(photo(32, 32))], spec().context())


def test_pictures_agree_within_a_grey_level():
    one, two = photo(), photo()
    two = np.where(two < 128, two + 1, two)
    assert AGAIN.agreement({"picture": [one]}, {"picture": [two]}, DecodeContext()) == 1.0
    two[:16] ^= 128
    assert AGAIN.agreement({"picture": [one]}, {"picture": [two]}, DecodeContext()) == 0.5


def test_what_is_drawn_is_the_picture():
    image = photo()
    context = dataclasses.replace(spec().context((32, 32)), decoder={"range": "byte"})
    answer = AGAIN.decode({"o": image.transpose(2, 0, 1).astype(np.float32)}, context)
    assert np.array_equal(AGAIN.draw(photo(seed=5), answer), image)
    assert AGAIN.line(AGAIN.show({"o": image}, context)) == "picture 32x32"


def scene(seed=0):
    return np.random.default_rng(seed).uniform(1, 80, (32, 32)).astype(np.float32)


def test_the_relative_error_is_that_of_a_loop():
    one, truth, answer = spec(), scene().astype(np.float64), scene(1)
    truth[:5] = 0
    score = DEPTH.score({"depth": answer[None]}, [Truth(truth)], one.context()).values
    errors, near = [], []
    for metres, depth in zip(truth.ravel().tolist(), answer.ravel().tolist(), strict=True):
        if metres > 0:
            errors.append(abs(depth - metres) / metres)
            near.append(max(depth / metres, metres / depth) < 1.25)
    assert score["abs_rel_ratio"] == pytest.approx(np.mean(errors))
    assert score["near_ratio"] == pytest.approx(np.mean(near))
    right = DEPTH.score({"depth": truth.astype(np.float32)[None]}, [Truth(truth)], one.context()).values
    assert right["abs_rel_ratio"] == pytest.approx(0, abs=1e-6)
    assert right["abs_rel_ratio"] < score["abs_rel_ratio"]
    assert DEPTH.lost(0.10, 0.12) == pytest.approx(2.0)


def test_inverse_depth_of_an_unknown_scale():
    truth = scene()
    context = dataclasses.replace(spec().context(), decoder={"inverse": True, "median": True})
    reduced = DEPTH.reduce({"o": (7 / truth)[None]}, context)
    score = DEPTH.score({"depth": [reduced["depth"]]}, [Truth(truth)], context)
    assert score.values["abs_rel_ratio"] == pytest.approx(0, abs=1e-5)


def test_depths_that_cannot_be_judged_are_refused():
    with pytest.raises(DataError, match="no pixel with a truth"):
        DEPTH.score({"depth": scene()[None]}, [Truth(np.zeros((32, 32)))], spec().context())
    with pytest.raises(DataError, match="got 40x32; expected 32x32"):
        DEPTH.score({"depth": scene()[None]}, [Truth(np.ones((32, 40)), (32, 32))], spec().context())
    with pytest.raises(TypeError, match="expected inverse or median"):
        DEPTH.check_decoder({"inverse": 1})


def test_a_map_of_depths_is_shown_and_drawn():
    output = {"o": np.tile(np.linspace(1, 9, 32, dtype=np.float32), (1, 32, 1))}
    context = spec().context((64, 48))
    assert DEPTH.decode(output, context).shape == (64, 48)
    assert DEPTH.line(DEPTH.show(output, context)) == "depth 1 to 9, median 5"
    picture = DEPTH.draw(photo(64, 48), DEPTH.decode(output, context))
    near, far = picture[30, 1], picture[30, -2]
    assert near[0] > 100 > near[2]  # red
    assert far[2] > 100 > far[0]  # blue


def test_depths_agree_within_five_per_cent():
    one = scene()
    two = one * np.where(np.arange(32) < 16, 1.04, 1.08).astype(np.float32)
    assert DEPTH.agreement({"depth": [one]}, {"depth": [one]}, DecodeContext()) == 1.0
    assert DEPTH.agreement({"depth": [two]}, {"depth": [one]}, DecodeContext()) == 0.5
