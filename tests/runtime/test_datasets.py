"""The embedded digits are the same everywhere, splits do not overlap, and folders of images work or say why not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesmith.runtime import datasets
from edgesmith.runtime.datasets import corruptions, digits, image_folder, sampling
from edgesmith.runtime.errors import DataError, UsageError

SIZES = {"train": 1437, "calibration": 128, "test": 360, "hard": 1440}
DIGESTS = {
    "train": "ae3a0b5e653dc7e307f387beadde34766f9ccc4b08580f5a4cdcd80d0c01a37f",
    "calibration": "84230d3144d02b1e75d7319ac600291f80a367049e5c36a165d367fa180b38d8",
    "test": "1cc85f9b6c10d310a0877e8f0d3cac36cd4dce12e8fe2daa099398022cac33cc",
    "hard": "675907c2bd4631a24935ff611cd2b592359b194906a8802a09da89192acb4bc2",
}


@pytest.mark.parametrize("split", SIZES)
def test_digits_are_the_same_on_every_machine(split):
    data = datasets.load("digits", split)
    assert (len(data), data.images.shape[1:], data.images.dtype) == (SIZES[split], (64, 64, 3), np.uint8)
    assert data.digest == DIGESTS[split]
    assert data.classes == tuple("0123456789")
    counts = np.bincount(data.labels)
    assert counts.max() - counts.min() <= max(2, 0.06 * counts.mean())


def test_digits_splits_do_not_overlap():
    train, test = digits.parts()
    assert set(train).isdisjoint(test)
    assert len(train) + len(test) == 1797
    of_train = {image.tobytes() for image in datasets.load("digits", "train").images}
    assert all(image.tobytes() in of_train for image in datasets.load("digits", "calibration").images)


def test_hard_keeps_the_labels_and_disturbs_every_image():
    test, hard = datasets.load("digits", "test"), datasets.load("digits", "hard")
    assert hard.labels.tolist() == test.labels.tolist() * 4
    same = [(image == test.images[at % 360]).all() for at, image in enumerate(hard.images)]
    assert not any(same)


def test_upsampling_is_bilinear_with_half_pixel_centres():
    images = digits.originals()[0][:5]
    expected = [
        np.asarray(Image.fromarray(image.astype(np.float32) * (255 / 16)).resize((64, 64), Image.Resampling.BILINEAR))
        for image in images
    ]
    assert np.abs(digits.upsample(images)[..., 0] - np.stack(expected)).max() <= 0.51


def test_rotation_turns_about_the_centre():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4], image[4, 8] = 200, 100
    turned = corruptions.rotate(image, 90)
    assert turned[4, 4, 0] == 200
    assert turned[:, :, 0].argmax() == 40
    assert turned[0, 4, 0] == 100 or turned[8, 4, 0] == 100
    assert (corruptions.rotate(image, 0) == image).all()


def test_noise_has_the_stated_spread():
    values = corruptions.near_gaussian(np.random.PCG64(0).random_raw(200_000), 40)
    assert abs(values.mean()) < 1
    assert abs(values.std() - 40) < 0.5


@given(st.lists(st.integers(0, 4), min_size=5, max_size=60), st.data())
@settings(deadline=None, max_examples=50)
def test_a_stratified_draw_keeps_every_share(labels, data):
    count = data.draw(st.integers(1, len(labels)))
    names = [f"image{at}" for at in range(len(labels))]
    drawn = sampling.stratified(names, labels, count, seed="s")
    assert len(set(drawn)) == count
    for label in set(labels):
        share = labels.count(label) * count / len(labels)
        assert abs(sum(labels[at] == label for at in drawn) - share) < 1


def image_file(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 10, 3), value, np.uint8)).save(path)


@pytest.fixture
def by_class(tmp_path):
    for name in ("cat", "dog"):
        for at in range(30):
            image_file(tmp_path / name / f"{at}.png", at)
    return tmp_path


def test_a_folder_by_class_is_split_by_its_names(by_class):
    train, test = (datasets.load(by_class, split) for split in ("train", "test"))
    assert train.classes == ("cat", "dog")
    assert len(train) + len(test) == 60
    assert 5 <= len(test) <= 20
    assert set(train.images.paths).isdisjoint(test.images.paths)
    few = datasets.load(by_class, "calibration", calibration=10)
    assert np.bincount(few.labels).tolist() == [5, 5]
    assert set(few.images.paths) <= set(train.images.paths)
    assert len(datasets.load(by_class, "hard")) == 4 * len(test)
    at = train.images.paths.index(by_class / "dog" / "7.png") if by_class / "dog" / "7.png" in train.images.paths else 0
    assert train.images[at].shape == (8, 10, 3)
    assert train.labels[at] == train.classes.index(train.images.paths[at].parent.name)


def test_train_and_val_folders_are_taken_as_they_are(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for name in ("a", "b"):
            for at in range(count):
                image_file(tmp_path / part / name / f"{at}.jpg")
    assert [len(datasets.load(tmp_path, split)) for split in ("train", "calibration", "test")] == [6, 6, 4]


def test_a_label_file_names_the_classes(tmp_path):
    for at in range(40):
        image_file(tmp_path / f"val_{at}.JPEG")
    (tmp_path / "val.txt").write_text("".join(f"val_{at}.JPEG {at % 4}\n" for at in range(40)))
    test, train = datasets.load(tmp_path, "test"), datasets.load(tmp_path, "train")
    assert test.classes == ("0", "1", "2", "3")
    assert len(test) > len(train) > 0
    assert all(int(path.stem[4:]) % 4 == label for path, label in zip(test.images.paths, test.labels, strict=True))
    (tmp_path / "classes.txt").write_text("ant\nbee\ncow\ndog\n")
    assert datasets.load(tmp_path, "test").classes == ("ant", "bee", "cow", "dog")


def test_the_digest_changes_with_the_data(by_class):
    before = datasets.load(by_class, "test").digest
    assert datasets.load(by_class, "test").digest == before
    image_file(datasets.load(by_class, "test").images.paths[0], 255)
    assert datasets.load(by_class, "test").digest != before


def test_head_spreads_over_the_split():
    few = datasets.load("digits", "train").head(100)
    assert len(few) == 100
    assert set(few.labels.tolist()) == set(range(10))


def empty_class(folder):
    (folder / "empty").mkdir()


def empty_classes(folder):
    for name in ("empty", "void"):
        (folder / name).mkdir()


def bad_label_line(folder):
    (folder / "labels.txt").write_text("cat/0.png 0\nnothing.png 1\n")


def unknown_label(folder):
    (folder / "labels.txt").write_text("cat/0.png wolf\n")
    (folder / "classes.txt").write_text("cat\ndog\n")


def climbing_label(folder):
    image_file(folder.parent / "outside.png")
    (folder / "labels.txt").write_text("../outside.png 0\n")


BAD = {
    "empty class": (empty_class, "the class 'empty' in .* is empty; got no image files"),
    "empty classes": (empty_classes, "'empty', 'void' in .* are empty; got no image files"),
    "a line without its image": (bad_label_line, "labels.txt line 2 is not valid; got 'nothing.png 1'"),
    "an unknown label": (unknown_label, "labels.txt has an unknown label; got wolf; expected one of 2 classes"),
    "a path that climbs out": (climbing_label, "labels.txt line 1 is not valid"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_an_error_with_a_name(case, by_class):
    spoil, message = BAD[case]
    spoil(by_class)
    with pytest.raises(DataError, match=message):
        datasets.load(by_class, "test")


def test_no_classes_and_unknown_names(tmp_path):
    with pytest.raises(DataError, match="contains no images"):
        datasets.load(tmp_path, "test")
    with pytest.raises(UsageError, match="unknown data 'digitz'"):
        datasets.load("digitz", "test")
    with pytest.raises(UsageError, match="did you mean 'calibration'"):
        datasets.load("digits", "calibraton")


CORRUPT = {"text": b"not an image", "nothing": b"", "half a PNG": None}


@pytest.mark.parametrize("case", CORRUPT)
def test_a_corrupt_image_is_named_when_it_is_asked_for(case, tmp_path):
    image_file(tmp_path / "a" / "0.png")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "0.png").write_bytes(whole[: len(whole) // 2] if CORRUPT[case] is None else CORRUPT[case])
    files, _, _ = image_folder.load_folder(tmp_path, "train" if datasets_has_train(tmp_path) else "test", 1)
    with pytest.raises(DataError, match=r"cannot read image .*0\.png"):
        files[0]


def datasets_has_train(folder):
    return sampling.rank_by_hash("a/0.png", "test") % 100 >= image_folder.TEST_PERCENT


@given(st.integers(-90, 90), st.integers(1, 12), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_rotation_is_bilinear_with_black_outside(degrees, height, width):
    image = np.random.default_rng(height * 13 + width).integers(1, 256, (height, width, 1)).astype(np.uint8)
    expected = np.zeros((height, width))
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    for y in range(height):
        for x in range(width):
            dy, dx = y - (height - 1) / 2, x - (width - 1) / 2
            row, column = cosine * dy - sine * dx + (height - 1) / 2, sine * dy + cosine * dx + (width - 1) / 2
            for at in range(height):
                for across in range(width):
                    weight = max(0, 1 - abs(row - at)) * max(0, 1 - abs(column - across))
                    expected[y, x] += weight * image[at, across, 0]
    assert np.abs(corruptions.rotate(image, degrees)[..., 0] - expected).max() <= 1


def test_pictures_that_are_not_calibrated_on_are_accounted_for(tmp_path):
    """Of a hundred pictures, asked for all: what is said adds up to a hundred."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for at in range(50):
            Image.fromarray(np.full((4, 4, 3), at, np.uint8)).save(tmp_path / name / f"{at}.png")
    used, test = (datasets.load(tmp_path, split, calibration=100) for split in ("calibration", "test"))
    said = datasets.held_back(tmp_path, used, 100)
    end = f"of all 100, {len(test)} are held out to evaluate the result"
    assert said == f"{len(used)} calibration images, 100 requested: {end}"
    assert len(used) + len(test) == 100
    assert datasets.held_back(tmp_path, used, len(used)) == ""
    (tmp_path / "cat").rename(tmp_path / "whole")
    (tmp_path / "train").mkdir()
    (tmp_path / "whole").rename(tmp_path / "train" / "cat")
    (tmp_path / "dog").rename(tmp_path / "train" / "dog")
    assert datasets.held_back(tmp_path, datasets.load(tmp_path, "calibration"), 128).endswith("the data has no more")
