"""A real video file through OpenCV, where OpenCV is installed (it is optional, so not in the development set)."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.runtime.serving import frame_sources
from support.bundles import LABELS, colour_bundle, picture

cv2 = pytest.importorskip("cv2")


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "x.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (96, 64))
    for colour in LABELS:
        writer.write(np.ascontiguousarray(picture(colour, (64, 96))[..., ::-1]))
    writer.release()
    return path


def test_a_video_gives_its_frames_in_rgb(video):
    found = list(frame_sources.frames(str(video)))
    assert [frame.shape for frame in found] == [(64, 96, 3)] * 3
    assert [frame.mean(axis=(0, 1)).argmax() for frame in found] == [0, 1, 2]


def test_run_answers_every_frame_of_a_video(video, tmp_path):
    made = colour_bundle(tmp_path / "colours")
    words = ["run", made.folder, "--source", video, "--json", "--device", "ort", "--out", tmp_path / "out"]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0
    value = json.loads(done.stdout)
    assert [row["top"][0]["label"] for row in value["images"]] == list(LABELS)
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("name", ["drawn.avi", "drawn.mp4"])
def test_annotated_frames_become_a_video(video, tmp_path, name):
    made = colour_bundle(tmp_path / "colours")
    out = tmp_path / name
    words = ["run", made.folder, "--source", video, "--device", "ort", "--out", out]
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    drawn = list(frame_sources.frames(str(out)))
    assert [frame.shape for frame in drawn] == [(64, 96, 3)] * 3
    assert [frame[40:].mean(axis=(0, 1)).argmax() for frame in drawn] == [0, 1, 2]
    assert [path.name for path in tmp_path.iterdir() if "drawn" in path.name] == [name]


def test_frames_of_other_sizes_take_the_first_ones(tmp_path):
    kept = frame_sources.open_writer(tmp_path / "x.avi")
    for index, size in enumerate(((64, 96), (32, 48))):
        kept.add(index, picture("red", size))
    kept.close()
    assert [frame.shape for frame in frame_sources.frames(str(tmp_path / "x.avi"))] == [(64, 96, 3)] * 2
