"""Pre- and post-processing against Pillow, and against torchvision's formulas written down once more."""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images import postprocess, preprocess
from edgesmith.runtime.images.resize import PILLOW, resize
from edgesmith.runtime.spec import ModelSpec, Preprocess

SHAPES = [(64, 64), (480, 640), (640, 480), (31, 257), (224, 224), (7, 5), (300, 301)]


def picture(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


EXACT = int(PIL.__version__.split(".")[0]) >= 13
COMPARED = PILLOW if EXACT else ("nearest", "bilinear")


def assert_same(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got.astype(int) - expected).max() <= (0 if EXACT else 1)


@pytest.mark.parametrize("interpolation", COMPARED)
@pytest.mark.parametrize("shape", SHAPES)
def test_resize_is_pillow_bit_for_bit(shape, interpolation):
    image = picture(shape)
    for size in ((256, 256), (16, 40), (97, 31)):
        method = Image.Resampling[interpolation.upper()]
        expected = np.asarray(Image.fromarray(image).resize(size[::-1], method))
        assert_same(resize(image, size, interpolation), expected)


@given(st.tuples(*[st.integers(1, 80)] * 4), st.sampled_from(COMPARED))
@settings(deadline=None, max_examples=60)
def test_resize_is_pillow_for_any_size(sizes, interpolation):
    image = picture(sizes[:2])
    expected = Image.fromarray(image).resize(sizes[:1:-1], Image.Resampling[interpolation.upper()])
    assert_same(resize(image, sizes[2:], interpolation), np.asarray(expected))


def torchvision_reference(image, spec):
    """Resize(shorter side), CenterCrop, ToTensor, Normalize, step by step with Pillow and float64."""
    settings = spec.preprocess
    pil = Image.fromarray(image)
    width, height = pil.size
    side = settings.resize
    size = (side, int(side * height / width)) if width <= height else (int(side * width / height), side)
    pil = pil.resize(size, Image.Resampling.BILINEAR)
    left, top = round((pil.size[0] - settings.crop[1]) / 2), round((pil.size[1] - settings.crop[0]) / 2)
    pil = pil.crop((left, top, left + settings.crop[1], top + settings.crop[0]))
    x = np.asarray(pil).transpose(2, 0, 1) / 255.0
    return (x - np.array(settings.mean)[:, None, None]) / np.array(settings.std)[:, None, None]


@pytest.mark.parametrize("shape", [(480, 640), (301, 500), (257, 256), (1000, 300)])
def test_the_whole_chain_is_torchvisions(shape):
    spec, image = ModelSpec("m"), picture(shape, 3)
    got = preprocess.apply([image], spec)
    assert (got.shape, got.dtype, got.flags.c_contiguous) == ((1, 3, 224, 224), np.float32, True)
    np.testing.assert_allclose(got[0], torchvision_reference(image, spec), atol=2e-6)


def test_the_reference_rejects_a_wrong_chain():
    spec, image = ModelSpec("m"), picture((480, 640))
    wrong = preprocess.apply([image[..., ::-1]], spec)[0]
    assert np.abs(wrong - torchvision_reference(image, spec)).max() > 0.1


def test_numpy_alone_gives_the_same_as_pillow(monkeypatch):
    spec, image = ModelSpec("m"), picture((100, 130))
    with_pillow = preprocess.apply([image], spec)
    monkeypatch.setattr(preprocess.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    np.testing.assert_array_equal(preprocess.apply([image], spec), with_pillow)


def test_a_file_an_array_and_a_pillow_image_are_one(tmp_path):
    spec, image = ModelSpec("m"), picture((60, 70))
    Image.fromarray(image).save(tmp_path / "x.png")
    several = preprocess.apply([image, str(tmp_path / "x.png"), tmp_path / "x.png", Image.fromarray(image)], spec)
    assert (several == several[0]).all()


CHANNELS = {
    "BGR": lambda image: image[..., ::-1],
    "GRAY": lambda image: np.asarray(Image.fromarray(image).convert("L")),
}


@pytest.mark.parametrize("channels", CHANNELS)
def test_other_channel_orders(channels):
    image = picture((8, 8))
    settings = Preprocess(crop=(8, 8), resize=0, channels=channels, mean=(0.0,) * 3, std=(1.0,) * 3)
    count = 3 if channels == "BGR" else 1
    got = preprocess.apply([image], ModelSpec("m", input_shape=(count, 8, 8), preprocess=settings))
    expected = CHANNELS[channels](image).reshape(8, 8, count).transpose(2, 0, 1)
    np.testing.assert_array_equal(np.rint(got[0] * 255), expected)


def test_a_small_image_is_padded_when_it_is_smaller_than_the_crop():
    spec = ModelSpec("m", (6, 4, 3), layout="NHWC", dtype="uint8", preprocess=Preprocess((6, 4), 2))
    out = preprocess.apply([np.full((2, 5, 3), 9, np.uint8)], spec)[0]
    assert out.shape == (6, 4, 3)
    assert (out[2:4] == 9).all()
    assert out[:2].max() == out[4:].max() == 0


BAD = {
    "float image": (np.zeros((8, 8, 3)), "this array is not an image; got float64"),
    "four channels": (np.zeros((8, 8, 4), np.uint8), r"got uint8 \(8, 8, 4\)"),
    "colours nowhere": (np.zeros((8, 3, 8), np.uint8), r"got uint8 \(8, 3, 8\)"),
    "colours first or last": (np.zeros((3, 8, 3), np.uint8), r"two ways; got uint8 \(3, 8, 3\); expected \(height"),
    "one colour first or three last": (np.zeros((1, 8, 3), np.uint8), "two ways"),
    "no pixels": (np.zeros((0, 8, 3), np.uint8), "this array is not an image"),
    "a number": (7, "this is not an image; got int"),
    "nothing there": (Path("nowhere.png"), "cannot read image nowhere.png; got no such file; do: check the path"),
    "a folder": (Path(), "cannot read image"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_an_error_with_a_name(case):
    image, message = BAD[case]
    with pytest.raises(DataError, match=message):
        preprocess.apply([image], ModelSpec("m"))


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.fromarray(picture((50, 50))).save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large"):
        preprocess.read_image(tmp_path / "x.png")


def test_a_graph_that_normalises_gets_the_pixels_themselves():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    settings = Preprocess(crop=(24, 32), resize=32, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    pixels = ModelSpec("net", input_shape=(24, 32, 3), layout="NHWC", dtype="uint8", preprocess=settings)
    values = ModelSpec("net", input_shape=(3, 24, 32), preprocess=settings)
    made = preprocess.apply([image], pixels)
    assert (made.dtype, made.shape) == (np.uint8, (1, 24, 32, 3))
    assert np.abs(made.transpose(0, 3, 1, 2) - preprocess.apply([image], values)).max() < 1e-4
    assert preprocess.apply([], pixels).dtype == np.uint8
    with pytest.raises(DataError, match="NCHW or NHWC, float32 or float16 or uint8"):
        preprocess.apply([image], ModelSpec("net", input_shape=(3, 24, 32), dtype="int32", preprocess=settings))


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("channels", ["RGB", "BGR", "GRAY"])
def test_every_layout_and_type_holds_the_same_values(dtype, channels):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    colours = 1 if channels == "GRAY" else 3
    settings = Preprocess(
        crop=(24, 32), resize=32, mean=(0.2, 0.3, 0.4)[:colours], std=(0.5,) * colours, channels=channels
    )
    one, two = (
        preprocess.apply([image], ModelSpec("net", shape, layout=layout, dtype=dtype, preprocess=settings))
        for layout, shape in (("NCHW", (colours, 24, 32)), ("NHWC", (24, 32, colours)))
    )
    assert one.dtype == two.dtype == dtype
    assert one.flags.c_contiguous
    assert two.flags.c_contiguous
    assert np.array_equal(one.transpose(0, 2, 3, 1), two)
    values = preprocess.apply([image], ModelSpec("net", (colours, 24, 32), preprocess=settings))
    if dtype == "uint8":
        pixels = (values * 0.5 + np.array(settings.mean, np.float32)[:, None, None]) * 255
        assert np.abs(one - pixels).max() < 1e-3
    else:
        assert np.array_equal(one, values.astype(dtype))


def test_preprocessing_that_does_not_fit_the_input_is_an_error():
    with pytest.raises(DataError, match="does not produce its input"):
        preprocess.apply([picture((9, 9))], ModelSpec("m", input_shape=(3, 32, 32)))
    odd = ModelSpec("m", preprocess=Preprocess(interpolation="sharp"))
    with pytest.raises(DataError, match="unknown interpolation; got 'sharp'"):
        preprocess.apply([picture((9, 9))], odd)


def test_softmax_is_stable_and_top_k_is_ordered():
    logits = np.array([1000.0, 1001.0, -5.0, 1001.0], np.float32)
    probabilities = postprocess.softmax(logits)
    assert abs(probabilities.sum() - 1) < 1e-6
    best = postprocess.top_k(logits, 9, ("a", "b"))
    assert [(guess.label, guess.index) for guess in best] == [("b", 1), ("3", 3), ("a", 0), ("2", 2)]
    assert abs(best[0].probability - 1 / (2 + np.exp(-1))) < 1e-6


def encoded(kind):
    file = io.BytesIO()
    Image.fromarray(picture((12, 9))).save(file, format=kind)
    return file.getvalue()


@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"]), st.data())
@settings(deadline=None, max_examples=150)
def test_no_damage_to_an_image_is_more_than_a_data_error(tmp_path_factory, kind, data):
    content = bytearray(encoded(kind))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=6))
        content = content or bytearray(b"x")
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind.lower()}"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert preprocess.read_image(path).ndim == 3
