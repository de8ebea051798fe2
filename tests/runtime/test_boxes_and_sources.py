"""Boxes against a brute-force reference, class maps, and frames from folders, animations and videos."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgesmith.cli import main
from edgesmith.runtime import load
from edgesmith.runtime.errors import DataError, NotAvailable, RunError, UsageError
from edgesmith.runtime.images.boxes import nms
from edgesmith.runtime.model import Answer
from edgesmith.runtime.serving import frame_sources
from support.bundles import LABELS, colour_bundle, picture


def reference_nms(boxes, scores, threshold, classes):
    """Count pixels of integer boxes, pair by pair: slow, and nothing in common with the formula."""

    def cells(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    kept = []
    for at in sorted(range(len(boxes)), key=lambda at: (-scores[at], at)):
        clash = False
        for other in kept:
            both, either = cells(boxes[at]) & cells(boxes[other]), cells(boxes[at]) | cells(boxes[other])
            same = classes is None or classes[at] == classes[other]
            clash |= same and bool(either) and len(both) > threshold * len(either)
        if not clash:
            kept.append(at)
    return kept


box = st.tuples(*[st.integers(0, 9)] * 4)


@given(st.lists(st.tuples(box, st.integers(0, 5), st.integers(0, 1)), max_size=12), st.sampled_from([0.0, 0.3, 0.5]))
@settings(deadline=None, max_examples=150)
def test_nms_is_the_brute_force_reference(items, threshold):
    boxes = np.array([one[0] for one in items], dtype=np.int64).reshape(-1, 4)
    scores = np.array([one[1] for one in items], dtype=np.float64)
    classes = np.array([one[2] for one in items])
    for given_classes in (None, classes):
        got = nms(boxes, scores, threshold, given_classes)
        assert got.tolist() == reference_nms(boxes.tolist(), scores, threshold, given_classes)


def test_nms_rejects_what_does_not_fit():
    with pytest.raises(DataError, match="do not fit"):
        nms(np.zeros((2, 3)), np.zeros(2), 0.5)
    with pytest.raises(DataError, match="NaN"):
        nms(np.full((1, 4), np.nan), np.zeros(1), 0.5)


def test_a_class_map_is_the_best_class_of_each_pixel():
    logits = np.zeros((3, 2, 2))
    logits[2, 0, 1] = logits[1, 1, 0] = 5
    answer = Answer({"output": logits}, task="segment")
    assert answer.class_map().tolist() == [[0, 2], [1, 0]]
    with pytest.raises(DataError, match="does not classify"):
        answer.top(1)
    with pytest.raises(DataError, match="does not segment"):
        Answer({"output": np.zeros(3)}).class_map()
    drawn = answer.draw(np.full((8, 8, 3), 100, np.uint8))
    assert len({tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}) == 3


BOXES = {
    "inside": ([0.5, 0.25, 0.5, 0.5], (0.25, 0.0, 0.75, 0.5)),
    "cut off at the edge": ([0.9, 0.9, 0.4, 0.4], (0.7, 0.7, 1.0, 1.0)),
}


@pytest.mark.parametrize("case", BOXES)
def test_a_box_has_corners_inside_the_image(case):
    values, corners = BOXES[case]
    answer = Answer({"output": np.array(values)}, task="localise")
    assert tuple(vars(answer.box()).values()) == pytest.approx(corners)
    drawn = answer.draw(np.zeros((20, 40, 3), np.uint8))
    rows, columns = np.nonzero(drawn[..., 0])
    assert (columns.min(), rows.min()) == (round(40 * corners[0]), round(20 * corners[1]))
    with pytest.raises(DataError, match="does not localise; got task classify, an output of shape"):
        Answer({"output": np.array(values)}).box()
    with pytest.raises(DataError, match="does not classify; got task localise"):
        answer.top(1)


def save_gif(path, colours):
    first, *rest = [Image.fromarray(picture(colour)) for colour in colours]
    first.save(path, save_all=True, append_images=rest)


def test_frames_of_files_folders_and_animations(tmp_path):
    for name in ("b.png", "a.png"):
        Image.fromarray(picture("red")).save(tmp_path / name)
    save_gif(tmp_path / "x.gif", ["red", "green", "blue"])
    assert list(frame_sources.frames(str(tmp_path))) == [tmp_path / "a.png", tmp_path / "b.png"]
    assert list(frame_sources.frames(str(tmp_path / "a.png"))) == [tmp_path / "a.png"]
    found = list(frame_sources.frames(str(tmp_path / "x.gif")))
    assert [frame.mean(axis=(0, 1)).argmax() for frame in found] == [0, 1, 2]
    (tmp_path / "x.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="cannot read animation"):
        list(frame_sources.frames(str(tmp_path / "x.gif")))


def test_a_video_needs_opencv_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "x.mp4").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    for source in (str(tmp_path / "x.mp4"), "camera", "camera:1"):
        with pytest.raises(NotAvailable, match="needs OpenCV; .*do: pip install opencv-python-headless"):
            frame_sources.frames(source)


class Capture:
    """What OpenCV's capture does when a cable is pulled after two frames."""

    released = False

    def __init__(self):
        self.left = 2

    def read(self):
        self.left -= 1
        return self.left >= 0, picture("red")[..., ::-1]

    def release(self):
        self.released = True


def test_an_unplugged_camera_is_an_error_and_the_end_of_a_file_is_not():
    for live in (True, False):
        capture, found = Capture(), []
        try:
            found.extend(frame_sources._grabbed(capture, "camera", live))
            ended = "quietly"
        except RunError as error:
            ended = str(error)
        assert len(found) == 2
        assert (found[0] == picture("red")).all()
        assert ended == ("camera returns no more frames; do: check its cable" if live else "quietly")
        assert capture.released


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot read source nowhere"):
        frame_sources.frames("nowhere")
    with pytest.raises(UsageError, match="contains no images"):
        frame_sources.frames(str(tmp_path))
    with pytest.raises(UsageError, match="cannot write .*; got .doc; expected a folder, .gif, .mp4, .avi, .mkv"):
        frame_sources.open_writer(tmp_path / "x.doc")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


def test_the_label_is_drawn_on_the_picture(made):
    with load(made, device="ort", threads=1) as model:
        image = picture("green", (120, 160))
        before = image.copy()
        drawn = model(image).draw(image)
    assert drawn.shape == image.shape
    assert (image == before).all()
    changed = (drawn != image).any(axis=2)
    assert changed[:12].any()
    assert not changed[60:].any()


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_run_on_a_stream_writes_pictures_and_counts(made, tmp_path):
    save_gif(tmp_path / "x.gif", LABELS)
    done = call("run", made.folder, "--source", tmp_path / "x.gif", "--out", tmp_path / "out", "--top", 1, "--json")
    assert done.exit_code == 0
    value = json.loads(done.stdout)
    assert [row["top"][0]["label"] for row in value["images"]] == list(LABELS)
    assert value["counts"] == {"read": 3, "answered": 3, "failed": 0, "dropped": 0}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000002.png"]


def test_run_writes_an_animation(made, tmp_path):
    save_gif(tmp_path / "x.gif", LABELS)
    done = call("run", made.folder, "--source", tmp_path / "x.gif", "--out", tmp_path / "drawn.gif", "--device", "ort")
    assert (done.exit_code, "3 answered" in done.stdout) == (0, True)
    with Image.open(tmp_path / "drawn.gif") as drawn:
        assert drawn.n_frames == 3


def test_a_bad_frame_in_a_stream_is_counted_and_ends_with_one(made, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture("red")).save(folder / "0.png")
    (folder / "1.png").write_bytes(b"no")
    done = call("run", made.folder, "--source", folder, "--json", "--device", "ort")
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert value["counts"] == {"read": 2, "answered": 1, "failed": 1, "dropped": 0}
    assert "cannot read image" in value["images"][1]["error"]
