"""The failure catalogue: each row that a GPU-less machine can provoke is provoked, and answered with its cause."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.engines.failures import CATALOGUE, explain
from edgesmith.runtime.errors import BuildError
from support.engine_graphs import saved, small_net, text_model

pytest.importorskip("tensorrt_rtx_bindings")
CONV = "float[4,4,1,1] w = {" + ",".join(["0.5"] * 16) + "}"
PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
FOUR = "float[4] a = {1.0,1.0,1.0,1.0}"
CUT = small_net().SerializeToString()[:3000]


def external():
    model = text_model("y = Conv(x, w)", weights=CONV)
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w"))
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="gone.bin")
    return model


# code -> (a graph or bytes, options of build_engine)
PROVOKED = {
    "custom-op": (text_model("y = custom.Thing(x)"), {}),
    "no-plugin": (text_model("y = NonZero(x)", outputs="int64[4,N] y"), {}),
    "pool-dilation": (text_model("y = MaxPool<kernel_shape=[2,2], dilations=[2,2], pads=[1,1,1,1]>(x)"), {}),
    "pool-indices": (text_model("y, i = MaxPool<kernel_shape=[1,1]>(x)"), {}),
    "resize-mode": (text_model('y = Resize<antialias=1, mode="linear">(x, , a)', 18, weights=FOUR), {}),
    "training-mode": (text_model("y, m, v = BatchNormalization<training_mode=1>(x, a, a, a, a)", weights=FOUR), {}),
    "top-k": (text_model("y, i = TopK(x, k)", inputs="float[1,5000] x", outputs="float[1,4000] y",
                         weights="int64[1] k = {4000}"), {}),
    "uint8-op": (text_model("t = Transpose<perm=[0,3,1,2]>(x) y = Cast<to=1>(t)", inputs="uint8[1,8,8,4] x"), {}),
    "int32-bias": (text_model("b = DequantizeLinear(i, s) y = Conv(x, w, b)",
                              weights=f"{CONV}, int32[4] i = {{1,2,3,4}}, float s = {{0.1}}"), {}),
    "uint8-input": (text_model("b = DequantizeLinear(i, s) y = Conv(x, w, b)",
                               weights=f"{CONV}, uint8[4] i = {{1,2,3,4}}, float s = {{0.1}}"), {}),
    "zero-point": (text_model(PAIR, weights="float s = {0.1}, int8 z = {3}"), {}),
    "bad-scale": (text_model(PAIR, weights="float s = {0.0}, int8 z = {0}"), {}),
    "fixed-batch": (text_model("y = Reshape(x, r)", inputs="float[N,4] x", outputs="float[1,4] y",
                               weights="int64[2] r = {1, 4}"), {"batch": (1, 2, 4)}),
    "shape": (text_model("y = Add(x, a)", weights="float[3] a = {1.0,2.0,3.0}"), {}),
    "negative-length": (text_model(
        "y = NonMaxSuppression(x, s)", inputs="float[1,4,4] x", outputs="int64[N,3] y",
        weights="float[1,1,4] s = {1.0,1.0,1.0,1.0}"), {}),
    "rank": (text_model("y = Relu(x)", inputs="float[1,1,1,1,1,1,1,1,2] x", outputs="float[1,1,1,1,1,1,1,1,2] y"), {}),
    "sm75-gemm": (small_net(), {"sm": "7.5"}),
    "sm75-conv": (text_model("y = Conv(x, w)", inputs="float[1,1,4,4,4] x", outputs="float[1,1,4,4,4] y",
                             weights="float[1,1,1,1,1] w = {1.0}"), {"sm": "7.5"}),
    "workspace": (small_net(), {"workspace": 1}),
    "external-data": (external(), {}),
    "not-onnx": (CUT, {}),
    "no-outputs": (b"", {}),
    "unsupported-op": (text_model("q = SplitToSequence<axis=1>(x, k) y = SequenceAt(q, i)",
                                  outputs="float[1,2,8,8] y", weights="int64 k = {2}, int64 i = {0}"), {}),
}  # fmt: skip
# Rows that only a GPU, a lean runtime or another TensorRT provokes, with the words that they were seen with.
SEEN = {
    "no-implementation": "Error Code 10: Could not find any implementation for node Conv_3.",
    "gpu-needed": "Myelin ([myelin_graph.h] MyelinCheckException: graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS)",
    "lean": "Unable to load library: libnvinfer_lean.so.1",
    "cancelled": "Error Code 7: BuildCanceled (Build canceled by user)",
}


@pytest.mark.parametrize("code", PROVOKED)
def test_a_failure_is_named_with_its_cause(code, tmp_path):
    graph, options = PROVOKED[code]
    row = next(item for item in CATALOGUE if item.code == code)
    data = graph if isinstance(graph, bytes) else graph.SerializeToString()
    (tmp_path / "n.onnx").write_bytes(data)
    with pytest.raises(BuildError, match=rf"TensorRT cannot (read|build) .*n\.onnx: {re.escape(row.cause)}") as caught:
        build_engine(tmp_path / "n.onnx", tmp_path / "n.engine", **options)
    assert caught.value.do == row.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]


@pytest.mark.parametrize("code", SEEN)
def test_a_failure_seen_elsewhere_is_named(code):
    assert explain(SEEN[code]).code == code


def test_every_row_is_tested():
    assert sorted(row.code for row in CATALOGUE) == sorted([*PROVOKED, *SEEN])


def test_an_unknown_message_has_no_row():
    assert explain("Error Code 9: something new") is None


def test_the_node_is_named(tmp_path):
    onnx = saved(text_model("r = Relu(x) y = custom.Thing(r)"), tmp_path / "n.onnx")
    with pytest.raises(BuildError, match=r"got node 1 \(Thing\): "):
        build_engine(onnx, tmp_path / "n.engine")


def test_the_page_prints_the_catalogue():
    page = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    assert [row.code for row in CATALOGUE if f"| {row.code} |" not in page or row.remedy not in page] == []
