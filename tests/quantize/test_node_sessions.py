"""Sessions of single nodes: the same bits as a session that has the constants inside, and one for nodes of a kind."""

import numpy as np
import pytest
from onnx import ValueInfoProto, helper, numpy_helper

from edgesmith.optimize.calibration.ort_runs import answers, session
from edgesmith.optimize.quantize.weights import node_sessions
from edgesmith.optimize.quantize.weights.node_sessions import NodeSessions

OPSETS = [helper.make_opsetid("", 18)]
f32 = np.float32
KINDS = {"float32": 1, "int8": 3, "float16": 10}


def node(op, inputs, outputs=("y",), name="n", **attributes):
    return helper.make_node(op, list(inputs), list(outputs), name, **attributes)


def image(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(f32)


CONV = {"w": image(8, 3, 3, 3), "b": image(8)}
# node, activations, constants
CASES = {
    "conv": (node("Conv", "xwb", pads=[1] * 4), {"x": image(5, 3, 17, 17)}, CONV),
    "strided conv": (node("Conv", "xwb", strides=[2, 2]), {"x": image(5, 3, 17, 17)}, CONV),
    "pointwise": (node("Conv", "xw"), {"x": image(4, 96, 9, 9)}, {"w": image(32, 96, 1, 1)}),
    "depthwise": (node("Conv", "xw", group=16), {"x": image(4, 16, 9, 9)}, {"w": image(16, 1, 3, 3)}),
    "conv 1d": (node("Conv", "xw"), {"x": image(4, 16, 9)}, {"w": image(8, 16, 3)}),
    "gemm": (node("Gemm", "xwb", transB=1), {"x": image(5, 33)}, {"w": image(7, 33), "b": image(7)}),
    "matmul": (node("MatMul", "xw"), {"x": image(5, 6, 33)}, {"w": image(33, 7)}),
    "transposed": (node("ConvTranspose", "xw"), {"x": image(2, 4, 5, 5)}, {"w": image(4, 6, 3, 3)}),
    "quantize": (node("QuantizeLinear", "xsz"), {"x": image(4, 5)}, {"s": f32(0.07), "z": np.int8(-3)}),
    "dequantize": (
        node("DequantizeLinear", "xsz"), {"x": np.arange(-9, 9, dtype=np.int8)}, {"s": f32(0.07), "z": np.int8(-3)},
    ),
    "weights": (
        node("DequantizeLinear", "qsz", axis=0), {},
        {"q": np.arange(12, dtype=np.int8).reshape(3, 4), "s": image(3), "z": np.zeros(3, np.int8)},
    ),
    "clip without a bound": (node("Clip", ["x", "", "h"]), {"x": image(4, 5)}, {"h": f32(0.3)}),
    "the same tensor twice": (node("Mul", "xx"), {"x": image(4, 5)}, {}),
    "two activations": (node("Add", "xv"), {"x": image(4, 5), "v": image(4, 5) * 2}, {}),
    "reshape": (node("Reshape", "xs"), {"x": image(4, 6)}, {"s": np.array([0, 2, 3])}),
    "split": (node("Split", "xs", ["y", "u", "v"], axis=1), {"x": image(4, 6)}, {"s": np.array([1, 2, 3])}),
    "an output left out": (node("MaxPool", "x", ["y", ""], kernel_shape=[2, 2]), {"x": image(1, 2, 6, 6)}, {}),
    "half": (node("Mul", "xk"), {"x": image(4, 6).astype(np.float16)}, {"k": np.float16(0.3)}),
}  # fmt: skip


def inside(one, values, constants):
    """Compute a node as it was before: all constants as initializers."""
    graph = helper.make_graph(
        [one], "g",
        [helper.make_tensor_value_info(key, KINDS[v.dtype.name], v.shape) for key, v in values.items()],
        [ValueInfoProto(name=name) for name in one.output if name],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return answers(session(helper.make_model(graph, opset_imports=OPSETS, ir_version=10)), values)


def prepared(sessions, one, values, constants):
    opened, inputs, feeds = sessions.prepared(one, values, {name: np.asarray(v) for name, v in constants.items()})
    return answers(opened, feeds | {inputs[name]: value for name, value in values.items()})


@pytest.mark.parametrize("case", CASES)
def test_the_bits_are_those_of_a_session_with_the_constants_inside(case):
    one, values, constants = CASES[case]
    sessions = NodeSessions(OPSETS)
    for _ in range(2):
        got, expected = prepared(sessions, one, values, constants), inside(one, values, constants)
        assert [(v.dtype, v.shape, v.tobytes()) for v in got] == [(v.dtype, v.shape, v.tobytes()) for v in expected]
    assert len(sessions.opened) == (one.op_type not in ("Gemm", "MatMul", "ConvTranspose"))


def test_nodes_share_a_session_if_only_names_values_and_sizes_differ():
    sessions = NodeSessions(OPSETS)
    first = node("Conv", "xw", pads=[1] * 4)
    prepared(sessions, first, {"x": image(5, 3, 17, 17)}, {"w": image(8, 3, 3, 3)})
    other = node("Conv", ["a", "k"], ["c"], "other", pads=[1] * 4)
    expected = inside(other, {"a": image(2, 6, 9, 9)}, {"k": image(4, 6, 3, 3)})
    got = prepared(sessions, other, {"a": image(2, 6, 9, 9)}, {"k": image(4, 6, 3, 3)})
    assert (got[0].tobytes(), len(sessions.opened)) == (expected[0].tobytes(), 1)
    assert (first.input[0], other.name) == ("x", "other")


@pytest.mark.parametrize(
    ("one", "values"),
    [
        (node("Conv", "xw", pads=[0] * 4), {"x": image(5, 3, 17, 17)}),
        (node("Mul", "xw"), {"x": image(8, 3, 3, 3)}),
        (node("Mul", "xw"), {"x": image(8, 3, 3, 3).astype(np.float16)}),
    ],
)
def test_what_computes_something_else_has_a_session_of_its_own(one, values):
    sessions = NodeSessions(OPSETS)
    constants = {"w": CONV["w"]}
    sessions.prepared(node("Conv", "xw", pads=[1] * 4), {"x": image(5, 3, 17, 17)}, constants)
    sessions.prepared(one, values, {"w": constants["w"].astype(values["x"].dtype)})
    assert len(sessions.opened) == 2


def test_the_session_used_longest_ago_is_closed(monkeypatch):
    monkeypatch.setattr(node_sessions, "MOST", 2)
    sessions, x = NodeSessions(OPSETS), {"x": image(4, 5)}
    first = sessions.prepared(node("Relu", "x"), x, {})[0]
    sessions.prepared(node("Neg", "x"), x, {})
    assert sessions.prepared(node("Relu", "x"), x, {})[0] is first
    sessions.prepared(node("Abs", "x"), x, {})
    assert len(sessions.opened) == 2
    assert sessions.prepared(node("Relu", "x"), x, {})[0] is first
