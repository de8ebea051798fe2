"""COCO JSON, YOLO folders and VOC XML: the same objects from each; hostile and broken files are refused in one line."""

import json

import numpy as np
import pytest
from PIL import Image

from edgesmith.runtime import datasets
from edgesmith.runtime.datasets import objects, yolo_folder
from edgesmith.runtime.datasets.truths import KINDS
from edgesmith.runtime.errors import DataError, EdgesmithError, UsageError
from edgesmith.runtime.images.settings import Preprocess
from edgesmith.runtime.spec import ModelSpec

SIZE = (40, 60)  # height, width
NAMES = ("cat", "dog", "owl")
# Image -> objects: class, x1, y1, x2, y2.
OBJECTS = {"a": [(0, 3, 4, 20, 30), (2, 10, 0, 60, 40)], "b": [], "c": [(1, 0, 0, 9, 9)], "d": [(1, 5, 6, 7, 8)]}
CROWD = ("a", 1)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), sum(path.stem.encode()) % 256, np.uint8)).save(path)


def coco_text(names="abcd", start=1, **change):
    """COCO numbers categories with gaps, and not from 0."""
    images = [{"id": start + at, "file_name": f"{name}.png", "width": 1, "height": 1} for at, name in enumerate(names)]
    found = [
        {"id": 100 * at + number, "image_id": start + at, "category_id": 7 + 3 * label,
         "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int((name, number) == CROWD), "area": (x2 - x1) * (y2 - y1) / 2}
        for at, name in enumerate(names)
        for number, (label, x1, y1, x2, y2) in enumerate(OBJECTS[name])
    ]  # fmt: skip
    categories = [{"id": 7 + 3 * label, "name": name} for label, name in enumerate(NAMES)]
    return json.dumps({"info": {}, "images": images, "annotations": found, "categories": categories[::-1], **change})


def as_coco(folder):
    for name, split in zip("abcd", ("val2017", "val2017", "train2017", "train2017"), strict=True):
        picture(folder / split / f"{name}.png")
    (folder / "annotations").mkdir()
    for split, names in (("val2017", "ab"), ("train2017", "cd")):
        (folder / "annotations" / f"instances_{split}.json").write_text(coco_text(names))
        (folder / "annotations" / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')
    return folder


def as_roboflow_coco(folder):
    for name, split in zip("abcd", ("valid", "valid", "train", "train"), strict=True):
        picture(folder / split / f"{name}.png")
    for split, names in (("valid", "ab"), ("train", "cd")):
        (folder / split / "_annotations.coco.json").write_text(coco_text(names))
    return folder


YAML = """# made by hand
path: ../datasets/animals  # where it once lay
train: ../train/images
val: val/images
nc: 3
names: ['cat', "dog", owl]
download: |
  from somewhere import something
"""


def as_yolo(folder, yaml=YAML):
    for name, split in zip("abcd", ("val", "val", "train", "train"), strict=True):
        picture(folder / split / "images" / f"{name}.png")
        lines = [
            f"{label} {(x1 + x2) / 120} {(y1 + y2) / 80} {(x2 - x1) / 60} {(y2 - y1) / 40}"
            for label, x1, y1, x2, y2 in OBJECTS[name]
        ]
        if lines:
            (folder / split / "labels").mkdir(exist_ok=True)
            (folder / split / "labels" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    (folder / "data.yaml").write_text(yaml)
    return folder


def as_yolo_outlines(folder):
    """Outlines in place of boxes, and classes as a table."""
    as_yolo(folder, "train: train/images\nval:\n  - val/images\nnames:\n  0: cat\n  1: 'dog'\n  2: owl\n")
    for path in folder.rglob("*.txt"):
        lines = [line.split() for line in path.read_text().splitlines()]
        texts = []
        for label, *values in lines:
            x, y, w, h = map(float, values)
            corners = [x - w / 2, y, x, y - h / 2, x + w / 2, y, x, y + h / 2]
            texts.append(" ".join([label, *map(str, corners)]))
        path.write_text("\n".join(texts))
    return folder


XML = """<annotation><filename>{name}.png</filename><size><width>60</width></size>{objects}</annotation>"""
XML_OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>
<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"""


def as_voc(folder):
    (folder / "Annotations").mkdir(parents=True)
    for name in "abcd":
        picture(folder / "JPEGImages" / f"{name}.png")
        text = "".join(
            XML_OBJECT.format(
                name=NAMES[label], difficult=int((name, number) == CROWD), x1=x1 + 1, y1=y1 + 1, x2=x2, y2=y2
            )
            for number, (label, x1, y1, x2, y2) in enumerate(OBJECTS[name])
        )
        (folder / "Annotations" / f"{name}.xml").write_text(XML.format(name=name, objects=text))
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\nb\n")
    (lists / "train.txt").write_text("c\nd\n")
    return folder


FORMATS = [as_coco, as_roboflow_coco, as_yolo, as_yolo_outlines, as_voc]


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_gives_the_same_objects(write, tmp_path):
    folder = write(tmp_path / "animals")
    for split, names in (("test", "ab"), ("train", "cd"), ("hard", "ab"), ("calibration", "cd")):
        data = datasets.load(folder, split)
        assert (len(data), data.classes, data.kinds) == (2, NAMES, {"boxes"})
        assert (data.labelled, data.knows("boxes"), data.knows("class")) == (False, True, False)
        for name, image, truth in zip(names, data.images, data.truths, strict=True):
            expected = np.array(OBJECTS[name]).reshape(-1, 5)
            assert (image.shape[:2], truth.size) == (SIZE, SIZE)
            assert truth.labels.tolist() == expected[:, 0].tolist()
            assert np.allclose(truth.boxes, expected[:, 1:], atol=1e-4)
    assert (datasets.load(folder, "hard").images[0] != datasets.load(folder, "test").images[0]).any()


def test_what_coco_says_besides(tmp_path):
    truth = datasets.load(as_coco(tmp_path), "test").truths[0]
    assert truth.crowd.tolist() == [False, True]
    assert truth.areas.tolist() == [17 * 26 / 2, 50 * 40 / 2]
    voc = datasets.load(as_voc(tmp_path / "voc"), "test").truths[0]
    assert voc.crowd.tolist() == [False, True]


def test_one_file_is_divided_and_the_digest_knows_the_boxes(tmp_path):
    for at in range(12):
        picture(tmp_path / "images" / f"p{at}.png")
    images = [{"id": at, "file_name": f"p{at}.png"} for at in range(12)]
    one = {"image_id": 3, "category_id": 1, "bbox": [1, 1, 5, 5]}
    digests = set()
    for box in ([1, 1, 5, 5], [1, 1, 5, 6]):
        content = {"images": images, "annotations": [{**one, "bbox": box}], "categories": [{"id": 1, "name": "x"}]}
        (tmp_path / "own.json").write_text(json.dumps(content))
        test, train = (datasets.load(tmp_path / "own.json", split) for split in ("test", "train"))
        assert 0 < len(test) < 12
        assert {*test.images.paths} | {*train.images.paths} == {*(tmp_path / "images").iterdir()}
        assert not {*test.images.paths} & {*train.images.paths}
        digests |= {test.digest, train.digest}
    assert len(digests) == 3
    assert len(train.pick([1, 2]).truths) == len(train.head(2).truths) == 2


def test_keypoints_are_read_where_there_are_any(tmp_path):
    picture(tmp_path / "a.png")
    people = [
        {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "keypoints": [2, 3, 2, 4, 4, 0]},
        {"image_id": 1, "category_id": 1, "bbox": [9, 9, 5, 5]},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": people,
        "categories": [{"id": 1, "name": "p"}],
    }
    (tmp_path / "val.json").write_text(json.dumps(content))
    (tmp_path / "train.json").write_text(json.dumps(content))
    data = datasets.load(tmp_path, "test")
    assert data.kinds == {"boxes", "keypoints"} <= set(KINDS)
    assert data.truths[0].keypoints.tolist() == [[[2, 3, 2], [4, 4, 0]], [[0, 0, 0], [0, 0, 0]]]


SPEC = ModelSpec("net", (3, 8, 8), 3, task="detect", labels=("owl", "cat", "dog"), preprocess=Preprocess((8, 8), 0))
FITS = {
    "by name": (SPEC.labels, 3, [1, 0]), "by order": ((), 3, [0, 2]),
    "of more": (("x", "owl", "y", "cat", "dog"), 5, [3, 1]),
    "other classes": (("a", "b"), 2, None), "a number alone": ((), 80, None),
}  # fmt: skip


@pytest.mark.parametrize("case", FITS)
def test_classes_are_those_of_the_network(case, tmp_path):
    labels, count, expected = FITS[case]
    data = datasets.load(as_coco(tmp_path), "test")
    spec = ModelSpec("net", (3, 8, 8), count, task="detect", labels=labels, preprocess=Preprocess((8, 8), 0))
    if expected is None:
        with pytest.raises(UsageError, match=f"3 classes in {tmp_path.stem}, {count} in net"):
            data.truths_for(spec, "boxes")
    else:
        assert data.truths_for(spec, "boxes")[0].labels.tolist() == expected


def changed(change):
    """Write a COCO data set whose val file `change` changes."""

    def write(folder):
        as_coco(folder)
        path = folder / "annotations" / "instances_val2017.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return write


def one(**values):
    return changed(lambda content: content["annotations"][0].update(values))


def image(**values):
    return changed(lambda content: content["images"][1].update(values))


def many(content):
    content["annotations"] *= 500_001


def yolo_line(text):
    def write(folder):
        as_yolo(folder)
        (folder / "val" / "labels" / "a.txt").write_text(text)

    return write


def yolo_yaml(text):
    return lambda folder: as_yolo(folder, text)


def voc_text(old, new):
    def write(folder):
        as_voc(folder)
        path = folder / "Annotations" / "a.xml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return write


HEAD = "names: [cat, dog, owl]\n"
HOSTILE = {
    "a path that leaves": (image(file_name="../../secret.png"), "outside its folder"),
    "an absolute path": (image(file_name="/etc/passwd"), "outside its folder"),
    "no name": (image(file_name=None), "outside its folder"),
    "an image that is missing": (image(file_name="gone.png"), "image 2 is missing"),
    "a box of NaN": (one(bbox=[float("nan"), 0, 1, 1]), "a box that cannot be"),
    "a box of infinity": (one(bbox=[0, 0, float("inf"), 1]), "a box that cannot be"),
    "a box of words": (one(bbox=["0", 0, 1, 1]), "a box that is none"),
    "a box of three": (one(bbox=[0, 0, 1]), "a box that is none"),
    "no box": (one(bbox=None), "a box that is none"),
    "a box turned round": (one(bbox=[5, 5, -3, 3]), "a box that cannot be"),
    "a box elsewhere": (one(bbox=[500, 500, 3, 3]), "a box that cannot be"),
    "a huge box": (one(bbox=[0, 0, 1e300, 3]), "a box that cannot be"),
    "a class that is none": (one(category_id=99), "an object of nothing"),
    "a class of text": (one(category_id="7"), "a whole number"),
    "an image that is none": (one(image_id=99), "an object of nothing"),
    "an area of NaN": (one(area=float("nan")), "an area that is none"),
    "a million boxes": (changed(many), "too many objects"),
    "two images of one number": (image(id=1), "each with its own id"),
    "no list": (changed(lambda content: content.update(annotations={})), "not COCO's"),
    "no images": (changed(lambda content: content.update(images=[], annotations=[])), "is not valid"),
    "no JSON": (lambda folder: (as_coco(folder) / "annotations" / "instances_val2017.json").write_text('{"images": ['),
                "cannot read"),
    "deep JSON": (lambda folder: (as_coco(folder) / "annotations" / "instances_val2017.json").write_text(
        '{"images": ' + "[" * 100_000), "cannot read"),
    "YOLO: a class": (yolo_line("3 0.5 0.5 0.1 0.1"), "an unknown class; got 3; expected 0 to 2"),
    "YOLO: half a class": (yolo_line("0.5 0.5 0.5 0.1 0.1"), "an unknown class"),
    "YOLO: a negative class": (yolo_line("-1 0.5 0.5 0.1 0.1"), "an unknown class"),
    "YOLO: NaN": (yolo_line("0 nan 0.5 0.1 0.1"), "line 1 is not valid"),
    "YOLO: a class of NaN": (yolo_line("nan 0.5 0.5 0.1 0.1"), "an unknown class"),
    "YOLO: pixels": (yolo_line("0 30 20 10 10"), "shares of the image"),
    "YOLO: words": (yolo_line("cat 0.5 0.5 0.1 0.1"), "line 1 is not valid"),
    "YOLO: three numbers": (yolo_line("0 0.5 0.5 0.1"), "line 1 is not valid"),
    "YOLO: leaves": (yolo_yaml(HEAD + "val: ../../elsewhere\n"), "not in its folder"),
    "YOLO: absolute": (yolo_yaml(HEAD + "val: /etc\n"), "not in its folder"),
    "YOLO: a list leaves": (lambda folder: (as_yolo(folder, HEAD + "val: val.txt\n") / "val.txt").write_text("../x"),
                                 "outside its folder"),
    "YOLO: nothing": (yolo_yaml(HEAD), "names no images"),
    "YOLO: nc": (yolo_yaml("names: [cat, dog]\nnc: 3\nval: val/images\n"), "no list of classes"),
    "YOLO: names twice": (yolo_yaml("names: [cat, cat]\nval: val/images\n"), "no list of classes"),
    "YOLO: a gap": (yolo_yaml("names:\n  0: cat\n  2: dog\nval: val/images\n"), "no list of classes"),
    "VOC: entities": (voc_text("<annotation>", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>'),
                      "declares a document type"),
    "VOC: no XML": (voc_text("</annotation>", ""), "cannot read"),
    "VOC: leaves": (voc_text("a.png", "../../a.png"), "outside its folder"),
    "VOC: an image that is missing": (voc_text("a.png", "gone.png"), "is missing"),
    "VOC: a box of words": (voc_text("<xmin>4</xmin>", "<xmin>left</xmin>"), "a box that is none"),
    "VOC: no box": (voc_text("<xmin>4</xmin>", ""), "a box that is none"),
    "VOC: NaN": (voc_text("<xmin>4</xmin>", "<xmin>nan</xmin>"), "a box that cannot be"),
    "VOC: no name": (voc_text("<name>cat</name>", "<name/>"), "without a name"),
    "VOC: a list of others": (lambda folder: (as_voc(folder) / "ImageSets" / "Main" / "val.txt").write_text("z\n"),
                              "without a file in Annotations"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_and_broken_files_are_refused_in_one_line(case, tmp_path):
    write, message = HOSTILE[case]
    write(tmp_path / "data")
    with pytest.raises(EdgesmithError) as refusal:
        datasets.load(tmp_path / "data", "test")
    text = str(refusal.value)
    assert message in text
    assert len(text.splitlines()) == 1
    assert len(text) < 700


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    picture(tmp_path / "secret.png")
    folder = as_yolo(tmp_path / "data")
    (folder / "val" / "images" / "z.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match="outside its folder"):
        datasets.load(folder, "test")


def test_images_without_any_label_are_refused(tmp_path):
    folder = as_yolo(tmp_path / "data")
    (folder / "val" / "labels" / "a.txt").unlink()
    with pytest.raises(DataError, match="have no labels"):
        datasets.load(folder, "test")


YAMLS = {
    "a comment in quotes": ("names: ['a # b', \"c: d\"]", {"names": ["a # b", "c: d"]}),
    "a table in one line": ("names: {0: cat, 1: 'a, b'}", {"names": {"0": "cat", "1": "a, b"}}),
    "a list": ("names:\n- cat\n- dog # two", {"names": ["cat", "dog"]}),
    "nothing": ("test:\nnames: []", {"test": None, "names": []}),
    "a block": ("download: |\n  x: y\nnc: 3", {"download": "|", "nc": "3"}),
    "a colon in a word": ("path: C:/data", {"path": "C:/data"}),
}


@pytest.mark.parametrize("case", YAMLS)
def test_the_few_forms_of_yaml(case, tmp_path):
    text, expected = YAMLS[case]
    (tmp_path / "data.yaml").write_text(text)
    assert yolo_folder.read_yaml(tmp_path / "data.yaml") == expected


@pytest.mark.parametrize("seed", range(4))
def test_random_names_are_read_as_yaml_reads_them(seed, tmp_path):
    yaml = pytest.importorskip("yaml")
    rng = np.random.default_rng(seed)
    names = ["".join(rng.choice(list("ab c:-'\",#{}[]"), 6)).strip() or "x" for _ in range(8)]
    content = {"train": "train/images", "names": {at: f"n{name}" for at, name in enumerate(names)}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    own = yolo_folder.read_yaml(tmp_path / "data.yaml")
    plain = [name for name in names if not set(name) & set("'\"")]  # escapes in quotes are not undone
    assert own["train"] == "train/images"
    for at, name in enumerate(names):
        if name in plain:
            assert own["names"][str(at)] == f"n{name}", names


def test_an_image_has_no_more_objects_than_a_data_set(monkeypatch, tmp_path):
    monkeypatch.setattr(objects, "MOST_OBJECTS", 1)
    for write in (as_coco, as_yolo, as_voc):
        folder = write(tmp_path / write.__name__)
        with pytest.raises(DataError, match="too many objects"):
            datasets.load(folder, "test")


def test_a_folder_that_says_it_in_two_ways_is_refused(tmp_path):
    folder = as_coco(tmp_path / "data")
    for name in ("images", "masks"):
        picture(folder / name / "a.png")
    with pytest.raises(DataError, match="says in two ways what its images show; got images and masks"):
        datasets.load(folder, "test")
