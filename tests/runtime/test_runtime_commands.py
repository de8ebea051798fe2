"""`run`, `verify` and `doctor` through the command line: what they print, their JSON and their exit codes."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.cli import main
from edgesmith.runtime import bundle
from support.bundles import colour_bundle, picture


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in ("red", "blue"):
        Image.fromarray(picture(colour)).save(folder / f"{colour}.png")
    return folder


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_run_names_what_is_on_each_image(made, pictures):
    done = call("run", made.folder, pictures, "--top", 1, "--threads", 1, "--json")
    assert done.exit_code == 0
    value = json.loads(done.stdout)
    assert [row["top"][0]["label"] for row in value["images"]] == ["blue", "red"]
    assert value["why"].startswith("chosen: colours-")


def test_run_answers_first_and_says_why_when_asked(made, pictures):
    words = ["run", made.folder, pictures / "red.png", "--device", "ort", "--precision", "fp32"]
    done = call(*words)
    assert done.exit_code == 0
    first, *others = done.stdout.splitlines()
    assert re.fullmatch(r"red  [\d.]+ %   colours-fp32 on ort, [\d.]+ ms", first)
    assert [line.split()[0] for line in others if "%" in line] == ["red", "green", "blue"]
    assert "chosen" not in done.stdout
    assert "chosen: colours-fp32 (fp32, generic) with ort on the cpu" in call(*words, "--why").stdout


def test_run_draws_a_line_for_each_of_several_images(made, pictures):
    done = call("run", made.folder, pictures, "--device", "ort", "--precision", "fp32")
    lines = [line.split() for line in done.stdout.splitlines() if ".png" in line]
    assert [(Path(path).name, label) for path, label, *_ in lines] == [("blue.png", "blue"), ("red.png", "red")]
    assert "colours-fp32 on ort; 2 answered, 0 failed" in done.stdout


def test_pictures_keep_their_names_and_none_is_lost(made, pictures, tmp_path):
    (pictures / "more").mkdir()
    shutil.copy(pictures / "red.png", pictures / "more" / "red.png")
    words = ["run", made.folder, pictures, pictures / "more", "--device", "ort", "--json", "--out", tmp_path / "drawn"]
    rows = json.loads(call(*words).stdout)["images"]
    names = ["blue.png", "red.png", "red-2.png"]
    assert [row["picture"] for row in rows] == [str(tmp_path / "drawn" / name) for name in names]
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == sorted(names)


def test_verify_groups_what_cannot_run_here(made, tmp_path, monkeypatch):
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    values = json.loads((copy / "manifest.json").read_text())
    for artefact in values["artefacts"]:
        artefact["golden"] = None
    (copy / "manifest.json").write_text(json.dumps(values))
    done = call("verify", copy)
    assert done.exit_code == 3
    assert "2 skipped (colours-fp32, colours-int8): it has no golden outputs" in done.stdout


def test_verify_passes_on_a_folder_and_a_zip(made, tmp_path):
    packed = bundle.pack(made, tmp_path / "c.zip")
    for path in (made.folder, packed):
        done = call("verify", path, "--digest", made.digest)
        assert (done.exit_code, "verdict: passed" in done.stdout) == (0, True)


def test_verify_fails_on_a_changed_file(made, tmp_path):
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    (copy / "onnx/colours-fp32.onnx").write_bytes(b"x")
    done = call("verify", copy, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["problems"] == {
        "onnx/colours-fp32.onnx": f"was changed: 1 bytes, not {made.manifest.files['onnx/colours-fp32.onnx'].bytes}"
    }


BAD = {
    "no bundle": (["verify", "nowhere"], 2, "error: cannot read bundle nowhere; got no such folder or file"),
    "not a bundle": (["verify", "{pictures}"], 1, "is not a bundle; got no manifest.json"),
    "another digest": (["verify", "{made}", "--digest", "ab"], 1, "is a different bundle"),
    "no images": (["run", "{made}"], 2, "error: no images to run on"),
    "no such image": (["run", "{made}", "no.png"], 1, "error: cannot read image no.png; got no such file"),
    "no such precision": (["run", "{made}", "{pictures}", "--precision", "fp8"], 2, "has no artefact in 'fp8'"),
    "a COCO file of classes": (
        ["run", "{made}", "{pictures}", "--coco", "c.json"],
        2,
        "got a network of task classify",
    ),
    "not on this machine": (["run", "{made}", "{pictures}", "--device", "gpu"], 3, "no artefact in"),
}


@pytest.mark.parametrize("case", BAD)
def test_errors_are_one_line_and_an_exit_code(case, made, pictures):
    words, code, message = BAD[case]
    done = call(*(word.format(made=made.folder, pictures=pictures) for word in words))
    assert done.exit_code == code
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_error_is_json_where_json_was_asked_for(made, pictures):
    done = call("run", made.folder, pictures, "--precision", "fp8", "--json")
    value = json.loads(done.stdout)["error"]
    assert (done.exit_code, value["exit_code"], value["kind"]) == (2, 2, "UsageError")
    assert "has no artefact in 'fp8'" in value["what"]
    assert "fp32" in value["expected"]
    assert done.stderr.startswith(f"error: {value['what']}")
    assert call("run", made.folder, pictures, "--precision", "fp8").stdout == ""


def test_doctor_names_what_is_here():
    done = call("doctor", "--json")
    assert done.exit_code == 0
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["python"]["state"] == "ok"
    assert found["backend ort"]["state"] == "ok"
    assert all(
        one["mend"] for one in found.values() if one["state"] in ("missing", "broken") and "driver" not in one["what"]
    )
