"""One graph per trap that the preflight knows, and the same graphs mended: found, and not found."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith.optimize.trt import findings, preflight
from edgesmith.runtime.errors import ModelError, UsageError
from support.engine_graphs import saved, small_net, text_model

PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
QDQ = "float s = {0.1}, int8 z = {0}"
CONV = "float[4,4,1,1] w = {" + ",".join(["0.5"] * 16) + "}"
INT8_CONV = "int8[4,4,1,1] w = {" + ",".join(["5"] * 16) + "}"

# code -> (body, keywords of text_model, precision, SMs)
TRAPS = {
    "unsupported-op": ("y = NonZero(x)", {"outputs": "int64[4,N] y"}),
    "custom-op": ("y = custom.Thing(x)", {}),
    "pool-dilation": ("y = MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(x)", {}),
    "pool-indices": ("y, i = MaxPool<kernel_shape=[1,1]>(x)", {}),
    "resize-mode": ("y = Resize<antialias=1, mode=\"linear\">(x, , s)",
                    {"opset": 18, "weights": "float[4] s = {1.0,1.0,1.0,1.0}"}),
    "training-mode": ("y, m, v = BatchNormalization<training_mode=1>(x, a, a, a, a)",
                      {"weights": "float[4] a = {1.0,1.0,1.0,1.0}"}),
    "top-k": ("y, i = TopK(x, k)", {"inputs": "float[1,5000] x", "outputs": "float[1,4000] y",
                                   "weights": "int64[1] k = {4000}"}),
    "uint8-op": ("t = Transpose<perm=[0,3,1,2]>(x) y = Cast<to=1>(t)", {"inputs": "uint8[1,8,8,4] x"}),
    "fixed-batch": ("y = Reshape(x, r)", {"inputs": "float[N,4] x", "outputs": "float[1,4] y",
                                         "weights": "int64[2] r = {1, 4}"}),
    "rank": ("y = Relu(x)", {"inputs": "float[1,1,1,1,1,1,1,1,2] x", "outputs": "float[1,1,1,1,1,1,1,1,2] y"}),
    "opset": ("y = Relu(x)", {"opset": 999}),
    "zero-point": (PAIR, {"weights": "float s = {0.1}, int8 z = {3}"}),
    "uint8": (PAIR, {"weights": "float s = {0.1}, uint8 z = {0}"}),
    "uint8 left out": ("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", {"weights": "float s = {0.1}"}),
    "computed-scale": ("m = ReduceMax<keepdims=0>(x) q = QuantizeLinear(x, m, z) y = DequantizeLinear(q, m, z)",
                       {"weights": "int8 z = {0}"}),
    "bad-scale": (PAIR, {"weights": "float s = {0.0}, int8 z = {0}"}),
    "activation-scale": (PAIR, {"weights": "float[1] s = {0.1}, int8[1] z = {0}"}),
    "activation-scale per channel": ("q = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(q, s, z)",
                                     {"weights": "float[4] s = {0.1,0.1,0.1,0.1}, int8[4] z = {0,0,0,0}"}),
    "weight-scale": ("d = DequantizeLinear(w, s, z) y = Conv(x, d)",
                     {"weights": f"{INT8_CONV}, float[1] s = {{0.1}}, int8[1] z = {{0}}"}),
    "weight-axis": ("d = DequantizeLinear<axis=1>(w, s, z) y = Conv(x, d)",
                    {"weights": f"{INT8_CONV}, float[4] s = {{0.1,0.1,0.1,0.1}}, int8[4] z = {{0,0,0,0}}"}),
    "int32-bias": ("b = DequantizeLinear(i, s) y = Conv(x, w, b)",
                   {"weights": f"{CONV}, int32[4] i = {{1,2,3,4}}, float s = {{0.1}}"}),
    "uint8-input": ("b = DequantizeLinear(i, s) y = Conv(x, w, b)",
                    {"weights": f"{CONV}, uint8[4] i = {{1,2,3,4}}, float s = {{0.1}}"}),
    "no-qdq": ("y = Conv(x, w)", {"weights": CONV}),
}  # fmt: skip
MENDED = {
    "quantised as TensorRT wants it": (
        PAIR.replace("y =", "a =") + " d = DequantizeLinear<axis=0>(w, t, u) y = Conv(a, d)",
        {"weights": f"{QDQ}, {INT8_CONV}, float[4] t = {{0.1,0.1,0.1,0.1}}, int8[4] u = {{0,0,0,0}}"}),
    "the batch left open": ("y = Reshape(x, r)", {"inputs": "float[N,4] x", "outputs": "float[N,4] y",
                                                  "weights": "int64[2] r = {-1, 4}"}),
    "Cast before Transpose": ("f = Cast<to=1>(x) y = Transpose<perm=[0,3,1,2]>(f)", {"inputs": "uint8[1,8,8,4] x"}),
    "a plain pool": ("y = MaxPool<kernel_shape=[1,1]>(x)", {}),
    "TopK that fits": ("y, i = TopK(x, k)", {"inputs": "float[1,5000] x", "outputs": "float[1,100] y",
                                             "weights": "int64[1] k = {100}"}),
}  # fmt: skip


def found(body, settings, tmp_path, **options):
    path = saved(text_model(body, **settings), tmp_path / "n.onnx")
    return [item.code for item in preflight.check(path, options.get("precision", "int8"), options.get("sms", ()))]


@pytest.mark.parametrize("case", TRAPS)
def test_each_trap_is_found_and_nothing_else(case, tmp_path):
    body, settings = TRAPS[case]
    expected = {case.split()[0]}
    assert set(found(body, settings, tmp_path)) - ({"no-qdq"} - expected) == expected


@pytest.mark.parametrize("case", MENDED)
def test_a_mended_graph_is_clean(case, tmp_path):
    assert found(*MENDED[case], tmp_path) == []


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_scale_that_is_no_scale(value, tmp_path):
    model = text_model("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", weights=QDQ)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32(value), "s"))
    codes = [item.code for item in preflight.check(saved(model, tmp_path / "n.onnx"), "int8")]
    assert "bad-scale" in codes


def test_nan_weights_are_found(tmp_path):
    model = text_model("y = Conv(x, w)", weights=CONV)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((4, 4, 1, 1), np.nan, np.float32), "w"))
    assert [item.code for item in preflight.check(saved(model, tmp_path / "n.onnx"))] == ["not-finite"]


def test_a_weight_of_a_type_that_onnx_lacks_is_an_error_and_no_crash(tmp_path):
    model = text_model("y = Conv(x, w)", weights=CONV)
    model.graph.initializer[0].data_type = 2**31 - 1
    graph = findings.PreflightGraph(model, tmp_path / "n.onnx")
    assert graph.value("w") is None
    (found,) = preflight._weights(graph, "fp16", ["8.6"])
    assert (found.code, found.node) == ("unknown-type", "w")


def test_a_negative_dimension_is_found(tmp_path):
    model = text_model("y = Relu(x)")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert "negative-dim" in [item.code for item in preflight.check(saved(model, tmp_path / "n.onnx"))]


def test_many_nodes_are_a_warning(tmp_path):
    nodes = [helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(preflight.MANY_NODES + 1)]
    made = [helper.make_tensor_value_info(f"t{i}", TensorProto.FLOAT, [1]) for i in (0, len(nodes))]
    model = helper.make_model(helper.make_graph(nodes, "g", made[:1], made[1:]), ir_version=8,
                              opset_imports=[helper.make_opsetid("", 17)])  # fmt: skip
    (item,) = preflight.check(saved(model, tmp_path / "n.onnx"))
    assert (item.severity, item.code) == ("warning", "many-nodes")


TURING = {
    "FP32 Gemm": (small_net("fp32"), "fp32", ["sm75-gemm"]),
    "FP16 Gemm": (small_net("fp16"), "fp16", []),
    "INT8": (small_net("int8", head="none"), "int8", ["sm75-int8"]),
    "3-D": (text_model("y = Conv(x, w)", inputs="float[1,1,4,4,4] x", outputs="float[1,1,4,4,4] y",
                       weights="float[1,1,1,1,1] w = {1.0}"), "fp32", ["sm75-conv"]),
}  # fmt: skip


@pytest.mark.parametrize("case", TURING)
def test_what_sm_75_lacks(case, tmp_path):
    model, precision, codes = TURING[case]
    path = saved(model, tmp_path / "n.onnx")
    assert [item.code for item in preflight.check(path, precision, ["7.5", "8.6"])] == codes
    assert preflight.check(path, precision, ["8.6"]) == []


FILES = {
    "empty": (b"", "empty"), "text": (b"hello, this is not an onnx file\n" * 9, "not-onnx"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "not-onnx"),
    "cut off": (small_net().SerializeToString()[:3000], "not-onnx"),
    "no graph": (helper.make_model(helper.make_graph([], "g", [], []), ir_version=8).SerializeToString(), "empty"),
    "a node of no input": (text_model("y = Relu(x)").SerializeToString().replace(b"Relu", b"Rely"), "invalid"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_files_that_are_no_network(case, tmp_path):
    data, code = FILES[case]
    (tmp_path / "n.onnx").write_bytes(data)
    findings = preflight.check(tmp_path / "n.onnx")
    assert [item.code for item in findings] == [code]
    with pytest.raises(ModelError, match=r"TensorRT cannot use .*n\.onnx"):
        preflight.require(findings, tmp_path / "n.onnx")


@pytest.mark.parametrize("location", ["missing.bin", "../outside.bin"])
def test_external_data_that_is_not_there(location, tmp_path):
    model = text_model("y = Conv(x, w)", weights=CONV)
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    (tmp_path / "outside.bin").write_bytes(b"\0" * 64)
    (tmp_path / "in").mkdir()
    (item,) = preflight.check(saved(model, tmp_path / "in" / "n.onnx"))
    assert item.code == "invalid"


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        preflight.check(tmp_path / "none.onnx")


def test_require_lets_warnings_pass(tmp_path):
    preflight.require([findings.Finding("warning", "x", "", "slow")], "n.onnx")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_good_network_is_clean(precision, tmp_path):
    assert preflight.check(saved(small_net(precision), tmp_path / "n.onnx"), precision, ["8.6"]) == []
