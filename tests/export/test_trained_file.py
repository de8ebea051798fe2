"""A file that was trained with Q/DQ takes the whole road: FP32 and FP16 without them, INT8 with its ranges."""

import numpy as np
import onnx
import pytest

import edgesmith as es
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.errors import ModelError
from support.graphs import model

NET = (
    "(float[1,4,8,8] x) => (float[1,4,6,6] y) {"
    " a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = Conv(b, w, e) r = Relu(c)"
    " d = QuantizeLinear(r, t, o) f = DequantizeLinear(d, t, o) y = Conv(f, v) }"
)
ARRAYS = {
    "w": (4, 4, 3, 3), "e": (4,), "v": (4, 4, 1, 1), "s": np.float32(0.03), "t": np.float32(0.05), "z": np.uint8(120),
    "o": np.uint8(0),
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 4, 2, 2)).astype("f4").repeat(4, 2).repeat(4, 3))
    return path


def test_the_whole_road(tmp_path, data):
    onnx.save(model(NET, ARRAYS), tmp_path / "qat.onnx")
    lines = []
    summary = es.export(
        tmp_path / "qat.onnx", data=str(data), target="ort-x86", out=tmp_path / "b", say=lines.append, task="features"
    )
    assert summary.passed, summary.checks
    assert any("INT8 gets its ranges of 2 tensors" in line for line in lines)
    bundle = read_bundle(tmp_path / "b")
    graphs = {one.name: onnx.load(bundle.folder / one.path) for one in bundle.artefacts}
    assert set(graphs) == {"qat-fp32", "qat-fp16", "qat-int8-ort-x86"}
    for name, graph in graphs.items():
        kinds = {node.op_type for node in graph.graph.node}
        assert ("QuantizeLinear" in kinds) is ("int8" in name)
    scales = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graphs["qat-int8-ort-x86"].graph.initializer
    }
    first = next(node for node in graphs["qat-int8-ort-x86"].graph.node if node.op_type == "QuantizeLinear")
    assert scales[first.input[1]] == pytest.approx(0.03)


def test_integer_operators_are_one_line_before_any_work(tmp_path, data):
    text = "(uint8[1,4] x) => (int32[1,4] y) { y = MatMulInteger(x, w) }"
    onnx.save(model(text, {"w": np.ones((4, 4), np.int8)}), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="is quantised in a way that cannot be read back"):
        es.export(tmp_path / "m.onnx", data=str(data), out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
