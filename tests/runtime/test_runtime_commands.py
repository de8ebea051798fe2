"""`run`, `verify` and `doctor` through the command line: what they print, their JSON and their exit codes."""

import json
import shutil

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


def test_run_draws_a_table(made, pictures):
    done = call("run", made.folder, pictures / "red.png", "--device", "ort", "--precision", "fp32")
    assert done.exit_code == 0
    assert "red" in done.stdout
    assert "colours-fp32 (fp32, generic) with ort on the cpu" in done.stdout


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


def test_doctor_names_what_is_here():
    done = call("doctor", "--json")
    assert done.exit_code == 0
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["python"]["state"] == "ok"
    assert found["backend ort"]["state"] == "ok"
    assert all(
        one["mend"] for one in found.values() if one["state"] in ("missing", "broken") and "driver" not in one["what"]
    )
