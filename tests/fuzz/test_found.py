"""What the fuzzer found in ONNX files, one row each: the graph, and the error that it now ends in."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesmith.optimize import optimizer
from edgesmith.optimize.calibration.ort_runs import answers, session
from edgesmith.optimize.fp16 import convert
from edgesmith.optimize.graph.proto_graph import read_model
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError, ModelError
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
        optimizer.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_a_name_that_is_no_text(tmp_path):
    data = model(CONV, {"w": (4, 3, 3, 3)}).SerializeToString().replace(b"Conv0", b"Con\xff0")
    (tmp_path / "in.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"is damaged; got the name b.Con|no ONNX file"):
        optimizer.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx")


def test_an_endless_name_is_cut_in_the_message():
    assert len(str(ModelError("x" * 10**6, got="y" * 10**6))) < 4000


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
        lambda: optimizer.optimize(onnx_file, tmp_path / "out.onnx"),
    ):
        with pytest.raises(ModelError, match="outside its folder|from memory"):
            reader()


def test_weights_of_another_size_in_a_file_beside_it(tmp_path):
    made = model("(float[1, 4] x) => (float[1, 4] y) { y = Mul (x, w) }", {"w": np.ones(4, np.float32)})
    onnx.external_data_helper.convert_model_to_external_data(made, location="w.bin", size_threshold=0)
    onnx.save(made, tmp_path / "in.onnx")
    assert numpy_helper.to_array(read_model(tmp_path / "in.onnx").graph.initializer[0]).shape == (4,)
    (tmp_path / "w.bin").write_bytes(bytes(52))
    description = onnx.load(tmp_path / "in.onnx", load_external_data=False)
    del description.graph.initializer[0].external_data[1:]  # its place, without a length: all that the file has
    onnx.save(description, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="not a usable ONNX file; got cannot reshape array of size 13"):
        read_model(tmp_path / "in.onnx")


def test_a_graph_that_loads_and_does_not_run(tmp_path):
    """A Reshape to a size that the data does not have, found when the calibration images go through."""
    made = model(
        "(float[1, 3, 8, 8] x) => (float[a, b] y) { h = Relu (x) y = Reshape (h, s) }", {"s": np.array([7, 11])}
    )
    onnx.save(made, tmp_path / "in.onnx")
    batches = [np.ones((1, 3, 8, 8), np.float32)]
    with pytest.raises(ModelError, match="ONNX Runtime (cannot run|refuses) the graph|is not a usable ONNX file"):
        convert.to_fp16(tmp_path / "in.onnx", tmp_path / "out.onnx", batches)
    assert not (tmp_path / "out.onnx").exists()


def test_an_input_of_a_galaxy_is_not_made_up(tmp_path):
    made = model("(float[4611686018427387904, 4] x) => (float[a, 4] y) { y = Relu (x) }")
    onnx.save(made, tmp_path / "in.onnx")
    check = optimizer.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx").check
    assert (check.verdict, "too large to generate" in check.detail) == ("cannot tell", True)


def test_a_function_that_is_called_with_too_much(tmp_path):
    made = model("(float[4] x) => (float[4] y) { y = f (x, x) }")
    body = onnx.helper.make_node("Relu", ["a"], ["b"])
    made.functions.append(onnx.helper.make_function("local", "f", ["a"], ["b"], [body], made.opset_import[:1]))
    made.graph.node[0].domain = "local"
    made.opset_import.append(onnx.helper.make_opsetid("local", 1))
    onnx.save(made, tmp_path / "in.onnx")
    with pytest.raises(ModelError, match="is not a usable ONNX file"):
        read_model(tmp_path / "in.onnx")


@pytest.mark.parametrize(("images", "batch", "fits"), [(3, 4, False), (4, 4, True), (7, 4, True)])
def test_fewer_calibration_images_than_one_batch(images, batch, fits, tmp_path):
    made = model(
        f"(float[{batch}, 3, 8, 8] x) => (float[{batch}, 4, 6, 6] y) {{ y = Conv (x, w) }}", {"w": (4, 3, 3, 3)}
    )
    onnx.save(made, tmp_path / "in.onnx")
    noise = np.random.default_rng(0).standard_normal((images, 1, 3, 8, 8)).astype(np.float32)
    settings = {"target": "ort-x86", "allow_random": True, "min_images": 1}
    if fits:
        assert quantize(tmp_path / "in.onnx", tmp_path / "out.onnx", list(noise), **settings).bytes_after
    else:
        with pytest.raises(DataError, match="do not fill one batch; got 3 images for a batch of 4; do: give more"):
            quantize(tmp_path / "in.onnx", tmp_path / "out.onnx", list(noise), **settings)


def test_few_images_for_a_free_batch_are_judged_all_the_same(tmp_path):
    """Dense layers between float operators are judged on batches of 32: two images made none."""
    made = model(
        "(float[N, 16] x) => (float[N, 5] y) { g = Gemm <transB = 1> (x, w, b) m = MatMul (g, k) y = Softmax (m) }",
        {"w": (6, 16), "b": (6,), "k": (6, 5)},
    )
    onnx.save(made, tmp_path / "in.onnx")
    noise = list(np.random.default_rng(0).standard_normal((2, 1, 16)).astype(np.float32))
    report = quantize(
        tmp_path / "in.onnx", tmp_path / "out.onnx", noise, target="ort-x86", allow_random=True, min_images=1
    )
    assert report.bytes_after > 0


def test_a_graph_that_needs_more_memory_than_there_is_is_a_model_error():
    """281 TB, more than any address space holds, asked for while a calibration image goes through."""
    made = model("(float[1] x) => (float[N] y) <int64[1] size = {70368744177664}> { y = Expand(x, size) }")
    with pytest.raises(ModelError, match="ONNX Runtime cannot run the graph; got .*memory"):
        answers(session(made), {"x": np.ones(1, np.float32)})


@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Conv", "ConvTranspose"])
def test_a_product_of_too_few_inputs_in_an_unknown_opset_costs_nothing(op, tmp_path):
    """No schema says that an input is missing, and `optimize` counts multiply-adds."""
    made = model(CONV, {"w": (4, 3, 3, 3)})
    made.graph.node.append(onnx.helper.make_node(op, ["x"], ["z"], "odd"))
    made.graph.output.append(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None))
    made.opset_import[0].version = 1 << 62
    onnx.save(made, tmp_path / "in.onnx")
    optimizer.optimize(tmp_path / "in.onnx", tmp_path / "out.onnx", target="trt", verify=False)
    assert [node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node].count(op) == 1 + (op == "Conv")
