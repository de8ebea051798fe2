"""What the options and the disk tell is refused before any work, and no command replaces what is not ours."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import suite
from edgesmith.bench.sweep import sweep
from edgesmith.cli import COMMANDS, gate, main
from edgesmith.export import pipeline, untrained
from edgesmith.export.settings import TRAINED, ExportSettings, StageCheck
from edgesmith.models import checkpoints, weights
from edgesmith.models.training import train as training
from edgesmith.optimize import optimizer
from edgesmith.optimize.quantize import post_training
from edgesmith.optimize.trt import preflight
from edgesmith.runtime import bundle
from edgesmith.runtime.bundle import signing, writer
from edgesmith.runtime.errors import RunError
from support.bundles import SPEC, colour_bundle, colour_net, golden_inputs, picture

THESIS = b"three years of work\n" * 40
WORK = (
    (pipeline, "_load"), (untrained, "ensure"), (suite, "run_suite"), (sweep, "sweep"), (gate, "_base"),
    (training, "train"), (post_training, "Samples"), (preflight, "check"), (optimizer, "_attempt"),
    (checkpoints, "write_checkpoint"),
)  # fmt: skip


def begun(*arguments, **settings):
    raise AssertionError("work began")


@pytest.fixture
def idle(monkeypatch, tmp_path):
    """Nothing that takes time may be called, in a folder with a little of everything."""
    monkeypatch.chdir(tmp_path)
    for place, name in WORK:
        monkeypatch.setattr(place, name, begun)
    colour_bundle(Path("nets/b"))
    shutil.copy(Path("nets/colours-fp32.onnx"), "n.onnx")
    result = {"format": "edgesmith-bench"}
    Path("base.json").write_text(json.dumps(result))
    return tmp_path


def pictures(folder, classes=("red", "green", "blue"), count=2):
    for colour in classes:
        (folder / colour).mkdir(parents=True)
        for number in range(count):
            image = picture(("red", "green", "blue")[len(colour) % 3])
            Image.fromarray(np.roll(image, number, axis=0)).save(folder / colour / f"{number}.png")
    return folder


EXPORT = ["export", "lenet5", "--weights", "random", "--target", "ort-x86"]
# a command that would begin its work, and the option whose file is a thesis (the option, its name, the rest)
OVER = {
    ("export", "out"): [*EXPORT, "--out", "MINE/"],
    ("spec", "output"): ["spec", "n.onnx", "-o", "MINE"],
    ("optimize", "output"): ["optimize", "n.onnx", "-o", "MINE"],
    ("quantize", "output"): ["quantize", "n.onnx", "--data", "digits", "-o", "MINE"],
    ("quantize", "plot"): ["quantize", "n.onnx", "--data", "digits", "-o", "q.onnx", "--plot", "MINE"],
    ("build", "out"): ["build", "n.onnx", "-o", "MINE"],
    ("pack", "as_zip"): ["pack", "nets/b", "--zip", "MINE"],
    ("pack", "triton"): ["pack", "nets/b", "--triton", "MINE//colours"],
    ("run", "out"): ["run", "nets/b", "n.png", "--out", "MINE.gif"],
    ("run", "coco"): ["run", "nets/b", "n.png", "--coco", "MINE.json"],
    ("train", "out"): ["train", "lenet5", "--out", "MINE"],
    ("train", "log"): ["train", "lenet5", "--log", "MINE"],
    ("models", "plot"): ["models", "lenet", "--plot", "MINE.svg"],
    ("bench", "out"): ["bench", "n.onnx", "--out", "MINE"],
    ("sweep", "out"): ["sweep", "n.onnx", "--out", "MINE//sweep.json"],
    ("gate", "junit_path"): ["gate", "n.onnx", "--baseline", "n.onnx", "--junit", "MINE"],
    ("gate", "markdown_path"): ["gate", "n.onnx", "--baseline", "n.onnx", "--markdown", "MINE"],
    ("report", "out"): ["report", "base.json", "-o", "MINE"],
    ("report", "csv_path"): ["report", "base.json", "--csv", "MINE"],
    ("report", "markdown_path"): ["report", "base.json", "--markdown", "MINE"],
    ("report", "parquet_path"): ["report", "base.json", "--parquet", "MINE"],
    ("report", "figures"): ["report", "base.json", "--figures", "MINE//tradeoff.png"],
}  # fmt: skip
READ = {"bundle", "bundles", "source", "onnx", "new", "base", "key", "digest", "results", "quantised", "int8_from",
        "weights_folder", "path", "cache", "timing_cache", "spec", "labels", "sample",
        "tls_ca", "tls_cert", "tls_key"}  # fmt: skip


def test_every_option_that_names_an_output_is_in_the_table():
    listed = set()
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        paths = {one.name for one in command.params if isinstance(one.type, click.Path)} - READ
        paths |= {one.name for one in command.params if one.name in ("out", "output")}
        listed |= {(name, one) for one in paths}
        assert not paths or any(one.name == "overwrite" for one in command.params), name
    assert listed == OVER.keys()


@pytest.mark.parametrize("case", OVER, ids=" ".join)
def test_no_command_replaces_a_thesis(case, idle):
    word = next(one for one in OVER[case] if "MINE" in one)
    mine, _, inside = word.partition("//")
    given = mine.rstrip("/")
    place = idle / (given + "/" + inside if inside else given)
    if word.endswith("/") or case == ("pack", "triton"):
        place = place / "thesis.tex"
    place.parent.mkdir(exist_ok=True, parents=True)
    place.write_bytes(THESIS)
    done = CliRunner().invoke(main, [given if one == word else one for one in OVER[case]])
    assert (done.exit_code, place.read_bytes()) == (2, THESIS), done.output
    assert "cannot be replaced" in done.stderr
    assert "--overwrite" in done.stderr


LATE = {
    "export: an SM": (["export", "lenet5", "--sm", "orin"], 2, "'orin' is not a compute capability"),
    "export: the second SM": (["export", "lenet5", "--sm", "8.6,x"], 2, "'x' is not a compute capability"),
    "export: few images asked": ([*EXPORT, "--calibration", "5"], 2, "too few calibration images; got --calibration 5"),
    "export: few images there": ([*EXPORT, "--data", "few"], 1, "too few calibration images"),
    "export: no data": ([*EXPORT, "--data", "nowhere"], 2, "unknown data 'nowhere'"),
    "export: no data, to train on": (["export", "lenet5", "--data", "nowhere"], 2, "unknown data 'nowhere'"),
    "export: an empty class": ([*EXPORT, "--data", "empty"], 1, "the class 'none' in empty is empty"),
    "export: no weights": (["export", "lenet5", "--weights", "gone.pth"], 2, "unknown weights 'gone.pth'; got no such"),
    "export: an opset": ([*EXPORT, "--opset", "9"], 2, "this opset is not supported"),
    "export: threads": ([*EXPORT, "--threads", "-1"], 2, "the number of threads is not valid"),
    "export: below a file": ([*EXPORT, "--out", "n.onnx/b"], 2, "n.onnx is not a folder"),
    "export: into a bundle": ([*EXPORT, "--out", "nets/b/new"], 2, "is inside a bundle"),
    "export: digits' weights for other classes": (
        ["export", "lenet5", "--weights", "digits", "--data", "few"], 2, "got 3 classes there, 10 in weights digits",
    ),
    "export: no classifier, to train": (["export", "unet", "--data", "few"], 1, "training needs masks"),
    "train: no data": (["train", "lenet5", "--data", "nowhere"], 2, "unknown data"),
    "train: no start": (["train", "lenet5", "--start", "gone.pth"], 2, "cannot read checkpoint"),
    "train: nothing to resume": (["train", "lenet5", "--resume"], 2, "there is no run to resume"),
    "quantize: target": (["quantize", "n.onnx", "--data", "digits", "-o", "q", "--target", "x"], 2, "target 'x'"),
    "quantize: method": (["quantize", "n.onnx", "--data", "digits", "-o", "q", "--method", "x"], 2, "method 'x'"),
    "quantize: images": (["quantize", "n.onnx", "--data", "digits", "-o", "q", "--images", "9"], 2, "got --images 9"),
    "quantize: no data": (["quantize", "n.onnx", "--data", "nowhere", "-o", "q"], 2, "unknown data"),
    "quantize: no file": (["quantize", "gone.onnx", "--data", "digits", "-o", "q"], 2, "cannot read ONNX file"),
    "build: the second SM": (["build", "n.onnx", "--sm", "8.6,x"], 2, "'x' is not a compute capability"),
    "build: batch": (["build", "n.onnx", "--batch", "a"], 2, "not a list of whole numbers"),
    "build: into a bundle": (["build", "n.onnx", "-o", "nets/b/onnx/e.engine"], 2, "is inside a bundle"),
    "bench: a metric": (["bench", "--metrics", "latency,smell"], 2, "unknown metric 'smell'"),
    "bench: no data": (["bench", "n.onnx", "--data", "nowhere"], 2, "unknown data"),
    "sweep: threads": (["sweep", "lenet5", "--threads", "two"], 2, "this is not a list of numbers"),
    "sweep: no data": (["sweep", "lenet5", "--evaluate", "nowhere"], 2, "unknown data"),
    "sweep: a cluster without encryption": (
        ["sweep", "lenet5", "--scheduler", "tcp://lab:8786"], 2, "is neither encrypted nor authenticated",
    ),
    "sweep: no certificate": (
        ["sweep", "lenet5", "--scheduler", "tls://lab:8786", "--tls-ca", "gone.pem"], 2, "cannot read TLS file",
    ),
    "sweep: half of a certificate": (
        ["sweep", "lenet5", "--scheduler", "tls://lab:8786", "--tls-ca", "n.onnx"], 2, "TLS needs three files",
    ),
    "sweep: split": (["sweep", "lenet5", "--evaluate", "digits", "--split", "x"], 2, "unknown split 'x'"),
    "gate: a further gate": (["gate", "n.onnx", "--baseline", "n.onnx", "--also", "smell"], 2, "unknown gate 'smell'"),
    "gate: of a stored one": (["gate", "n.onnx", "--baseline", "base.json", "--also", "smell"], 2, "gate 'smell'"),
}  # fmt: skip


@pytest.mark.parametrize("case", LATE)
def test_what_cannot_work_is_refused_before_any_work(case, idle):
    arguments, code, said = LATE[case]
    pictures(idle / "few", count=10)
    pictures(idle / "empty")
    (idle / "empty" / "none").mkdir()
    before = sorted(idle.rglob("*"))
    done = CliRunner().invoke(main, arguments)
    assert "work began" not in str(done.exception) + done.output
    assert (done.exit_code, said in done.stderr) == (code, True), done.output
    assert sorted(idle.rglob("*")) == before


def test_work_that_begins_is_noticed(idle):
    """The test of the tests above: the same without a mistake does begin."""
    for arguments in (EXPORT, ["train", "lenet5"], ["bench"], ["gate", "n.onnx", "--baseline", "n.onnx"]):
        done = CliRunner().invoke(main, arguments)
        assert "work began" in done.stderr, (arguments, done.output)


def test_build_writes_where_it_is_started(idle, monkeypatch):
    from edgesmith.cli import build

    built = []
    monkeypatch.setattr(preflight, "check", lambda *rest: [])
    monkeypatch.setattr(build, "_build", lambda onnx, target, sm, settings: built.append(target))
    monkeypatch.setattr(build, "_show", lambda items: None)
    monkeypatch.setattr(build.console, "emit", lambda *rest: None)
    monkeypatch.setattr(build, "choose_flavour", lambda flavour, sm: ("rtx", ""))
    done = CliRunner().invoke(main, ["build", "nets/b/onnx/colours-fp32.onnx", "--sm", "8.6,8.9"])
    names = [f"colours-fp32-fp32-sm{sm}.engine" for sm in (86, 89)]
    assert (done.exit_code, [str(path) for path in built]) == (1, names)  # 1: what was built is faked
    assert bundle.verify("nets/b").problems == {}
    monkeypatch.chdir("nets/b/onnx")
    done = CliRunner().invoke(main, ["build", "colours-fp32.onnx"])
    assert (done.exit_code, "is inside a bundle" in done.stderr) == (2, True), done.output


def test_a_bundle_takes_its_place_only_after_its_last_check(tmp_path, monkeypatch):
    """The flow with its stages played: what `run` itself does with a bundle that was written and then fails."""
    pytest.importorskip("cryptography")
    out, net = tmp_path / "b", colour_net(tmp_path / "n.onnx")
    colour_bundle(out)
    signing.generate_key(tmp_path / "key")
    writer.sign_bundle(bundle.opened(out), tmp_path / "key")
    new, seen = dataclasses.replace(SPEC, name="newer"), []

    def written(flow, spec, place):
        bundle.write(place, spec, [bundle.Item(net)], golden_inputs=golden_inputs())

    def verified(flow, place):
        seen.append((bundle.read(place).spec.name, bundle.read(out).spec.name))
        flow.checks.append(StageCheck("bundle", verdict, "as this test wants it"))

    played = {"require": None, "_load": SimpleNamespace(spec=SPEC), "_gather": None, "make_files": new,
              "make_engines": None, "measure": None}  # fmt: skip
    for name, answer in played.items():
        monkeypatch.setattr(pipeline, name, lambda *arguments, answer=answer: answer)
    monkeypatch.setattr(pipeline, "write_files", written)
    monkeypatch.setattr(pipeline, "_verify", verified)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for verdict, after in ((False, "colours"), (None, "newer")):
        summary = pipeline.run(ExportSettings("lenet5", out=out), lambda line: None)
        assert summary.passed is summary.written is (verdict is not False)
        assert seen.pop() == ("newer", "colours")
        assert bundle.read(out).spec.name == after
        if verdict is False:
            assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not list(tmp_path.glob(".*"))


def quick(out, **changes):
    settings = {"weights": "random", "precisions": ("fp32",), "targets": ("ort-x86",), "threads": 1}
    return ExportSettings("lenet5", out=out, **{**settings, **changes})


def test_export_trains_on_the_images_that_it_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pictures(tmp_path / "pets", count=30)
    settings = quick(Path("b"), weights=TRAINED, data="pets")
    lines = []
    assert settings.weights == TRAINED
    assert ExportSettings("lenet5").weights == "digits"
    summary = pipeline.run(settings, lines.append)
    assert summary.written
    assert lines[0].startswith("the weights are trained on pets: weights/lenet5-pets-")
    made = bundle.read("b")
    assert (made.spec.labels, made.spec.num_classes) == (("blue", "green", "red"), 3)
    (kept,) = (path for path in Path("weights").iterdir() if path.suffix == ".safetensors")
    assert made.spec.weights == kept.name
    assert summary.artefacts[0].results["test"]["top1"] > 60

    monkeypatch.setattr(training, "train", begun)
    assert weights.trained("lenet5", "pets") == kept  # not trained again
    shutil.rmtree("pets/red")
    with pytest.raises(AssertionError, match="work began"):  # other images: other weights
        weights.trained("lenet5", "pets")
    with pytest.raises(Exception, match=f"got 2 classes there, 3 in weights {kept}"):
        pipeline.run(quick(Path("d"), weights=str(kept), data="pets"), lines.append)


def test_a_gate_that_cannot_measure_ends_with_3_and_its_junit(tmp_path):
    from xml.etree import ElementTree

    (tmp_path / "base.py").write_text("def call():\n    return 1\n\n\ncalls = call\n")
    (tmp_path / "bad.py").write_text("import os\nos.write(2, b'\\x1b[31m oh')\nos._exit(3)\n")
    words = ["--junit", str(tmp_path / "j.xml"), "--markdown", str(tmp_path / "m.md"), "--github", "--json"]
    for _ in range(2):  # the second time its own files stand there
        done = CliRunner().invoke(
            main, ["gate", str(tmp_path / "bad.py"), "--baseline", str(tmp_path / "base.py"), *words]
        )
        assert done.exit_code == 3, done.output
    (suite_,) = ElementTree.parse(tmp_path / "j.xml").getroot().iter("testsuite")
    assert (suite_.get("skipped"), suite_.get("failures")) == ("1", "0")
    assert "cannot tell" in (tmp_path / "m.md").read_text()
    assert "::warning title=" in done.stdout


@pytest.mark.parametrize("answers", [["slower"], ["slower", None], [None, "slower"], [None, None], ["same", None]])
def test_what_was_measured_counts_beside_what_was_not(answers, monkeypatch, tmp_path):
    """Slower stays 1 where another question could not be asked; nothing slower and something unknown is 3."""
    from edgesmith.bench.gate.ci_reports import GateFinding
    from edgesmith.bench.gate.compare import EXIT

    left = iter(answers)

    def question(*_):
        word = next(left)
        if word is None:
            raise RunError("it hangs")
        return [GateFinding("q", word, "w")], [{"answer": word}], [EXIT[word]]

    monkeypatch.setattr(gate, "_latency", question)
    monkeypatch.setattr(gate, "_limits", question)
    net = colour_net(tmp_path / "n.onnx")
    also = ["--also", "size"] if len(answers) > 1 else []
    done = CliRunner().invoke(main, ["gate", str(net), "--baseline", str(net), "--json", *also])
    assert done.exit_code == (1 if "slower" in answers else 3)
    told = [row["answer"] for row in json.loads(done.stdout)]
    assert told == [word or "cannot tell" for word in answers]
