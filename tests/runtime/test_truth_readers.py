"""Readers of data with a truth for each image: what they give, and each bad input refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime.datasets import image_pairs, tables
from edgesmith.runtime.errors import DataError


def png(path, size=(6, 4), mode="RGB", value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


@pytest.fixture
def folder(tmp_path):
    """Three images beside their tables."""
    for name in ("a", "b", "c"):
        png(tmp_path / f"{name}.png")
    return tmp_path


def test_values_with_and_without_a_heading(folder):
    for text in ("a.png,1.5,2\n\nb.png,-3,4e1\n", "file,width,height\na.png, 1.5,2\nb.png,-3,4e1\n"):
        (folder / "values.csv").write_text(text)
        paths, truths, classes = tables.read_values(folder)
        assert [path.name for path in paths] == ["a.png", "b.png"]
        assert [truth.values for truth in truths] == [(1.5, 2.0), (-3.0, 40.0)]
        assert (truths[0].size, classes) == ((4, 6), [])


def test_sets_of_labels_from_a_table_and_an_object(folder):
    (folder / "multilabel.json").write_text(json.dumps({"a.png": ["dog", "cat"], "b.png": []}))
    paths, truths, classes = tables.read_label_sets(folder)
    assert ([path.name for path in paths], classes) == (["a.png", "b.png"], ["cat", "dog"])
    assert [truth.labels.tolist() for truth in truths] == [[0, 1], []]
    (folder / "multilabel.csv").write_text("file,dog,cat\na.png,1,0\nc.png,1,1\n")
    paths, truths, classes = tables.read_label_sets(folder)
    assert ([path.name for path in paths], classes) == (["a.png", "c.png"], ["dog", "cat"])
    assert [truth.labels.tolist() for truth in truths] == [[0], [0, 1]]
    assert truths[1].relabelled(np.array([4, 2])).labels.tolist() == [4, 2]


def test_texts(folder):
    (folder / "texts.txt").write_text("a.png\tHello, world\nb.png\tß 7\n", encoding="utf-8")
    paths, truths, _ = tables.read_texts(folder)
    assert [(path.name, truth.text) for path, truth in zip(paths, truths, strict=True)] == [
        ("a.png", "Hello, world"), ("b.png", "ß 7"),
    ]  # fmt: skip


def test_pairs(folder):
    (folder / "pairs.txt").write_text("a.png\tb.png\t1\na.png\tc.png\t0\n")
    paths, truths, _ = tables.read_pairs(folder)
    assert [path.name for path in paths] == ["a.png", "b.png", "c.png"]
    assert [truth.same for truth in truths] == [(("b.png", True), ("c.png", False)), (), ()]


VALUES, PAIRS = (tables.read_values, "values.csv"), (tables.read_pairs, "pairs.txt")
LABELS, OBJECT = ((tables.read_label_sets, name) for name in ("multilabel.csv", "multilabel.json"))
TEXTS = tables.read_texts, "texts.txt"
TABLES = {
    "values: none": (*VALUES, "", "is empty"),
    "values: a word": (*VALUES, "a.png,1\nb.png,many\n", "values.csv line 2 is not valid; got 'many'"),
    "values: infinite": (*VALUES, "a.png,inf\nb.png,1\n", "line 1 is not valid; got 'inf'"),
    "values: no number": (*VALUES, "a.png\n", "line 1 is not valid"),
    "values: ragged": (*VALUES, "a.png,1\nb.png,1,2\n", "line 2 is not valid; got 2 numbers"),
    "values: twice": (*VALUES, "a.png,1\na.png,2\n", "names an image twice; got a.png"),
    "values: absent": (*VALUES, "no.png,1\n", "line 1 names no image; got 'no.png'"),
    "values: outside": (*VALUES, "../a.png,1\n", "names no image"),
    "values: a heading alone": (*VALUES, "file,age\n", "names no images"),
    "values: a quote": (*VALUES, 'a.png,"1\n', "cannot read"),
    "values: no image": (*VALUES, "values.csv,1\n", "cannot read image"),
    "labels: no heading": (*LABELS, "a.png,1,0\n", "multilabel.csv is not valid"),
    "labels: twice": (*LABELS, "file,x,x\na.png,1,0\n", "multilabel.csv is not valid"),
    "labels: neither": (*LABELS, "file,x\na.png,2\n", "line 2 is not valid; got a.png, 2"),
    "labels: ragged": (*LABELS, "file,x\na.png,1,1\n", "line 2 is not valid"),
    "labels: a list": (*OBJECT, "[1]", "holds no table; got list"),
    "labels: no JSON": (*OBJECT, "{", "cannot read"),
    "labels: deep": (*OBJECT, "[" * 200_000, "cannot read"),
    "labels: a word": (*OBJECT, '{"a.png": "x"}', "is not valid at 'a.png'"),
    "labels: none": (*OBJECT, '{"a.png": []}', "no labels"),
    "labels: absent": (*OBJECT, '{"no.png": ["x"]}', "names no image"),
    "texts: spaces": (*TEXTS, "a.png hello\n", "line 1 is not valid"),
    "texts: no text": (*TEXTS, "a.png\t\n", "line 1 is not valid"),
    "texts: bytes": (*TEXTS, b"a.png\t\xff\n", "cannot read"),
    "texts: absent": (*TEXTS, "x\0.png\thello\n", "line 1 names no image"),
    "pairs: two": (*PAIRS, "a.png\tb.png\n", "line 1 is not valid"),
    "pairs: yes": (*PAIRS, "a.png\tb.png\tyes\n", "line 1 is not valid"),
    "pairs: itself": (*PAIRS, "a.png\ta.png\t1\n", "line 1 is not valid"),
    "pairs: absent": (*PAIRS, "a.png\tno.png\t1\n", "line 1 names no image"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table_is_refused_in_one_line(case, folder):
    read, name, text, message = TABLES[case]
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)


@pytest.fixture
def scenes(tmp_path):
    """Two images in folders, without partners."""
    for name in ("one", "deep/two"):
        png(tmp_path / "images" / f"{name}.png")
    return tmp_path


def test_masks_by_name(scenes):
    png(scenes / "masks" / "one.png", mode="L", value=2)
    classes_of = Image.fromarray(np.array([[0, 1, 2, 1, 255, 0]] * 4, np.uint8))
    classes_of.putpalette(list(range(256)) * 3)  # its colours mean nothing
    (scenes / "masks" / "deep").mkdir()
    classes_of.save(scenes / "masks" / "deep" / "two.png")
    (scenes / "classes.txt").write_text("road\nsky\ntree\n")
    paths, truths, classes = image_pairs.read_masks(scenes)
    assert ([path.name for path in paths], classes) == (["two.png", "one.png"], ["road", "sky", "tree"])
    assert truths[0].pixels()[0].tolist() == [0, 1, 2, 1, 255, 0]
    assert truths[1].size == (4, 6)
    assert truths[0].relabelled(np.array([5, 6, 7])).pixels()[0].tolist() == [5, 6, 7, 6, 255, 5]
    with pytest.raises(DataError, match="has an unknown class; got class 2; expected 0 to 1"):
        truths[0].relabelled(np.array([5, 6])).pixels()


def test_targets_may_have_another_size(scenes):
    for name in ("one", "deep/two"):
        png(scenes / "targets" / f"{name}.png", (12, 8), value=(9, 8, 7))
    _, truths, _ = image_pairs.read_targets(scenes)
    assert (truths[0].pixels().shape, truths[0].size) == ((8, 12, 3), (4, 6))
    assert truths[0].pixels()[0, 0].tolist() == [9, 8, 7]


def test_depths_from_numpy_and_png(scenes):
    (scenes / "depth" / "deep").mkdir(parents=True)
    np.save(scenes / "depth" / "one.npy", np.full((1, 4, 6), 2.5, np.float32))
    Image.fromarray(np.full((4, 6), 640, np.uint16)).save(scenes / "depth" / "deep" / "two.png")
    _, truths, _ = image_pairs.read_depths(scenes)
    assert [float(truth.metres()[0, 0]) for truth in truths] == [2.5, 2.5]
    assert truths[0].metres().shape == (4, 6)
    assert len({b"".join(truth.raw()) for truth in truths}) == 2


def partner(kind, **options):
    def write(folder):
        for name in ("one", "deep/two"):
            png(folder / kind / f"{name}.png", **options)

    return write


def alone(kind):
    def write(folder):
        partner(kind, mode="L")(folder)
        png(folder / kind / "three.png", mode="L")

    return write


FOLDERS = {
    "masks: none": (image_pairs.read_masks, lambda folder: None, "has no partner; got 2 files in images, 0 in masks"),
    "masks: one more": (image_pairs.read_masks, alone("masks"), "three.png has no partner"),
    "masks: colours": (image_pairs.read_masks, partner("masks"), r"holds no classes; got colours \(RGB\)"),
    "masks: a size": (image_pairs.read_masks, partner("masks", mode="L", size=(5, 4)),
                      "another size than its image; got 5x4; expected 6x4"),
    "targets: none": (image_pairs.read_targets, lambda folder: None, "has no partner"),
    "targets: no image": (image_pairs.read_targets, lambda folder: [
        (folder / "targets" / "deep").mkdir(parents=True),
        (folder / "targets" / "one.png").write_text("no"), (folder / "targets" / "deep" / "two.png").write_text("no"),
    ], "cannot read image"),
    "depth: 8 bits": (image_pairs.read_depths, partner("depth", mode="L"), "holds no depths; got a PNG of mode L"),
    "images: none": (image_pairs.read_depths, lambda folder: [
        (folder / "images" / name).unlink() for name in ("one.png", "deep/two.png")
    ], "contains no images"),
    "two of one name": (image_pairs.read_masks, lambda folder: png(folder / "images" / "one.jpg"),
                        "two files have one name"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_bad_folder_is_refused_in_one_line(case, scenes):
    read, write, message = FOLDERS[case]
    write(scenes)
    with pytest.raises(DataError, match=message) as error:
        read(scenes)
    assert "\n" not in str(error.value)


def test_a_map_of_depths_that_is_none_is_refused(scenes):
    path = scenes / "one.npy"
    np.save(path, np.zeros((4, 6, 3)))
    with pytest.raises(DataError, match="holds no map of depths"):
        image_pairs.DepthMap((4, 6), path).metres()
