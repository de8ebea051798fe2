"""Input that cannot be quantised is refused, and nothing is left behind; from the command line: test_bad_input."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli.quantize import quantize_command
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime.errors import DataError, ModelError, UsageError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.quant_graphs import Graph, batches, images, small_cnn


def preactivated():
    """DenseNet's order: a BatchNormalization that two read, after a ReLU."""
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Relu", ["c0"], "r0")
    names = [graph.array(f"bn{index}", np.full(4, value)) for index, value in enumerate((0.5, 0.1, 0.2, 1.5))]
    graph.node("BatchNormalization", ["r0", *names], "b0")
    graph.node("Add", ["b0", "r0"], "a0")
    graph.conv("a0", "output", (4, 4, 1, 1))
    return graph.model({"output": ["N", 4, 16, 16]})


NOISE = [np.random.default_rng(0).standard_normal((64, 3, 16, 16), dtype=np.float32)]
WRONG_DATA = {
    "none": ([], "too few calibration images; got 0; expected at least 32"),
    "few": (batches(16), "too few calibration images; got 16"),
    "noise": (NOISE, "look like random noise"),
    "copies": (batches(16) * 4, "too few different calibration images; got 16 among 64, 0 of 64 of one colour"),
    "even": ([images(20), np.ones((44, 3, 16, 16), np.float32)], "got 21 among 64, 44 of 64 of one colour"),
    "wrong size": ([images(64, size=32)], r"batch 0 does not fit the model; got float32 \(64, 3, 32, 32\)"),
    "wrong dtype": ([images().astype(np.float64)], "got float64"),
    "no array": (["photo.png"], "got str"),
    "NaN": ([np.where(images() > 2, np.nan, images()).astype(np.float32)], "batch 0 holds NaN or infinity"),
}


@pytest.fixture
def source(tmp_path):
    onnx.save(small_cnn(), tmp_path / "float.onnx")
    return tmp_path / "float.onnx"


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_batch_norm_that_folds_into_nothing_stays_in_float(tmp_path, target):
    onnx.save(preactivated(), tmp_path / "m.onnx")
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target)
    kinds = [node.op_type for node in onnx.load(tmp_path / "q.onnx").graph.node]
    assert kinds.count("BatchNormalization") == 1
    assert kinds.count("QuantizeLinear") >= 2
    assert min(report.sqnr_db.values()) > 20


@pytest.mark.parametrize("case", WRONG_DATA)
def test_data_that_cannot_calibrate(case, source):
    given, message = WRONG_DATA[case]
    with pytest.raises(DataError, match=message):
        quantize(source, source.with_name("q.onnx"), given)
    assert [path.name for path in source.parent.iterdir()] == ["float.onnx"]


def test_noise_is_taken_when_it_is_allowed(source):
    assert quantize(source, source.with_name("q.onnx"), NOISE, allow_random=True).images == 64


def test_an_unknown_target_gets_a_suggestion(source):
    with pytest.raises(UsageError, match="unknown quantisation target 'ort_x86'.*did you mean 'ort-x86'"):
        quantize(source, source.with_name("q.onnx"), batches(), target="ort_x86")


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(range(256)) * 40])
def test_a_broken_file(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"m.onnx is not a usable ONNX file"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches())


def call(*arguments):
    return CliRunner().invoke(quantize_command, [str(item) for item in arguments])


def test_the_command_calibrates_on_the_digits(tmp_path):
    spec = ModelSpec("small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=0))
    onnx.save(small_cnn(metadata={"edgesmith.spec": spec.to_json()}), tmp_path / "m.onnx")
    for target, key in {"trt": "sqnr_db", "ort-x86": "sqnr_db", "fp16": "relative_error"}.items():
        options = ["-o", tmp_path / f"{target}.onnx", "--data", "digits", "--target", target]
        done = call(tmp_path / "m.onnx", *options, "--json")
        assert done.exit_code == 0, done.output
        value = json.loads(done.stdout)[key]["output"]
        assert value < 2e-3 if target == "fp16" else value > 20
        done = call(tmp_path / "m.onnx", *options)
        assert f"{target}.onnx: " in done.stdout
        assert ("Noisiest tensors" in done.stdout) == (target != "fp16")


def test_sizes_that_the_images_do_not_fix_are_refused(tmp_path):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Relu", ["c0"], "output")
    onnx.save(graph.model({"output": ["N", 4, "H", "W"]}, ("N", 3, "H", "W")), tmp_path / "m.onnx")
    mixed = [images(32), images(32, size=32)]
    with pytest.raises(DataError, match=r"differ in size; got \(3, 32, 32\) in batch 1; expected \(3, 16, 16\)"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", mixed)
    assert quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [images(64)]).images == 64


def test_the_command_takes_random_data_when_told_so(source):
    done = call(source, "-o", source.with_name("q.onnx"), "--allow-random")
    assert done.exit_code == 0
    assert "random data" in done.stderr


def test_a_plot_of_what_quick_leaves_out_is_refused_before_anything_is_read(tmp_path):
    words = [
        "no.onnx",
        "-o",
        str(tmp_path / "out.onnx"),
        "--data",
        "digits",
        "--quick",
        "--plot",
        str(tmp_path / "p.svg"),
    ]
    done = CliRunner().invoke(quantize_command, words)
    assert (done.exit_code, list(tmp_path.iterdir())) == (2, [])
    assert "--quick does not measure the noise that --plot draws" in done.stderr
