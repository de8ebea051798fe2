"""What the fuzzer found, one row each: the input, and the error that it now ends in."""

import dataclasses
import json
import os
import pickle
import struct

import numpy as np
import onnx
import pytest
from PIL import Image

from edgesmith.models import checkpoints
from edgesmith.optimize import precision, runner
from edgesmith.optimize.quantize.net import read_model
from edgesmith.optimize.quantize.observe import answers, session
from edgesmith.runtime import load, preprocess, sources
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError, ModelError, UsageError
from edgesmith.runtime.files import existing_file
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.bundles import SPEC, colour_bundle, picture
from support.graphs import model

CONV = "(float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv (x, w) }"


def no_weights(made):
    del made.graph.node[0].input[1:]


def empty_weights(made):
    made.graph.node[0].input[1] = ""


def two_outputs(made):
    made.graph.node[0].output.append("more")


def text_for_a_number(made):
    made.graph.node[0].attribute.append(onnx.helper.make_attribute("group", "two"))


NODES = {
    "an input too few": (no_weights, "Conv node 'Conv0' with 1 inputs"),
    "an input left out": (empty_weights, "Conv node 'Conv0' without its input 'W'"),
    "an output too many": (two_outputs, "Conv node 'Conv0' with 2 outputs"),
    "an attribute of another type": (text_for_a_number, "with attribute 'group' of type 3"),
}


@pytest.mark.parametrize("case", NODES)
def test_a_node_that_does_not_fit_its_operator(case, tmp_path):
    spoil, message = NODES[case]
    made = model(CONV, {"w": (4, 3, 3, 3)})
    spoil(made)
    onnx.save(made, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match=message):
        runner.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_a_name_that_is_no_text(tmp_path):
    data = model(CONV, {"w": (4, 3, 3, 3)}).SerializeToString().replace(b"Conv0", b"Con\xff0")
    (tmp_path / "in.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"is damaged; got the name b.Con|no ONNX file"):
        runner.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_an_endless_name_is_cut_in_the_message():
    assert len(str(ModelError("x" * 10**6, got="y" * 10**6))) < 4000


BATCHES = {"a list": [np.zeros((3, 16, 16))], "an object": object(), "no dimensions": np.float32(1), "none": None}


@pytest.mark.parametrize("case", BATCHES)
def test_what_is_no_batch(case, tmp_path):
    with load(colour_bundle(tmp_path / "b" / "colours"), device="ort", threads=1) as loaded:
        with pytest.raises(DataError, match="this is no batch"):
            loaded.run(BATCHES[case])
        assert loaded(picture("blue")).top(1)[0].label == "blue"


@pytest.mark.parametrize("reader", [preprocess.read_image, lambda path: list(sources.frames(str(path)))])
def test_what_is_no_image_file(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.gif")
    with pytest.raises((DataError, UsageError), match="no regular file|no such file"):
        reader(tmp_path / "pipe.gif")


def test_a_path_that_cannot_be_one():
    for path in ("x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="cannot read image"):
            preprocess.read_image(path)
        with pytest.raises(UsageError, match="cannot read model"):
            existing_file(path, "model")


def test_an_animation_far_larger_than_its_file(tmp_path):
    frame = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\x00\x00" + bytes(6)
    (tmp_path / "x.gif").write_bytes(head + frame + b"\x3b")
    with pytest.raises(DataError, match="animation .* is too large"):
        list(sources.frames(str(tmp_path / "x.gif")))


def test_an_animation_that_breaks_off_gives_the_frames_before(tmp_path):
    frames = [Image.fromarray(picture(colour)) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    data = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(data[: len(data) * 2 // 3])
    found = sources.frames(str(tmp_path / "x.gif"))
    assert next(found).shape == (40, 30, 3)


PREPROCESSES = {
    "a text for a size": {"resize": "nan"}, "a text for a mean": {"mean": ["x", 0, 0]},
    "a deviation of zero": {"std": [0, 1, 1]}, "fewer deviations": {"std": [1.0]}, "a crop of one": {"crop": [3]},
    "a number for a name": {"interpolation": 7},
    "a size of a galaxy": {"resize": 2**40}, "a crop of a galaxy": {"crop": [2**40, 8]},
}  # fmt: skip


@pytest.mark.parametrize("case", PREPROCESSES)
def test_preprocessing_of_nonsense(case):
    values = json.loads(SPEC.to_json())
    values["preprocess"] |= PREPROCESSES[case]
    with pytest.raises(ModelError, match="the ModelSpec cannot be read"):
        ModelSpec.from_json(json.dumps(values))


@pytest.mark.parametrize("change", [{"labels": [1]}, {"output_names": "output"}, {"input_name": None}, {"layout": 3}])
def test_names_of_nonsense(change):
    with pytest.raises(ModelError, match="the ModelSpec cannot be read"):
        ModelSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), **change}))


def test_fewer_means_than_channels():
    odd = dataclasses.replace(SPEC, preprocess=Preprocess((16, 16), 16, mean=(0.5,), std=(0.5,)))
    with pytest.raises(DataError, match="lacks a mean; got 1 means for RGB"):
        preprocess.apply([picture("red")], odd)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x02u.", b"\x80\x02R.", pickle.dumps([1])[:-1] + b"R."])
def test_a_pickle_that_is_no_pickle(data, tmp_path):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ModelError, match=r"is no checkpoint|was refused"):
        checkpoints.read(tmp_path / "a.pth")


OUTSIDE = {"a climbing path": "../secret.bin", "an absolute path": "{folder}/secret.bin", "a link": "link.bin"}


@pytest.mark.parametrize("case", OUTSIDE)
def test_weights_outside_the_files_folder_are_not_read(case, tmp_path):
    """Neither by the optimizer nor by ONNX Runtime, whether it is given the path or the bytes; beside it they are."""
    place = tmp_path / "m"
    place.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    (place / "beside.bin").write_bytes(np.ones(4, np.float32).tobytes())
    (place / "link.bin").symlink_to(tmp_path / "secret.bin")
    made = model("(float[4] x) => (float[4] y) { y = Add (x, w) }", {"w": np.zeros(4, np.float32)})
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add(key="location", value="beside.bin")
    onnx_file = place / "in.onnx"
    onnx_file.write_bytes(made.SerializeToString())
    with ort.open(onnx_file, threads=1) as session:
        assert session.run({"x": np.zeros(4, np.float32)})["y"].tolist() == [1, 1, 1, 1]
    entry.value = OUTSIDE[case].format(folder=tmp_path)
    onnx_file.write_bytes(made.SerializeToString())
    for reader in (
        lambda: ort.open(onnx_file, threads=1),
        lambda: ort.open(onnx_file, threads=1, content=onnx_file.read_bytes()),
        lambda: runner.optimize(onnx_file, tmp_path / "out.onnx"),
    ):
        with pytest.raises(ModelError, match=r"External data path|cannot be read from|ONNX Runtime cannot load"):
            reader()


def test_a_graph_that_loads_and_does_not_run(tmp_path):
    """A Reshape to a size that the data does not have, found when the calibration images go through."""
    made = model(
        "(float[1, 3, 8, 8] x) => (float[a, b] y) { h = Relu (x) y = Reshape (h, s) }", {"s": np.array([7, 11])}
    )
    onnx.save(made, tmp_path / "in.onnx")
    batches = [np.ones((1, 3, 8, 8), np.float32)]
    with pytest.raises(ModelError, match="ONNX Runtime (cannot run|refuses) the graph|is not a usable ONNX file"):
        precision.to_fp16(tmp_path / "in.onnx", tmp_path / "out.onnx", batches)
    assert not (tmp_path / "out.onnx").exists()


def test_an_input_of_a_galaxy_is_not_made_up(tmp_path):
    made = model("(float[4611686018427387904, 4] x) => (float[a, 4] y) { y = Relu (x) }")
    onnx.save(made, tmp_path / "in.onnx")
    check = runner.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx").check
    assert (check.verdict, "too large to be made up" in check.detail) == ("cannot tell", True)


def test_a_function_that_is_called_with_too_much(tmp_path):
    made = model("(float[4] x) => (float[4] y) { y = f (x, x) }")
    body = onnx.helper.make_node("Relu", ["a"], ["b"])
    made.functions.append(onnx.helper.make_function("local", "f", ["a"], ["b"], [body], made.opset_import[:1]))
    made.graph.node[0].domain = "local"
    made.opset_import.append(onnx.helper.make_opsetid("local", 1))
    onnx.save(made, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="is not a usable ONNX file"):
        read_model(tmp_path / "in.onnx")


def test_a_graph_that_needs_more_memory_than_there_is_is_a_model_error():
    """281 TB, more than any address space holds, asked for while a calibration image goes through."""
    made = model("(float[1] x) => (float[N] y) <int64[1] size = {70368744177664}> { y = Expand(x, size) }")
    with pytest.raises(ModelError, match="ONNX Runtime cannot run the graph; got .*memory"):
        answers(session(made), {"x": np.ones(1, np.float32)})
