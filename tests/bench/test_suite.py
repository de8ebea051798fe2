"""From a bundle to a table: real artefacts, real images, and every way in which there is nothing to measure."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import result, suite
from edgesmith.bench.evaluations import evaluate
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.cli.bench import bench_command
from edgesmith.runtime import bundle, tasks
from edgesmith.runtime.common import files
from edgesmith.runtime.errors import UsageError
from support.bundles import LABELS, SPEC, colour_bundle, colour_net, golden_inputs, picture

QUICK = SamplingPlan(processes=1, slice_s=0.02, least_s=0.05, least=10, warm_up_s=0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("suite")
    colour_bundle(place / "colours")
    for split in ("train", "val"):
        for colour in LABELS:
            (place / "images" / split / colour).mkdir(parents=True)
            for number in range(4):
                path = place / "images" / split / colour / f"{number}.png"
                Image.fromarray(np.roll(picture(colour), number, axis=0)).save(path)
    return place


def with_ort(contexts):
    """Leave out the subjects of other backends that may be installed here."""
    return [one for one in contexts if one.subject.backend == "ort"]


def test_every_artefact_is_a_subject(folder):
    found = with_ort(suite.contexts(folder / "colours"))
    assert [one.subject.form for one in found] == ["fp32", "int8-ort-x86"]
    chosen = with_ort(suite.contexts(folder / "colours", precisions=["int8"]))
    assert [one.subject.form for one in chosen] == ["int8-ort-x86"]


def test_the_metrics_of_a_bundle(folder):
    found = with_ort(suite.contexts(folder / "colours", precisions=["fp32"]))
    run = suite.run_suite(found, QUICK)
    (one,) = run.results
    assert set(one.readings) == set(suite.usual_metrics())
    assert one.value("latency", "p50_s") > 0
    assert one.value("size", "file_bytes") == (folder / "colours" / one.subject.artifact).stat().st_size
    assert one.subject.sha256 == files.sha256(folder / "colours" / one.subject.artifact)
    assert one.readings["accuracy"].missing.endswith("no images were given (--data)")
    assert "instructions" not in one.readings


def test_accuracy_is_by_the_classes_names_not_their_order(folder):
    """The folders are sorted blue, green, red; the network's labels are red, green, blue."""
    opened = suite.read_bundle(folder / "colours")
    for artefact, has_reference in zip(opened.artefacts, (False, True), strict=True):
        answers, labels, reference = evaluate(opened, artefact, "ort", str(folder / "images"), "test")
        score = tasks.find("classify").score
        assert score(answers.reduced, labels, tasks.DecodeContext()).values["top1_ratio"] == 1.0
        assert (reference is not None) is has_reference
    swapped = score(answers.reduced, (labels + 1) % 3, tasks.DecodeContext())
    assert swapped.values["top1_ratio"] == 0.0


NOTHING = {
    "no such file": ("gone.onnx", [], "no such file"),
    "no such bundle": ("gone", [], "no such folder or file"),
    "no such precision": ("colours", ["fp8"], "has no artefact of this precision; got fp8; expected fp32, int8"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_measure_is_wrong_use(case, folder):
    name, precisions, message = NOTHING[case]
    with pytest.raises(UsageError, match=message):
        suite.contexts(folder / name, precisions=precisions)


def test_the_command_writes_json_and_a_table(folder, tmp_path):
    out = tmp_path / "bench.json"
    words = [str(folder / "colours"), "--precision", "fp32", "--processes", "1", "--seconds", "0.05",
             "--metrics", "latency,size", "--out", str(out), "--json"]  # fmt: skip
    done = CliRunner().invoke(bench_command, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == result.VERSION
    assert result.read_run(out).results[0].subject.model == "colours"
    assert "| colours | fp32 |" in out.with_suffix(".md").read_text()


def test_an_unknown_metric_is_wrong_use(folder, tmp_path):
    words = [str(folder / "colours"), "--metrics", "latenci", "--out", str(tmp_path / "x.json")]
    done = CliRunner().invoke(bench_command, words)
    assert done.exit_code == 2
    assert "did you mean 'latency'?" in done.output
    assert not (tmp_path / "x.json").exists()


def test_artefacts_of_one_precision_and_target_have_keys_of_their_own(tmp_path):
    """A bundle of `make export` has int8-trt and int8-trt-fp16, both INT8 for TensorRT."""
    names = ("colours-int8-trt", "colours-int8-trt-fp16", "colours-fp32", "other")
    for name in names:
        colour_net(tmp_path / f"{name}.onnx")
    items = [
        bundle.Item(tmp_path / f"{name}.onnx", precision=precision, target=target)
        for name, precision, target in zip(
            names, ["int8"] * 2 + ["fp32"] * 2, ["trt"] * 2 + ["generic"] * 2, strict=True
        )
    ]
    bundle.write(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())
    subjects = [one.subject for one in suite.contexts(tmp_path / "b") if one.subject.backend == "ort"]
    assert [one.form for one in subjects] == ["int8-trt", "int8-trt-fp16", "fp32", "fp32-other"]
    assert len({one.key for one in subjects}) == 4
    chosen = suite.contexts(tmp_path / "b", precisions=["int8-trt-fp16"])
    assert {one.subject.form for one in chosen} == {"int8-trt-fp16"}
