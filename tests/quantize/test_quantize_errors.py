"""Input that cannot be quantised is refused in one line, and nothing is left behind."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.quantize.commands import quantize_command
from edgesmith.runtime.errors import DataError, ModelError, UsageError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.quant_graphs import Graph, batches, images, small_cnn


def with_batchnorm():
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    names = [graph.array(f"bn{index}", np.ones(4)) for index in range(4)]
    graph.node("BatchNormalization", ["c0", *names], "output")
    return graph.model({"output": ["N", 4, 16, 16]})


def only_relu():
    graph = Graph()
    graph.node("Relu", ["input"], "output")
    return graph.model({"output": ["N", 3, 16, 16]})


def overflowing():
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Log", ["c0"], "l0")
    graph.conv("l0", "output", (4, 4, 1, 1))
    return graph.model({"output": ["N", 4, 16, 16]})


def already():
    model = small_cnn()
    model.graph.node[0].op_type = "ConvInteger"
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["input", "zero"], ["q"], "Q"))
    model.graph.node[1].op_type = "Conv"
    return model


WRONG_MODELS = {
    "BatchNormalization": (with_batchnorm, "still has BatchNormalization.*edgesmith optimize"),
    "no weights": (only_relu, "nothing in this graph can be quantised; got no Conv, Gemm or MatMul"),
    "quantised already": (already, "is quantised already; expected a float32 graph"),
}
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


@pytest.mark.parametrize("case", WRONG_MODELS)
def test_a_model_that_cannot_be_quantised(case, tmp_path):
    make, message = WRONG_MODELS[case]
    onnx.save(make(), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches())
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("case", WRONG_DATA)
def test_data_that_cannot_calibrate(case, source):
    given, message = WRONG_DATA[case]
    with pytest.raises(DataError, match=message):
        quantize(source, source.with_name("q.onnx"), given)
    assert [path.name for path in source.parent.iterdir()] == ["float.onnx"]


def test_nan_activations_name_the_tensor(tmp_path):
    onnx.save(overflowing(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match="tensor 'l0' holds NaN or infinity on the calibration images"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches())


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


REFUSED = {
    "no data": ([], 2, "no calibration images"),
    "no spec": (["--data", "digits"], 2, "does not say how images become its input"),
    "unknown target": (["--allow-random", "--target", "tpu"], 2, "unknown quantisation target 'tpu'"),
    "unknown folder": (["--data", "nowhere"], 2, "unknown data 'nowhere'"),
    "too few": (["--allow-random", "--images", "3"], 1, "too few calibration images"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_refuses(case, source):
    options, code, message = REFUSED[case]
    done = call(source, "-o", source.with_name("q.onnx"), *options)
    assert done.exit_code == code
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not source.with_name("q.onnx").exists()


def test_the_command_takes_random_data_when_told_so(source):
    done = call(source, "-o", source.with_name("q.onnx"), "--allow-random")
    assert done.exit_code == 0
    assert "random data" in done.stderr
