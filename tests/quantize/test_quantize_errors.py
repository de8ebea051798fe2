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


def two_inputs():
    model = small_cnn()
    model.graph.input.append(helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["N", 3]))
    return model


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
    "unknown method": (["--allow-random", "--method", "kl"], 2, "unknown range method 'kl'"),
    "unknown folder": (["--data", "nowhere"], 2, "unknown data 'nowhere'"),
    "too few": (["--allow-random", "--images", "3"], 1, "too few calibration images"),
    "a budget in words": (["--allow-random", "--budget", "little"], 2, "cannot read the budget 'little'"),
    "a budget that nothing meets": (["--allow-random", "--budget", "150dB"], 1, "no configuration reaches 150 dB"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_refuses(case, source):
    options, code, message = REFUSED[case]
    refused(call(source, "-o", source.with_name("q.onnx"), *options), code, message, source.with_name("q.onnx"))


def refused(done, code, message, output):
    assert done.exit_code == code, done.output
    assert message in done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.output
    assert not output.exists()


def folder_of_digits(folder, classes=10, each=4):
    """A class folder of digits for each of the first classes."""
    from PIL import Image

    from edgesmith.runtime import datasets

    digits = datasets.load("digits", "train")
    for label in range(classes):
        (folder / str(label)).mkdir(parents=True)
        for at in (digits.labels == label).nonzero()[0][:each]:
            Image.fromarray(np.asarray(digits.images[at])).save(folder / str(label) / f"{at}.png")
    return folder


SPEC = ModelSpec(
    "small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=0), labels=tuple("0123456789")
)  # fmt: skip


def spoilt_image(folder):
    next((folder / "3").iterdir()).write_bytes(b"no image")


def empty_class(folder):
    for file in (folder / "3").iterdir():
        file.unlink()


def other_classes(folder):
    for path in list(folder.iterdir()):
        path.rename(folder / f"animal {path.name}")


FOLDERS = {
    "an image that is none": (spoilt_image, 1, "cannot read image"),
    "an empty class": (empty_class, 1, "the class '3' in"),
    "other classes": (other_classes, 1, "show none of the model's classes"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_the_command_refuses_a_folder(case, tmp_path):
    spoil, code, message = FOLDERS[case]
    onnx.save(small_cnn(metadata={"edgesmith.spec": SPEC.to_json()}), tmp_path / "m.onnx")
    spoil(folder_of_digits(tmp_path / "data"))
    done = call(tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", tmp_path / "data", "--images", "40")
    refused(done, code, message, tmp_path / "q.onnx")


def test_a_missing_class_folder_is_named(tmp_path):
    onnx.save(small_cnn(metadata={"edgesmith.spec": SPEC.to_json()}), tmp_path / "m.onnx")
    folder_of_digits(tmp_path / "data", classes=9, each=8)
    options = ["--data", tmp_path / "data", "--images", "60", "--target", "ort-x86"]
    done = call(tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", *options)
    assert done.exit_code == 0, done.output
    assert "warning: no calibration image of class 9" in done.stderr


MODELS = {
    "quantised already": (already, "is quantised already"),
    "NaN activations": (overflowing, "tensor 'l0' holds NaN or infinity"),
    "BatchNormalization": (with_batchnorm, "still has BatchNormalization"),
    "two inputs": (two_inputs, "calibration needs a graph with one float32 input"),
}


@pytest.mark.parametrize("case", MODELS)
def test_the_command_refuses_a_model(case, tmp_path):
    make, message = MODELS[case]
    model = make()
    onnx.helper.set_model_props(model, {"edgesmith.spec": SPEC.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    done = call(tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", "digits")
    refused(done, 1, message, tmp_path / "q.onnx")


def test_sizes_that_the_images_do_not_fix_are_refused(tmp_path):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Relu", ["c0"], "output")
    onnx.save(graph.model({"output": ["N", 4, "H", "W"]}, ("N", 3, "H", "W")), tmp_path / "m.onnx")
    mixed = [images(32), images(32, size=32)]
    with pytest.raises(DataError, match=r"differ in size; got \(3, 32, 32\) in batch 1; expected \(3, 16, 16\)"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", mixed)
    assert quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", [images(64)]).images == 64
    done = call(tmp_path / "m.onnx", "-o", tmp_path / "r.onnx", "--allow-random")
    refused(done, 2, "the input's size is free", tmp_path / "r.onnx")


def test_the_command_takes_random_data_when_told_so(source):
    done = call(source, "-o", source.with_name("q.onnx"), "--allow-random")
    assert done.exit_code == 0
    assert "random data" in done.stderr
