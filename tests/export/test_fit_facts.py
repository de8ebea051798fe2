"""Fit and fill from options, a TOML file and Ultralytics' metadata: who is believed, and what is refused."""

import json

import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli.spec import spec_command
from edgesmith.export.sources.facts import Facts
from edgesmith.export.sources.onnx_file import _add_ultralytics
from edgesmith.export.sources.options import SpecOptions
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.images.resize import INTERPOLATIONS
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.quant_graphs import Graph

YOLO = {"description": "Ultralytics YOLOv8n model", "imgsz": "[16, 24]", "names": "{0: 'cat', 1: 'dog'}"}


def settings_of(options, task="", base=None):
    """Return the preprocessing of a 16x24 input by options, then a file's metadata, then guesses."""
    facts = SpecOptions(**options).facts()
    if task:
        _add_ultralytics({**YOLO, "task": task}, facts)
    if base:
        facts.add_spec("the file's metadata", ModelSpec("net", (3, 16, 24), 1, "features", preprocess=base))
    facts.add("the graph", shape=(3, 16, 24), layout="NCHW", num_classes=2)
    return facts.spec().preprocess


LETTERBOX = Preprocess((16, 24), 0, fit="letterbox", fill=9)
# options, the metadata's task, a spec in the file -> fit, shorter side, fill
BELIEVED = {
    "nobody": ({}, "", None, "stretch", 0, 114),
    "a classifier": ({"task": "classify"}, "", None, "crop", 18, 114),
    "the option": ({"fit": "letterbox"}, "", None, "letterbox", 0, 114),
    "with a fill": ({"fit": "pad", "fill": "0"}, "", None, "pad", 0, 0),
    "a fill for each colour": ({"fit": "pad", "fill": "1,2,3"}, "", None, "pad", 0, (1, 2, 3)),
    "a crop, its side guessed": ({"fit": "crop"}, "", None, "crop", 18, 114),
    "a crop and its side": ({"fit": "crop", "resize": "20"}, "", None, "crop", 20, 114),
    "the side alone": ({"resize": "20"}, "", None, "crop", 20, 114),
    "stretch as before": ({"resize": "stretch"}, "", None, "stretch", 0, 114),
    "stretch in both": ({"resize": "stretch", "fit": "stretch"}, "", None, "stretch", 0, 114),
    "a detector of Ultralytics": ({}, "detect", None, "letterbox", 0, 114),
    "its segmenter": ({}, "segment", None, "letterbox", 0, 114),
    "its poses": ({}, "pose", None, "letterbox", 0, 114),
    "its turned boxes": ({}, "obb", None, "letterbox", 0, 114),
    "its classifier": ({}, "classify", None, "crop", 16, 114),
    "the user, not Ultralytics": ({"resize": "stretch"}, "detect", None, "stretch", 0, 114),
    "the user's side, not Ultralytics": ({"resize": "20"}, "detect", None, "crop", 20, 114),
    "the user's fill beside Ultralytics' fit": ({"fill": "0"}, "detect", None, "letterbox", 0, 0),
    "the user's crop is not a side of 0": ({"fit": "crop"}, "", Preprocess((16, 24), 0), "crop", 18, 114),
    "the file": ({}, "", LETTERBOX, "letterbox", 0, 9),
    "the user, not the file": ({"fit": "pad"}, "", LETTERBOX, "pad", 0, 114),
}  # fmt: skip


@pytest.mark.parametrize("case", BELIEVED)
def test_who_is_believed(case):
    options, task, base, *expected = BELIEVED[case]
    got = settings_of(options, task, base)
    assert [got.fits, got.resize, got.fill] == expected
    assert got.is_early == (got.fits in ("crop", "stretch") and "-" not in got.interpolation)


def test_ultralytics_resizes_with_opencv():
    assert settings_of({}, "detect").interpolation == "opencv-linear"
    assert settings_of({}, "classify").interpolation == "bilinear"


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_every_way_of_resizing_has_a_name(name, tmp_path):
    assert settings_of({"interpolation": name}).interpolation == name
    (tmp_path / "net.toml").write_text(f'[preprocess]\ninterpolation = "{name}"\n')
    assert settings_of({"spec": tmp_path / "net.toml"}).interpolation == name


BAD = {
    "no fit": ({"fit": "squash"}, "unknown --fit 'squash'.*expected crop, stretch, letterbox, pad"),
    "a side of a letterbox": ({"fit": "letterbox", "resize": "20"}, "got --fit letterbox, --resize 20"),
    "a crop that stretches": ({"fit": "crop", "resize": "stretch"}, "got --fit crop, --resize stretch"),
    "a fill of a crop": ({"fill": "0"}, "nothing is filled; got fill .--fill., fit stretch"),
    "a fill of two": ({"fit": "pad", "fill": "0,1"}, "the fill does not fit.*expected 3 numbers"),
    "too bright": ({"fit": "pad", "fill": "256"}, "cannot use --fill; got 256.0; expected pixels, 0 to 255"),
    "no number": ({"fit": "pad", "fill": "grey"}, "cannot read --fill"),
}
BAD_FILES = {
    "no fit": ('fit = "leterbox"', "preprocess.fit in .*net.toml cannot be used; got 'leterbox'.*letterbox"),
    "no way of resizing": ('interpolation = "opencv"', "preprocess.interpolation in .*expected nearest"),
    "a number": ("fit = 3", "preprocess.fit in .* cannot be used"),
    "a side of a letterbox": ('fit = "letterbox"\nresize = 20', "fit letterbox, preprocess.resize 20"),
    "a word": ('fill = "grey"', "preprocess.fill in .* cannot be used"),
    "a list of nothing": ("fill = []", "preprocess.fill in .* cannot be used"),
    "too dark": ("fill = -1", "expected pixels, 0 to 255"),
    "no yes": ("enlarge = 1", "preprocess.enlarge in .* expected true or false"),
    "useless": ("enlarge = false", "nothing is filled; got enlarge"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_contradiction_is_refused(case):
    options, message = BAD[case]
    with pytest.raises(UsageError, match=message):
        settings_of(options)


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_contradiction_in_a_file_is_refused(case, tmp_path):
    text, message = BAD_FILES[case]
    (tmp_path / "net.toml").write_text(f"[preprocess]\n{text}\n")
    with pytest.raises(UsageError, match=message):
        settings_of({"spec": tmp_path / "net.toml"})


def test_the_draft_shows_it_and_can_be_read(tmp_path):
    graph = Graph()
    graph.conv("input", "y", (8, 3, 3, 3))
    onnx.save(
        graph.model({"y": [1, 8, 16, 24]}, (1, 3, 16, 24), metadata={**YOLO, "task": "detect"}), tmp_path / "yolo.onnx"
    )
    source, draft = str(tmp_path / "yolo.onnx"), tmp_path / "net.toml"
    done = CliRunner().invoke(spec_command, [source, "-o", str(draft)])
    assert done.exit_code == 0, done.output
    assert 'fit = "letterbox"  # Ultralytics\' metadata' in draft.read_text()
    assert "fill = 114  # Ultralytics' metadata" in draft.read_text()
    draft.write_text(draft.read_text().replace("fill = 114", "enlarge = false\nfill = [0, 1.5, 2]"))
    done = CliRunner().invoke(spec_command, [source, "--spec", str(draft), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["fill"]["value"], facts["enlarge"]["value"], facts["fit"]["value"]) == (
        [0, 1.5, 2],
        False,
        "letterbox",
    )
    done = CliRunner().invoke(spec_command, [source, "--fit", "pad", "--fill", "0", "--json"])
    assert json.loads(done.stdout)["fit"] == {"value": "pad", "origin": "--fit"}


def test_a_fact_that_no_spec_has_is_a_mistake_of_ours():
    with pytest.raises(KeyError):
        Facts().add("nobody", shade=3)


ULTRALYTICS = {
    "classify": ({}, "classify", None), "detect": ({}, "detect", None), "segment": ({}, "features", None),
    "obb": ({}, "features", None), "pose": ({"kpt_shape": "[17, 3]"}, "keypoints", {"dimensions": 3}),
    "pose ": ({"kpt_shape": "[4, 2]", "task": "pose"}, "keypoints", {"dimensions": 2}),
    "pose  ": ({"kpt_shape": "many", "task": "pose"}, "keypoints", None),
}  # fmt: skip


@pytest.mark.parametrize("case", ULTRALYTICS)
def test_the_task_of_ultralytics_metadata(case):
    texts, task, decoder = ULTRALYTICS[case]
    facts = Facts()
    _add_ultralytics({**YOLO, "task": case, **texts}, facts)
    assert (facts.get("task"), facts.get("decoder")) == (task, decoder)
