"""The whole flow on a small trained network: one bundle, every check, and what happens when something is wrong."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.export import pipeline
from edgesmith.export.settings import ExportSettings
from edgesmith.models import catalog
from edgesmith.runtime import bundle, datasets, load
from edgesmith.runtime.bundle import requirements
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.selection.candidates import BF16
from support.bundles import colour_bundle
from support.patience import PATIENCE_S

WEIGHTS = str(Path(__file__).parent / "data" / "shufflenetv2_x0_5-digits.safetensors")
MODEL = "shufflenetv2_x0_5"


@pytest.fixture(scope="module")
def summary(tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / MODEL
    lines = []
    made = pipeline.run(ExportSettings(MODEL, weights=WEIGHTS, sms=("8.6",), out=out), lines.append)
    assert [line.split()[0] for line in lines][-2:] == ["bundle", "verify"]
    return made


def test_every_check_passes(summary):
    assert {check.name: check.detail for check in summary.checks if check.passed is not True} == {}
    names = {check.name for check in summary.checks}
    assert {"export parity", "graph passes", "accuracy int8-trt", "engine int8 SM 8.6", "bundle"} <= names


def test_int8_keeps_the_accuracy_on_both_splits(summary):
    fp32, *others = [made for made in summary.artefacts if made.backend == "ort"]
    assert [made.name for made in others] == ["fp16", "fp16-trt", "int8-ort-x86", "int8-trt", "int8-trt-fp16"]
    for split in ("test", "hard"):
        assert fp32.results[split]["top1"] > 85
        for made in others:
            assert made.results[split]["top1"] >= fp32.results[split]["top1"] - 0.5


def test_the_engines_hold_what_was_asked(summary):
    engines = {made.precision: made.sidecar["attestation"] for made in summary.artefacts if made.sidecar}
    assert set(engines) == {"fp32", "fp16", "int8"}
    assert all(set(attestation["counts"]) == {name} for name, attestation in engines.items())


def test_the_fp16_engine_is_built_from_the_file_with_fewer_kernels(summary):
    engines = {made.precision: made for made in summary.artefacts if made.sidecar}
    assert engines["fp16"].results["source"] == "fp16-trt"
    assert engines["fp16"].nodes < 0.75 * engines["fp32"].nodes
    held = {artefact.name: artefact for artefact in bundle.read(summary.bundle).artefacts}
    (engine,) = (artefact for artefact in held.values() if artefact.role == "engine" and artefact.precision == "fp16")
    assert requirements.source_of(bundle.read(summary.bundle), engine).target == "trt"


def test_the_faster_engine_by_estimate_comes_first(summary):
    choice = next(check.detail for check in summary.checks if check.name == "choice SM 8.6")
    engines = [made for made in summary.artefacts if made.sidecar]
    best = min(engines, key=lambda made: made.results["estimated_s"])
    assert choice.startswith(f"{best.precision.upper()}: estimated on A2")
    listed = [one for one in bundle.read(summary.bundle).artefacts if one.role == "engine"]
    assert {one.precision: one.facts["estimated_s"] for one in listed} == {
        made.precision: made.results["estimated_s"] for made in engines
    }


@pytest.mark.slow
def test_a_bundle_that_reads_pixels_answers_like_the_one_that_does_not(summary, tmp_path):
    made = pipeline.run(
        ExportSettings(MODEL, weights=WEIGHTS, sms=("8.6",), out=tmp_path / "pixels", input="uint8-nhwc"),
        lambda line: None,
    )
    assert {check.name: check.detail for check in made.checks if check.passed is not True} == {}
    image = np.asarray(datasets.load("digits", "test").images[3])
    with (
        load(made.bundle, device="ort", precision="fp32") as pixels,
        load(summary.bundle, device="ort", precision="fp32") as values,
    ):
        assert (pixels.spec.layout, pixels.session.inputs[0].dtype) == ("NHWC", "uint8")
        assert np.abs(pixels(image).logits - values(image).logits).max() < 1e-3


def test_nothing_is_left_beside_the_bundle(summary):
    assert [path.name for path in summary.bundle.parent.iterdir()] == [MODEL]


def test_the_bundle_runs_without_torch_and_onnx(summary):
    code = (
        "import sys, numpy as np; from edgesmith.runtime import load, datasets\n"
        "data = datasets.load('digits', 'test').head(20)\n"
        "with load(sys.argv[1]) as model:\n"
        "    right = [model(image).top(1)[0].label == str(label) for image, label in zip(data.images, data.labels)]\n"
        "print(sum(right), [name for name in sys.modules if name.split('.')[0] in ('torch', 'onnx')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(summary.bundle)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    right, heavy = done.stdout.split(maxsplit=1)
    assert int(right) >= 18
    assert heavy.strip() == "[]"


def test_the_runtime_chooses_int8_for_this_cpu_and_says_why(summary):
    with load(summary.bundle, device="cpu") as model:
        assert "int8" in str(model.why())
        batch = next(datasets.load("digits", "test").head(4).batches(bundle.read(summary.bundle).spec))
        assert np.isfinite(model.run(batch[:1])["output"]).all()


def test_the_table_and_its_json(summary):
    from edgesmith.cli.export import draw_summary

    values = json.loads(json.dumps(summary.to_dict()))
    assert values["passed"] is True
    assert len([one for one in values["artefacts"] if one["backend"] != BF16]) == 9
    runner = CliRunner()
    with runner.isolation() as (out, *_):
        draw_summary(summary)
        text = out.getvalue().decode()
    for word in ("int8-ort-x86", "top-1 hard", "passed", "verified", "kernels"):
        assert word in text


def test_a_verdict_of_no_writes_no_bundle_and_keeps_the_earlier_one(tmp_path):
    out, weights = tmp_path / "kept", tmp_path / "lenet5.safetensors"
    before = colour_bundle(out).digest
    for path in tmp_path.glob("*.onnx"):
        path.unlink()
    safetensors.torch.save_file(catalog.build_network("lenet5", 10).state_dict(), weights)
    settings = ExportSettings(
        "lenet5", weights=str(weights), precisions=("fp32", "int8"), targets=("ort-x86",), out=out, max_drop=-100.0,
        calibration=32,
    )  # fmt: skip
    made = pipeline.run(settings, lambda line: None)
    assert not made.passed
    (check,) = (check for check in made.checks if check.passed is False)
    assert (check.name, "layers in float did not help" in check.detail) == ("accuracy int8-ort-x86", True), check
    assert (made.written, np.isfinite(made.artefacts[1].results["test"]["sqnr_db"])) == (False, True)
    assert {path.name for path in tmp_path.iterdir()} == {"kept", weights.name}
    assert bundle.read(out).digest == before


WRONG_USE = {
    "model": (["mobilnetv2"], "unknown model 'mobilnetv2'; do: did you mean 'mobilenet"),
    "precision": ([MODEL, "--precision", "fp32,int7"], "unknown precision 'int7'"),
    "target": ([MODEL, "--target", "tensort"], "unknown target 'tensort'"),
    "no fp32": ([MODEL, "--precision", "int8"], "fp32 is missing from the precisions"),
    "nothing": ([MODEL, "--precision", ","], "',' names nothing"),
    "data": ([MODEL, "--weights", WEIGHTS, "--data", "nowhere"], "unknown data 'nowhere'"),
    "weights": ([MODEL, "--weights", "nowhere"], "unknown weights 'nowhere'"),
    "option": ([MODEL, "--colour", "red"], "No such option"),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use_is_one_line_and_exit_code_2(name, tmp_path):
    arguments, said = WRONG_USE[name]
    result = CliRunner().invoke(main, ["export", *arguments, "--out", str(tmp_path / "out" / "x")])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "x").exists()


def test_a_corrupt_checkpoint_ends_with_one_line_and_exit_code_1(tmp_path):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(Path(WEIGHTS).read_bytes()[:5000])
    result = CliRunner().invoke(main, ["export", MODEL, "--weights", str(bad), "--out", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines()[-1].startswith("error: ")


def test_settings_refuse_before_anything_is_computed():
    with pytest.raises(UsageError, match="unknown target 'trtt'; expected .*ort-x86, trt, .*did you mean 'trt'\\?"):
        ExportSettings(MODEL, targets=("trtt",))


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["export", "precision", "engines"])
def test_ctrl_c_leaves_nothing_half_written(moment, tmp_path):
    """Interrupt in the stage after the one named; the exit code is 1 and the folder is empty."""
    # A background job inherits the signal ignored, and so would what it starts.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import edgesmith.cli as c; c.main()"
    )
    command = [sys.executable, "-c", code, "export", "lenet5", "--weights", "random", "--out", str(tmp_path / "x")]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path
    ) as process:
        for line in process.stderr:
            if line.startswith(moment):
                break
        os.kill(process.pid, signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(PATIENCE_S) == 1
    assert "error: interrupted; no incomplete file was left" in rest
    assert "Traceback" not in rest
    assert list(tmp_path.iterdir()) == []
