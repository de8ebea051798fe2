"""Decoders in INT8: Resize, and what float operators hand to operators that only move values."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import find_target
from support.graphs import model

f32, i64 = np.float32, np.int64
W = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "e": (4, 8, 1, 1), "d": (4, 4, 2, 2), "k": f32([1, 1, 2, 2])}
HEAD = "(float[1,4,8,8] x) => (float[1,4,p,q] y)"
NEAREST, LINEAR = 'Resize<mode="nearest">', 'Resize<mode="linear">'
NO_LINEAR = "Resize by linear has no INT8 kernel"
NO_TRANSPOSED = "ort-x86 has no INT8 kernel for ConvTranspose"

# name -> (nodes, operators in INT8 by their first output, in float with the reason, tensors that are quantised)
CASES = {
    "nearest": (f"a = Conv(x, w) b = {NEAREST}(a, , k) y = Conv(b, v) ", ["b"], {}, "xab"),
    "linear": (f"a = Conv(x, w) b = {LINEAR}(a, , k) y = Conv(b, v)", [], {"Resize1": NO_LINEAR}, "xab"),
    "cubic": (
        f"a = Conv(x, w) b = {NEAREST.replace('nearest', 'cubic')}(a, , k) y = Conv(b, v)", [],
        {"Resize1": "Resize by cubic has no INT8 kernel"}, "xab",
    ),
    "antialias": (
        'a = Conv(x, w) b = Resize<mode="linear", antialias=1>(a, , k) y = Conv(b, v)', [],
        {"Resize1": "Resize by antialiasing has no INT8 kernel"}, "xab",
    ),
    "behind the last layer": (f"a = Conv(x, w) y = {NEAREST}(a, , k)", [], {}, "x"),
    "linear, then a Concat": (
        f"a = Conv(x, w) b = {LINEAR}(a, , k) c = {NEAREST}(a, , k) f = Concat<axis=1>(b, c) y = Conv(f, e)",
        ["c", "f"], {"Resize1": NO_LINEAR}, "xabcf",
    ),
    "ConvTranspose, then a Concat": (
        "a = Conv(x, w) b = ConvTranspose<strides=[2,2]>(a, d) h = Relu(b)"
        f" c = {NEAREST}(a, , k) f = Concat<axis=1>(h, c) y = Conv(f, e)",
        ["c", "f"], {"ConvTranspose1": NO_TRANSPOSED}, "xahcf",
    ),
    "linear, then an Add": (
        f"a = Conv(x, w) b = {LINEAR}(a, , k) c = {NEAREST}(a, , k) f = Add(b, c) y = Conv(f, v)",
        ["c", "f"], {"Resize1": NO_LINEAR}, "xabcf",
    ),
    "an activation, then an Add": (
        "a = Conv(x, w) b = Sigmoid(a) f = Add(b, a) y = Conv(f, v)", [], {}, "xaf",
    ),
    "an activation, then a Split": (
        "a = Conv(x, w) b = Sigmoid(a) c, f = Split<axis=2>(b, s) g = Conv(c, v) h = Sigmoid(g)"
        " j = Concat<axis=1>(h, f) y = Conv(j, e)", ["c", "j"], {}, "xabcfghj",
    ),
    "products of activations are no layers": (
        "a = Conv(x, w) b = Sigmoid(a) c = Tanh(a) f = Concat<axis=1>(b, c) g = MatMul(f, f) y = Conv(g, e)",
        [], {"MatMul4": "its weights are computed, not constant"}, "xag",
    ),
    "shapes": (
        "a = Conv(x, w) n = Shape(a) m = Mul(n, o) b = Concat<axis=0>(m) h = Reshape(a, b) y = Conv(h, v)",
        ["h"], {}, "xah",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_of_a_decoder_is_in_int8_and_what_is_not_and_why(case):
    text, inside, floats, quantised = CASES[case]
    net = ProtoGraph(model(f"{HEAD} {{ {text} }}", W | {"s": i64([4, 4]), "o": i64([1, 1, 1, 1])}))
    plan = place(net, find_target("ort-x86"))
    assert sorted(node.output[0] for node in plan.other_ops) == inside
    assert plan.kept_float == floats
    assert "".join(sorted(plan.quantized_reads)) == "".join(sorted(quantised))


def test_a_float_reader_of_what_enters_reads_floats():
    text = "a = Conv(x, w) b = Sigmoid(a) c = Tanh(b) f = Concat<axis=1>(b, a) g = Conv(f, e) y = Add(g, c)"
    net = ProtoGraph(model(f"{HEAD} {{ {text} }}", W))
    plan = place(net, find_target("ort-x86"))
    assert [node.output[0] for node in plan.readers(net, "b")] == ["f"]


def test_a_decoder_runs_in_integers_and_computes_the_same(tmp_path):
    text = (
        f"a = Conv(x, w) r = Relu(a) b = {NEAREST}(r, , k) c = ConvTranspose<strides=[2,2]>(r, d)"
        " f = Concat<axis=1>(b, c) h = Conv(f, e) y = Relu(h)"
    )
    source, result, optimised = (tmp_path / name for name in ("net.onnx", "int8.onnx", "runs.onnx"))
    onnx.save(model(f"{HEAD} {{ {text} }}", W), source)
    images = np.random.default_rng(0).normal(size=(40, 4, 8, 8)).astype("f4")
    report = quantize(
        source, result, list(images[:, None]), target="ort-x86", allow_random=True, settings=QuantSettings.quick()
    )
    assert report.quantised == {"Conv": 2, "Resize": 1, "Concat": 1}
    assert report.floats == {"ConvTranspose3": NO_TRANSPOSED}
    assert min(report.sqnr_db.values()) > 30
    options = ort.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(optimised), 4
    ort.InferenceSession(str(result), options)
    nodes = list(onnx.load(optimised).graph.node)
    makers = {name: node.op_type for node in nodes for name in node.output}
    (resize,) = [node for node in nodes if node.op_type == "Resize"]
    assert makers[resize.input[0]] != "DequantizeLinear"
    assert "QLinearConcat" in {node.op_type for node in nodes}
