"""Folders with a truth for each image: the layout is told by its files, and each split has the right truths."""

import json

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime import datasets
from edgesmith.runtime.errors import DataError, EdgesmithError
from edgesmith.runtime.spec import ModelSpec, Preprocess

SPEC = ModelSpec("net", (3, 8, 8), 3, preprocess=Preprocess((8, 8), 0), labels=("sky", "road", "tree"))
COUNT = 20


def png(path, value, size=(8, 8), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def images(folder):
    """Twenty pictures, each of its own grey."""
    for at in range(COUNT):
        png(folder / f"{at:02d}.png", (at, at, at))
    return [f"{at:02d}.png" for at in range(COUNT)]


def masks(folder):
    for name in images(folder / "images"):
        png(folder / "masks" / name, int(name[:2]) % 3, mode="L")


def targets(folder):
    for name in images(folder / "images"):
        png(folder / "targets" / name, (int(name[:2]),) * 3, (16, 16))


def depths(folder):
    (folder / "depth").mkdir()
    for name in images(folder / "images"):
        np.save(folder / "depth" / f"{name[:2]}.npy", np.full((8, 8), float(name[:2]), np.float32))


def values(folder):
    (folder / "values.csv").write_text("".join(f"{name},{int(name[:2])}\n" for name in images(folder)))


def label_table(folder):
    rows = "".join(f"{name},{int(int(name[:2]) % 3 == 0)},{int(int(name[:2]) % 3 == 1)},{int(int(name[:2]) % 3 == 2)}\n"
                   for name in images(folder))  # fmt: skip
    (folder / "multilabel.csv").write_text("file,a,b,c\n" + rows)


def label_object(folder):
    (folder / "multilabel.json").write_text(json.dumps({name: ["abc"[int(name[:2]) % 3]] for name in images(folder)}))


def texts(folder):
    (folder / "texts.txt").write_text("".join(f"{name}\t{name[:2]}\n" for name in images(folder)))


# Layout -> kind of truth, what a truth says of the image's number.
LAYOUTS = {
    masks: ("masks", lambda truth, at: truth.pixels()[0, 0] == at % 3),
    targets: ("targets", lambda truth, at: truth.pixels()[0, 0, 0] == at),
    depths: ("depth", lambda truth, at: truth.metres()[0, 0] == at),
    values: ("values", lambda truth, at: truth.values == (at,)),
    label_table: ("label sets", lambda truth, at: truth.labels.tolist() == [at % 3]),
    label_object: ("label sets", lambda truth, at: truth.labels.tolist() == [at % 3]),
    texts: ("text", lambda truth, at: truth.text == f"{at:02d}"),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.__name__)
def test_each_split_has_its_own_images_and_their_truths(layout, tmp_path):
    kind, right = LAYOUTS[layout]
    layout(tmp_path)
    splits = {split: datasets.load(tmp_path, split, calibration=3) for split in datasets.SPLITS}
    numbers = {split: [int(path.stem) for path in data.images.paths] for split, data in splits.items()}
    assert sorted(numbers["train"] + numbers["test"]) == list(range(COUNT))
    assert set(numbers["calibration"]) <= set(numbers["train"])
    assert numbers["hard"] == 4 * numbers["test"]
    for split, data in splits.items():
        assert data.knows(kind)
        assert not data.labelled
        truths = data.truths_for(SPEC, kind)
        assert [right(truth, at) for truth, at in zip(truths, numbers[split], strict=True)] == [True] * len(data)
    few = splits["test"].head(4)
    assert [
        right(truth, at) for truth, at in zip(few.truths, map(int, (p.stem for p in few.images.paths)), strict=True)
    ]
    assert few.digest != splits["test"].digest
    with pytest.raises(DataError, match="needs labels"):
        splits["test"].require_truth("class", "training")


def test_the_hard_split_turns_no_image_whose_truth_has_places(tmp_path):
    for layout, still in ((masks, True), (texts, False)):
        folder = tmp_path / layout.__name__
        folder.mkdir()
        layout(folder)
        name = next(iter(datasets.load(folder, "test").images.paths)).name
        place = folder / ("images" if still else "") / name
        image = np.zeros((80, 80, 3), np.uint8)
        image[:, :4] = 255  # a bright edge
        Image.fromarray(image).save(place)
        if still:
            png(folder / "masks" / name, 0, (80, 80), "L")
        edges = [float(np.median(one[:, :2])) for one in datasets.load(folder, "hard").images[:9999:len(
            datasets.load(folder, "test"))]]  # fmt: skip
        assert (min(edges) > 150) is still


def test_classes_by_name(tmp_path):
    """A mask says 0 for tree in the data's order, which is 2 in the network's."""
    masks(tmp_path)
    (tmp_path / "classes.txt").write_text("tree\nroad\nsky\n")
    data = datasets.load(tmp_path, "test")
    truth = data.truths_for(SPEC, "masks")[0]
    number = int(data.images.paths[0].stem)
    assert truth.pixels()[0, 0] == 2 - number % 3


def test_parts_made_by_the_user(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        masks(tmp_path / part)
    assert [len(datasets.load(tmp_path, split)) for split in ("train", "test")] == [COUNT, COUNT]


def test_two_kinds_of_truth_in_one_folder_are_refused(tmp_path):
    masks(tmp_path)
    values(tmp_path)
    with pytest.raises(EdgesmithError, match=r"says in two ways .* got images/masks and values.csv"):
        datasets.load(tmp_path, "test")


def good_and_bad(folder):
    for name in images(folder / "good"):
        (folder / "scratched").mkdir(exist_ok=True)
        (folder / "good" / name).rename(folder / ("good" if int(name[:2]) % 2 else "scratched") / name)
    np.save(folder / "bank.npy", np.eye(3, dtype=np.float32))


def test_images_that_are_normal_or_not(tmp_path):
    good_and_bad(tmp_path)
    data = datasets.load(tmp_path, "test")
    assert data.knows("anomalies")
    for truth, path in zip(data.truths_for(SPEC, "anomalies"), data.images.paths, strict=True):
        assert truth.anomalous is (path.parent.name == "scratched")
    assert np.array_equal(data.truths[0].bank(), np.eye(3))


@pytest.mark.parametrize(("change", "message"), [
    (lambda folder: (folder / "good").rename(folder / "fine"), "says of no image that it is normal; got fine, scratch"),
    (lambda folder: np.save(folder / "bank.npy", np.arange(3)), "is no bank"),
    (lambda folder: (folder / "bank.npy").write_text("no"), "cannot read"),
])  # fmt: skip
def test_a_bad_bank_is_refused(change, message, tmp_path):
    good_and_bad(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        datasets.load(tmp_path, "test")


def test_class_folders_say_who_is_alike_and_images_what_they_are(tmp_path):
    good_and_bad(tmp_path)
    (tmp_path / "bank.npy").unlink()
    data = datasets.load(tmp_path, "test")
    assert data.knows("class")
    assert data.knows("identity")
    assert [truth.label for truth in data.truths_for(SPEC, "identity")] == data.labels.tolist()
    assert data.knows("image")
    one = data.truths_for(SPEC, "image")[0]
    assert (one.size, one.pixels().tolist()) == ((8, 8), data.images[0].tolist())
    grey = data.truths_for(ModelSpec("net", (1, 4, 4), 3, preprocess=Preprocess((4, 4), 0, mean=(0.5,), std=(0.5,),
                           channels="GRAY")), "image")[0]  # fmt: skip
    assert grey.pixels().shape == (4, 4, 3)
    assert not datasets.Arrays.of("noise", "test", {"": np.zeros((2, 3))}).knows("image")
