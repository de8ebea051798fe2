"""How an image is brought to the network's input, and the way back: exact for every fit and every size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.runtime.errors import DataError
from edgesmith.runtime.images.geometry import ImagePlacement, placement
from edgesmith.runtime.images.preprocess import apply
from edgesmith.runtime.spec import FITS, ModelSpec, Preprocess

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


def prepared(image, **words):
    settings = Preprocess(**{"crop": (64, 64), "resize": 0, **PLAIN, **words})
    channels = 1 if settings.channels == "GRAY" else 3
    return apply([image], ModelSpec("net", (channels, *settings.crop), preprocess=settings))[0]


def test_a_wide_white_image_in_a_letterbox():
    expected = np.full((3, 64, 64), 114 / 255, np.float32)
    expected[:, 16:48] = 1
    for interpolation in ("bilinear", "opencv-linear", "opencv-area", "torch-bilinear"):
        image = np.full((40, 80, 3), 255, np.uint8)
        assert np.array_equal(prepared(image, fit="letterbox", interpolation=interpolation), expected)


# size of the image, fit, what else -> resized, offset (row, column); the input is 64 high and 48 wide
PLACES = {
    "stretch": ((10, 90), {"fit": "stretch"}, (64, 48), (0, 0)),
    "resize 0 is stretch": ((10, 90), {}, (64, 48), (0, 0)),
    "the shorter side, then the centre": ((100, 200), {"resize": 72}, (72, 144), (-4, -48)),
    "a crop that says so": ((100, 200), {"resize": 72, "fit": "crop"}, (72, 144), (-4, -48)),
    "a crop of a smaller image": ((10, 11), {"resize": 40}, (40, 44), (12, 2)),
    "letterbox, wide": ((40, 80), {"fit": "letterbox"}, (24, 48), (20, 0)),
    "letterbox, tall": ((128, 48), {"fit": "letterbox"}, (64, 24), (0, 12)),
    "letterbox, an odd rest stands below": ((37, 80), {"fit": "letterbox"}, (22, 48), (21, 0)),
    "letterbox, an odd rest of three": ((64, 45), {"fit": "letterbox"}, (64, 45), (0, 1)),
    "letterbox, small and not enlarged": ((10, 20), {"fit": "letterbox", "enlarge": False}, (10, 20), (27, 14)),
    "letterbox, large and not enlarged": ((640, 480), {"fit": "letterbox", "enlarge": False}, (64, 48), (0, 0)),
    "letterbox, a thread": ((1, 9000), {"fit": "letterbox"}, (1, 48), (31, 0)),
    "pad": ((40, 80), {"fit": "pad"}, (24, 48), (0, 0)),
    "pad, not scaled": ((10, 20), {"fit": "pad", "enlarge": False}, (10, 20), (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("case", PLACES)
def test_where_an_image_lies(case):
    size, words, resized, offset = PLACES[case]
    place = placement(size, Preprocess(**{"crop": (64, 48), "resize": 0, **words}))
    assert place == ImagePlacement(size, resized, offset, (64, 48))


def ultralytics_letterbox(image, shape, fill=114):
    """What https://docs.ultralytics.com/reference/data/augment describes, with OpenCV."""
    cv2 = pytest.importorskip("cv2")
    ratio = min(shape[0] / image.shape[0], shape[1] / image.shape[1])
    size = max(round(image.shape[1] * ratio), 1), max(round(image.shape[0] * ratio), 1)
    rest = (shape[1] - size[0]) / 2, (shape[0] - size[1]) / 2
    if image.shape[1::-1] != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    top, bottom = round(rest[1] - 0.1), round(rest[1] + 0.1)
    left, right = round(rest[0] - 0.1), round(rest[0] + 0.1)
    return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=(fill,) * 3)


@pytest.mark.parametrize("seed", range(20))
def test_a_letterbox_is_the_one_that_yolo_was_trained_with(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*rng.integers(1, 200, 2), 3), dtype=np.uint8)
    got = prepared(image, fit="letterbox", crop=(64, 96), interpolation="opencv-linear")
    expected = ultralytics_letterbox(image, (64, 96)).transpose(2, 0, 1)
    assert np.array_equal(np.rint(got * 255), expected)
    if placement(image.shape[:2], Preprocess((64, 96), 0, fit="letterbox")).offset != (0, 0):
        assert not np.array_equal(np.rint(prepared(image, fit="pad", crop=(64, 96)) * 255), expected)


FILLS = {
    "one number": ({"fill": 0}, (0, 0, 0)),
    "one for each channel": ({"fill": (1, 2, 3)}, (1, 2, 3)),
    "channels of the network": ({"fill": (1, 2, 3), "channels": "BGR"}, (1, 2, 3)),
    "grey": ({"fill": 7, "channels": "GRAY", "mean": (0.0,), "std": (1.0,)}, (7,)),
    "between two levels, as zero after normalising is": ({"fill": 255 * 0.485}, (255 * 0.485,) * 3),
}


@pytest.mark.parametrize("case", FILLS)
@pytest.mark.parametrize("fit", ["letterbox", "pad"])
def test_the_rest_is_filled(case, fit):
    words, fill = FILLS[case]
    got = prepared(np.full((32, 64, 3), 200, np.uint8), fit=fit, **words)
    assert np.allclose(got[:, -1, -1] * 255, fill, atol=1e-4)
    assert np.allclose(got[:, 17, 17], 200 / 255)
    pixels = ModelSpec("net", (64, 64, 3), layout="NHWC", dtype="uint8",
                       preprocess=Preprocess((64, 64), 0, fit=fit, fill=(9, 8, 7)))  # fmt: skip
    assert apply([np.zeros((9, 64, 3), np.uint8)], pixels)[0, -1, -1].tolist() == [9, 8, 7]


@st.composite
def places(draw):
    side = st.integers(1, 300)
    fit, enlarge = draw(st.sampled_from(FITS)), draw(st.booleans())
    settings = Preprocess((draw(side), draw(side)), draw(side), fit=fit, enlarge=enlarge)
    return placement((draw(side), draw(side)), settings)


@given(places(), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=100)
def test_there_and_back_is_where_it_was(place, seed):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-50, 350, (4, 3, 2))
    boxes = rng.uniform(-50, 350, (5, 4))
    assert np.allclose(place.points_to_image(place.points_to_input(points)), points, rtol=0, atol=1e-6)
    assert np.allclose(place.points_to_input(place.points_to_image(points)), points, rtol=0, atol=1e-6)
    assert np.allclose(place.boxes_to_image(place.boxes_to_input(boxes)), boxes, rtol=0, atol=1e-6)
    clipped = place.boxes_to_image(boxes, clip=True)
    assert (clipped >= 0).all()
    assert (clipped <= [*place.image[::-1]] * 2).all()
    corners = place.points_to_input(np.array([[0, 0], place.image[::-1]]))
    top, left = place.offset
    assert np.allclose(corners, [[left, top], [left + place.resized[1], top + place.resized[0]]])
    assert all(side <= whole for side, whole in zip(place.resized, place.input, strict=True)) or min(place.offset) <= 0


@given(st.sampled_from(FITS), st.tuples(*[st.integers(20, 160)] * 4), st.integers(20, 90), st.integers(0, 1 << 30))
@settings(deadline=None, max_examples=40)
def test_a_mark_in_the_image_is_found_where_the_map_says(fit, sizes, side, seed):
    """The map is that of the pixels: a white rectangle's corners, mapped, enclose the input's white pixels."""
    rng = np.random.default_rng(seed)
    height, width = sizes[:2]
    (top, bottom), (left, right) = (np.sort(rng.choice(whole + 1, 2, replace=False)) for whole in (height, width))
    image = np.zeros((height, width, 3), np.uint8)
    image[top:bottom, left:right] = 255
    words = {"fit": fit, "crop": sizes[2:], "resize": side, "fill": 0, "interpolation": "nearest"}
    seen = prepared(image, **words)[0]
    place = placement((height, width), Preprocess(**{**words, **PLAIN}))
    x1, y1, x2, y2 = place.boxes_to_input(np.array([left, top, right, bottom]))
    rows, columns = (np.arange(whole) + 0.5 for whole in seen.shape)
    inside = ((rows > y1) & (rows < y2))[:, None] & (columns > x1) & (columns < x2)
    near = (np.abs(rows - y1) < 0.51) | (np.abs(rows - y2) < 0.51)
    near = near[:, None] | (np.abs(columns - x1) < 0.51) | (np.abs(columns - x2) < 0.51)
    assert np.array_equal((seen > 0)[~near], inside[~near])


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("seed", range(5))
def test_a_mask_goes_back_to_the_pixels_that_it_came_from(fit, seed):
    rng = np.random.default_rng(seed)
    factor, (height, width) = int(rng.integers(1, 4)), rng.integers(3, 30, 2).tolist()
    classes = rng.integers(1, 9, (height, width))
    crop = (factor * height, factor * width) if fit in ("crop", "stretch") else (factor * height, factor * width + 9)
    settings = Preprocess(crop, min(height, width) * factor, fit=fit)
    place = placement((height, width), settings)
    mask = np.zeros(crop, np.int64)
    top, left = place.offset
    mask[top : top + place.resized[0], left : left + place.resized[1]] = classes.repeat(factor, 0).repeat(factor, 1)
    assert np.array_equal(place.mask_to_image(mask), classes)
    both = place.mask_to_image(np.stack([mask, mask + 1]))
    assert np.array_equal(both, [classes, classes + 1])
    assert not np.array_equal(place.mask_to_image(np.roll(mask, factor, axis=0)), classes)


def test_what_the_network_did_not_see_has_a_value_of_its_own():
    place = placement((10, 30), Preprocess((10, 10), 10))
    mask = place.mask_to_image(np.ones((5, 5), np.int64), outside=255)
    assert (mask[:, 10:20] == 1).all()
    assert (mask[:, :10] == 255).all()
    assert (mask[:, 20:] == 255).all()


BAD = {
    "three numbers": (lambda place: place.boxes_to_image(np.zeros((2, 3))), "these are no boxes"),
    "a number": (lambda place: place.points_to_image(np.float64(1)), "these are no points"),
    "a line": (lambda place: place.mask_to_image(np.zeros(4)), "this is no mask"),
    "no pixels": (lambda place: placement((0, 4), Preprocess()), "no pixels"),
    "a crop of nothing": (lambda place: placement((4, 4), Preprocess(resize=0, fit="crop")), "cannot be brought"),
    "an unknown fit": (lambda place: placement((4, 4), Preprocess(fit="squash")), "cannot be brought"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_mapped_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(DataError, match=message):
        call(placement((10, 20), Preprocess()))
