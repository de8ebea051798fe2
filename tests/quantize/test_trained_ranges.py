"""Q/DQ files from training are taken as they are: another target's form has their ranges and their weights."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.ort_runs import answers, session
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.quantize.qdq.trained_ranges import without_pairs
from support.graphs import model

f32, u8, i8 = np.float32, np.uint8, np.int8
IMAGES = np.random.default_rng(0).normal(size=(40, 4, 8, 8)).astype("f4")
NET = (
    "(float[1,4,8,8] x) => (float[1,4,6,6] y) {"
    " a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z) c = Conv(b, w, e) r = Relu(c)"
    " d = QuantizeLinear(r, t, o) f = DequantizeLinear(d, t, o) y = Conv(f, v) }"
)
WEIGHTS = {"w": (4, 4, 3, 3), "e": (4,), "v": (4, 4, 1, 1), "s": f32(0.03), "t": f32(0.05)}
GRIDS = {"ort": {"z": u8(120), "o": u8(0)}, "trt": {"z": i8(0), "o": i8(0)}}
RANGES = {
    "ort": {"x": (-120 * 0.03, 135 * 0.03), "r": (0, 255 * 0.05)},
    "trt": {"x": (-127 * 0.03, 127 * 0.03), "r": (0, 127 * 0.05)},
}


def pairs(graph):
    """Return the scale and the zero point of each QuantizeLinear, by what it reads."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    quantisers = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    return {node.input[0]: (float(arrays[node.input[1]]), int(arrays[node.input[2]])) for node in quantisers}


@pytest.mark.parametrize("grid", GRIDS)
def test_a_file_with_pairs_is_a_float_graph_and_ranges(grid):
    graph, ranges = without_pairs(model(NET, WEIGHTS | GRIDS[grid]))
    assert [node.op_type for node in graph.graph.node] == ["Conv", "Relu", "Conv"]
    assert {name: pytest.approx(ends, abs=1e-5) for name, ends in RANGES[grid].items()} == ranges
    onnx.checker.check_model(graph, full_check=True)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("target", ["ort-x86", "trt", "openvino"])
def test_another_targets_form_has_the_ranges_of_the_file(grid, target, tmp_path):
    source, result = tmp_path / "qat.onnx", tmp_path / "out.onnx"
    trained = model(NET, WEIGHTS | GRIDS[grid])
    onnx.save(trained, source)
    report = quantize(source, result, list(IMAGES[:, None]), target=target, allow_random=True)
    assert any("the ranges of its 2 tensors" in text for text in report.warnings)
    grids = pairs(onnx.load(result))
    low, high = RANGES[grid]["x"]
    scale, zero = grids["x"]
    if target == "trt":
        assert (scale, zero) == (pytest.approx(max(-low, high) / 127), 0)
    else:
        assert scale == pytest.approx((high - low) / 255)
    mine, theirs = session(onnx.load(result)), session(trained)
    both = [np.stack([answers(run, {"x": image[None]})[0] for image in IMAGES[:8]]) for run in (theirs, mine)]
    assert sqnr_db(*both) > 30


def test_integer_weights_and_biases_become_floats_exactly():
    text = (
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)"
        " k = DequantizeLinear<axis=0>(w, t, o) e = DequantizeLinear<axis=0>(h, m) c = Conv(b, k, e)"
        " d = QuantizeLinear(c, s, z) y = DequantizeLinear(d, s, z) }"
    )
    rng = np.random.default_rng(1)
    scales, biases = f32([0.1, 0.2, 0.3, 0.4]), f32([0.01, 0.02, 0.03, 0.04])
    integers, whole = rng.integers(-127, 128, (4, 4, 1, 1)).astype(i8), rng.integers(-999, 999, 4).astype(np.int32)
    arrays = {"w": integers, "t": scales, "o": np.zeros(4, i8), "h": whole, "m": biases, "s": f32(0.03), "z": u8(9)}
    graph, ranges = without_pairs(model(text, arrays))
    assert [node.op_type for node in graph.graph.node] == ["Conv", "Identity"]
    floats = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    weight, bias = (floats[name] for name in graph.graph.node[0].input[1:])
    assert np.allclose(weight, integers * scales.reshape(-1, 1, 1, 1), rtol=1e-6)
    assert np.allclose(bias, whole * biases, rtol=1e-6)
    assert set(ranges) == {"x", "c"}


REFUSED = {
    "a float graph": "y = Conv(x, w, e)",
    "an integer operator": (
        "a = QuantizeLinear(x, s, z) c = DequantizeLinear(a, s, z) y = Conv(c, w) q = ConvInteger(a, i)"
    ),
    "integers that something else reads": (
        "a = QuantizeLinear(x, s, z) c = Reshape(a, n) b = DequantizeLinear(c, s, z) y = Conv(b, w)"
    ),
    "a body that reads floats": (
        "a = QuantizeLinear(x, s, z) c = DequantizeLinear(a, s, z) p = Cast<to=9>(s)"
        " y = If<then_branch = g () => (float[1,4,8,8] q) { q = Neg(c) },"
        " else_branch = h () => (float[1,4,8,8] r) { r = Abs(c) }>(p)"
    ),
    "a computed scale": "j = Abs(s) a = QuantizeLinear(x, j, z) c = DequantizeLinear(a, j, z) y = Conv(c, w)",
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_of_this_kind_is_left_alone(case):
    arrays = WEIGHTS | GRIDS["ort"] | {"i": i8(np.ones((4, 4, 1, 1))), "n": np.array([1, 4, 8, 8])}
    assert without_pairs(model(f"(float[1,4,8,8] x) => (float y) {{ {REFUSED[case]} }}", arrays)) is None


def test_readers_with_grids_of_their_own_give_the_wider_range():
    text = (
        "(float[1,4,8,8] x) => (float[1,4,8,8] y) { a = QuantizeLinear(x, s, z) b = DequantizeLinear(a, s, z)"
        " c = QuantizeLinear(x, t, z) d = DequantizeLinear(c, t, z) y = Add(b, d) }"
    )
    graph, ranges = without_pairs(model(text, {"s": f32(0.5), "t": f32(0.25), "z": i8(0)}))
    assert (list(graph.graph.node[0].input), ranges) == (["x", "x"], {"x": (-63.5, 63.5)})
