"""Bad input of `edgesmith quantize`: each kind ends in one exact line and an exit code, and leaves no file behind."""

import re

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from edgesmith.cli.quantize import quantize_command
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.quant_graphs import Graph, small_cnn

SPEC = ModelSpec(
    "small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=0), labels=tuple("0123456789")
)  # fmt: skip


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


def free_size():
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Relu", ["c0"], "output")
    return graph.model({"output": ["N", 4, "H", "W"]}, ("N", 3, "H", "W"))


def larger():
    graph = Graph()
    graph.conv("input", "output", (4, 3, 3, 3))
    return graph.model({"output": ["N", 4, 32, 32]}, ("N", 3, 32, 32))


def whole(folder):
    """Leave the data as they are."""


def no_images(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def spoilt_class(folder):
    for path in (folder / "3").iterdir():
        path.write_bytes(b"no image")


def empty_class(folder):
    for path in (folder / "3").iterdir():
        path.unlink()


def other_classes(folder):
    for path in list(folder.iterdir()):
        path.rename(folder / f"animal {path.name}")


def one_colour(folder):
    from PIL import Image

    for path in folder.rglob("*.png"):
        Image.new("RGB", (8, 8), (40, 40, 40)).save(path)


FOLDER, DIGITS, RANDOM = ["--data", "DATA"], ["--data", "digits"], ["--allow-random"]
# What is given, exit code, and the whole line; MODEL and DATA are the paths, a star is a number or a path.
COMMANDS = {
    "no data": (
        [], 2, "no calibration images; expected --data DIR or --data digits; "
        "do: give images like those the network will see",
    ),
    "no such data": (
        ["--data", "nowhere"], 2, "unknown data 'nowhere'; expected digits, scenes, photos, a folder of images, COCO's "
        "FILE.json, data.yaml, or a .npy or .npz file; do: check the path",
    ),
    "too little data": (
        [*DIGITS, "--images", "3"], 2, "too few calibration images; got --images 3; expected at least 32; "
        "do: 128 to 512 is usual",
    ),
    "no image at all": (
        [*DIGITS, "--images", "0"], 2, "too few calibration images; got --images 0; expected at least 32; "
        "do: 128 to 512 is usual",
    ),
    "an unknown target": (
        [*DIGITS, "--target", "tpu"], 2, "unknown quantisation target 'tpu'; "
        "expected openvino, ort-arm, ort-x86, trt, trt-rtx; do: choose one of these",
    ),
    "an unknown method": (
        [*DIGITS, "--method", "kl"], 2, "unknown range method 'kl'; "
        "expected auto, min-max, moving-average, percentile, entropy, mse; do: choose one of these",
    ),
    "a budget in words": (
        [*DIGITS, "--budget", "little"], 2, "cannot read the budget 'little'; "
        "expected points of top-1 (0.5), or decibels (35dB)",
    ),
    "a budget that nothing meets": (
        [*RANDOM, "--budget", "150dB"], 1, "no configuration reaches 150 dB; "
        "got at best * dB, * points lost, with 6 of 7 layers in float (all but *); expected 150 dB; "
        "do: ask for * dB, or use FP16",
    ),
}  # fmt: skip
FOLDERS = {
    "an empty folder": (
        no_images, "DATA contains no images; got no images, no folders and no label file; "
        "expected images; or one folder of images per class (also below train/ and val/); or images and labels.txt",
    ),
    "images that do not decode": (
        spoilt_class, "cannot read image DATA/3/*.png; got cannot identify image file '*'; "
        "expected a JPEG, PNG or similar",
    ),
    "an empty class": (
        empty_class, "the class '3' in DATA is empty; got no image files that can be read; "
        "do: add images or remove the folder",
    ),
    "other classes": (
        other_classes, "the calibration images show none of the model's classes; "
        "got animal 0, animal 1, animal 2, animal 3, animal 4; expected 0, 1, 2, 3, 4; "
        "do: give the data that the network was trained for",
    ),
    "one colour": (
        one_colour, "too few different calibration images; got 1 among *, * of * of one colour; "
        "expected at least 32; do: give different images",
    ),
}  # fmt: skip
MODELS = {
    "quantised already": (
        already, DIGITS, 1, "MODEL is quantised already; expected a float32 graph; "
        "do: quantise the float file it came from",
    ),
    "NaN activations": (
        overflowing, DIGITS, 1, "tensor 'l0' holds NaN or infinity on the calibration images; "
        "expected finite activations; do: check the weights and the preprocessing; the float model itself overflows",
    ),
    "BatchNormalization": (
        with_batchnorm, DIGITS, 1, "MODEL still has BatchNormalization after convolutions; "
        "got 1 nodes, first 'n_output'; expected BatchNormalization folded into the convolutions; "
        "do: run `edgesmith optimize` on it first",
    ),
    "nothing to quantise": (
        only_relu, DIGITS, 1, "nothing in this graph can be quantised; got no Conv, Gemm or MatMul; "
        "expected Conv or Gemm with constant float32 weights",
    ),
    "two inputs": (
        two_inputs, DIGITS, 1, "calibration batch 0 does not fit the model; got one array: float32 (16, 3, 16, 16); "
        "expected input: float32 ?x3x16x16, other: float32 ?x3; do: give a dict with an array for each input",
    ),
    "a size that nothing fixes": (
        free_size, RANDOM, 2, "the input has dynamic axes; got (None, 3, None, None); do: give images with --data",
    ),
    "a size that is not the spec's": (
        larger, DIGITS, 1, "calibration batch 0 does not fit the model; got float32 (16, 3, 16, 16); "
        "expected float32 ?x3x32x32; do: use the model's own preprocessing",
    ),
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """A folder with five images of each digit."""
    from PIL import Image

    from edgesmith.runtime import datasets

    digits = datasets.load("digits", "train")
    for label in range(10):
        folder = tmp_path / "data" / str(label)
        folder.mkdir(parents=True)
        for at in (digits.labels == label).nonzero()[0][:8]:
            Image.fromarray(np.asarray(digits.images[at])).save(folder / f"{at}.png")
    return tmp_path / "data"


def call(tmp_path, model, options):
    """Quantise a model below a folder; return what the command said, and whether it left anything behind."""
    helper.set_model_props(model, {"edgesmith.spec": SPEC.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    options = [str(tmp_path / "data") if word == "DATA" else word for word in options]
    done = CliRunner().invoke(
        quantize_command, [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "made" / "q.onnx"), *options]
    )
    return done, [path.name for path in tmp_path.rglob("*") if "q.onnx" in path.name]


def refused(tmp_path, model, options, code, line):
    done, left = call(tmp_path, model, options)
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    wanted = re.escape(line).replace(r"\*", "[^;]+?")
    for word, path in (("MODEL", tmp_path / "m.onnx"), ("DATA", tmp_path / "data")):
        wanted = wanted.replace(word, re.escape(str(path)))
    assert done.exit_code == code, done.output
    assert len(errors) == 1, done.stderr
    assert re.fullmatch(f"error: {wanted}", errors[0]), errors[0]
    assert "Traceback" not in done.output
    assert (done.stdout, left) == ("", [])


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_asks_for_what_cannot_be(case, tmp_path):
    options, code, line = COMMANDS[case]
    refused(tmp_path, small_cnn(), options, code, line)


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_cannot_calibrate(case, tmp_path, data):
    spoil, line = FOLDERS[case]
    spoil(data)
    refused(tmp_path, small_cnn(), FOLDER, 1, line)


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that_cannot_be_quantised(case, tmp_path):
    make, options, code, line = MODELS[case]
    refused(tmp_path, make(), options, code, line)


def test_a_model_that_says_nothing_of_its_input(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    done = CliRunner().invoke(
        quantize_command, [str(tmp_path / "m.onnx"), "-o", str(tmp_path / "q.onnx"), "--data", "digits"]
    )
    assert done.exit_code == 2
    assert done.stderr == (
        f"error: {tmp_path / 'm.onnx'} does not say how images become its input; got no ModelSpec in its metadata; "
        f"expected the metadata entry edgesmith.spec; do: write it down with `edgesmith spec {tmp_path / 'm.onnx'} "
        "-o net.toml`, and give --spec net.toml\n"
    )


def test_a_spec_file_says_what_a_foreign_file_does_not(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    (tmp_path / "net.toml").write_text("[preprocess]\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n")
    words = [
        tmp_path / "m.onnx",
        "-o",
        tmp_path / "q.onnx",
        "--data",
        "digits",
        "--spec",
        tmp_path / "net.toml",
        "--quick",
    ]
    done = CliRunner().invoke(quantize_command, list(map(str, words)))
    assert done.exit_code == 0, done.output
    (tmp_path / "net.toml").write_text("[preprocess]\nmeans = [0.5]\n")
    done = CliRunner().invoke(quantize_command, list(map(str, words)))
    assert (done.exit_code, "did you mean 'mean'" in done.stderr) == (2, True)


def test_a_missing_class_is_named_and_the_rest_calibrates(tmp_path, data):
    for path in (data / "9").iterdir():
        path.unlink()
    (data / "9").rmdir()
    done, left = call(tmp_path, small_cnn(), [*FOLDER, "--images", "60", "--target", "ort-x86"])
    assert done.exit_code == 0, done.output
    assert "warning: no calibration image of class 9" in done.stderr.splitlines()
    assert left == ["q.onnx"]
