"""Where zero points may move and what moves with them, rule by rule."""

import numpy as np
import pytest
from onnx import helper

from edgesmith.optimize.calibration.statistics import Stats
from edgesmith.optimize.graph.proto_graph import ProtoGraph, attributes
from edgesmith.optimize.quantize.equalization.cross_layer import own_weights
from edgesmith.optimize.quantize.layer_queries import pads, pads_by_list
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.qdq.insert import insert_qdq
from edgesmith.optimize.quantize.qdq.zero_points_to_biases import (
    _addend,
    _gains,
    _layer,
    _movable,
    _passes,
    _path,
    _shift_bounds,
    _sums,
    move_zero_points_to_biases,
    tensors_with_zero_point,
)
from edgesmith.optimize.quantize.quant_params import QuantParams
from edgesmith.optimize.quantize.targets import find_target
from support.graphs import model

f32, i64 = np.float32, np.int64
TRT = find_target("trt-rtx")
W = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "u": (4, 4, 3, 3), "d": (4, 1, 3, 3), "b4": (4,), "k": (4, 1, 1),
     "g": (5, 4), "gt": (4, 5), "b5": (5,), "z": f32(0), "s": f32(6)}  # fmt: skip


def net(text, **options):
    return ProtoGraph(model(f"(float[N,4,6,6] x) => (float y) {{ {text} }}", W, **options))


def stats(low, high):
    return Stats(low, high, np.full(4, low), np.full(4, high))


@pytest.mark.parametrize(
    ("low", "high", "gains"),
    [(0, 1, True), (-1, 0, True), (-1, 1, False), (-0.9, 1, False), (-0.81, 1, True), (-0.82, 1, False), (0, 0, False),
     (0.5, 1, True), (-1, -0.5, True), (-1, 0.81, True), (-1, 0.82, False)],
)  # fmt: skip
def test_a_grid_must_become_a_tenth_narrower(low, high, gains):
    assert _gains(stats(float(low), float(high))) is gains


@pytest.mark.parametrize(
    ("text", "found", "by_list"),
    [("y = Conv(x, w)", [], True), ("y = Conv<pads=[0,0,0,0]>(x, w)", [], True),
     ("y = Conv<pads=[1,0,2,0]>(x, w)", [1, 0, 2, 0], True), ('y = Conv<auto_pad="SAME_UPPER">(x, u)', [], False),
     ('y = Conv<auto_pad="VALID">(x, u)', [], True), ('y = Conv<auto_pad="NOTSET">(x, u)', [], True),
     ('y = Conv<auto_pad="SAME_LOWER">(x, u)', [], False), ("y = Sin(x)", [], True)],
)  # fmt: skip
def test_padding_is_read_from_its_list(text, found, by_list):
    node = net(text).nodes[0]
    assert pads(node) == found
    assert pads_by_list(node) is by_list


# text -> whether what reads `a` quantised can take a constant away again
MOVABLE = {
    "a layer": ("a = Relu(x) y = Conv(a, w, b4)", True),
    "two": ("a = Relu(x) c = Conv(a, w, b4) e = Conv(a, v) y = Concat<axis=1>(c, e)", True),
    "computed weights": ("a = Relu(x) q = Sin(w) c = Conv(a, v) e = Conv(a, q) y = Concat<axis=1>(c, e)", True),
    "a product of matrices": ("a = Relu(x) y = MatMul(a, m)", False),
    "padding by name": ('a = Relu(x) y = Conv<auto_pad="SAME_UPPER">(a, u)', False),
    "padding": ("a = Relu(x) y = Conv<pads=[1,1,1,1]>(a, u)", True),
    "padding behind pooling": (
        "o = Conv(x, w, b4) a = MaxPool<kernel_shape=[2,2]>(o) y = Conv<pads=[1,1,1,1]>(a, u)",
        False,
    ),
    "padding behind another pooling": ("a = AveragePool<kernel_shape=[2,2]>(x) y = Conv<pads=[1,1,1,1]>(a, u)", True),
    "no padding behind pooling": ("o = Conv(x, w, b4) a = MaxPool<kernel_shape=[2,2]>(o) y = Conv(a, u)", True),
    "depthwise behind pooling": (
        "o = Conv(x, w, b4) a = MaxPool<kernel_shape=[2,2]>(o) y = Conv<group=4, pads=[1,1,1,1]>(a, d)",
        True,
    ),
    "pooling of what no layer alone writes": ("a = MaxPool<kernel_shape=[2,2]>(x) y = Conv(a, u)", False),
    "pooling that another one reads": (
        "o = Conv(x, w, b4) a = MaxPool<kernel_shape=[2,2]>(o) c = Conv(a, w) s = Sin(a) y = Add(c, s)",
        False,
    ),
    "a residual": ("a = Relu(x) c = Conv(a, w, b4) e = Add(c, a) y = Sin(e)", True),
    "a residual, turned": ("a = Relu(x) c = Conv(a, w, b4) e = Add(a, c) y = Sin(e)", True),
    "a residual of a layer without a bias": ("a = Relu(x) c = Conv(a, w) e = Add(c, a) y = Sin(e)", False),
}


@pytest.mark.parametrize("case", MOVABLE)
def test_which_readers_can_take_a_constant_away(case):
    text, movable = MOVABLE[case]
    made = ProtoGraph(model(f"(float[N,4,6,6] x) => (float y) {{ {text} }}", W | {"m": (6, 6)}))
    assert bool(_movable(made, place(made, TRT), "a")) is movable


def test_only_what_is_seen_and_stands_alone_gets_a_zero_point():
    made = net("a = Relu(x) c = Conv(a, w, b4) e = Relu(c) y = Conv(e, v, b4)")
    plan = place(made, TRT)
    seen = {"a": stats(0.0, 1.0), "e": stats(0.0, 1.0)}
    assert tensors_with_zero_point(made, plan, seen, TRT) == {"a": "s8", "e": "s8"}
    assert tensors_with_zero_point(made, plan, seen, find_target("ort-x86")) == {}
    assert tensors_with_zero_point(made, plan, {"a": seen["a"]}, TRT) == {"a": "s8"}
    assert tensors_with_zero_point(made, plan, seen | {"e": stats(-1.0, 1.0)}, TRT) == {"a": "s8"}
    made.outputs.append("e")
    assert tensors_with_zero_point(made, plan, seen, TRT) == {"a": "s8"}
    plan.join("a", "other")
    assert tensors_with_zero_point(made, plan, seen, TRT) == {}
    plan.shared_scale = {"a": "other"}
    assert tensors_with_zero_point(made, plan, seen, TRT) == {}


LAYER = {
    "a layer": ("c = Conv(x, w, b4) y = Relu(c)", True),
    "a Gemm": ("p = GlobalAveragePool(x) f = Flatten(p) c = Gemm(f, gt, b5) y = Relu(c)", True),
    "a Gemm with beta": ("p = GlobalAveragePool(x) f = Flatten(p) c = Gemm<beta=2.0>(f, gt, b5) y = Relu(c)", False),
    "without a bias": ("c = Conv(x, w) y = Relu(c)", False),
    "a computed bias": ("q = Sin(b4) c = Conv(x, w, q) y = Relu(c)", False),
    "two readers": ("c = Conv(x, w, b4) e = Relu(c) y = Add(c, e)", False),
    "no layer": ("c = Sin(x) y = Relu(c)", False),
}


@pytest.mark.parametrize("case", LAYER)
def test_a_layer_that_alone_decides(case):
    text, alone = LAYER[case]
    made = net(text)
    found = _layer(made, "c")
    assert (found is not None) is alone
    assert _layer(made, "x") is None
    if alone:
        assert found.output[0] == "c"
        made.outputs.append("c")
        assert _layer(made, "c") is None


def test_the_other_side_of_an_addition():
    made = net("c = Conv(x, w, b4) e = Add(c, x) h = Add(x, x) y = Add(e, h)")
    by_output = {node.output[0]: node for node in made.nodes}
    assert _addend(made, by_output["e"], "x").output[0] == "c"
    assert _addend(made, by_output["e"], "c") is None
    assert _addend(made, by_output["h"], "x") is None


# text -> the nodes from a tensor back to the layer that decides, by their outputs; an addition takes no part
PATHS = {
    "a layer": ("c = Conv(x, w, b4) y = Sin(c)", "c", "c"),
    "behind a Relu": ("c = Conv(x, w, b4) e = Relu(c) y = Sin(e)", "e", "ec"),
    "behind a Clip and a pooling": (
        "c = Conv(x, w, b4) e = Clip(c, z, s) h = MaxPool<kernel_shape=[2,2]>(e) y = Sin(h)", "h", "hec",
    ),
    "a sum of two": ("c = Conv(x, w, b4) e = Conv(x, v, b4) h = Add(c, e) y = Sin(h)", "h", "c"),
    "a sum of one": ("e = Conv(x, v, b4) h = Add(x, e) i = Relu(h) y = Sin(i)", "i", "ie"),
    "a sum of none": ("h = Add(x, x) y = Sin(h)", "h", ""),
    "a sum with a constant": ("c = Conv(x, w, b4) h = Add(c, k) y = Sin(h)", "h", ""),
    "a product": ("c = Conv(x, w, b4) h = Mul(c, k) y = Sin(h)", "h", ""),
    "read twice": ("c = Conv(x, w, b4) e = Relu(c) h = Sin(e) y = Add(e, h)", "e", ""),
    "read twice before": ("c = Conv(x, w, b4) e = Relu(c) h = Sin(c) i = Add(h, h) y = Add(e, i)", "e", ""),
    "an input": ("e = Relu(x) y = Sin(e)", "e", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", PATHS)
def test_the_way_back_to_who_decides(case):
    text, name, path = PATHS[case]
    made = net(text)
    found = _path(made, name)
    assert "".join(node.output[0] for node in found) == path
    made.outputs.append(name)
    assert _path(made, name) == []


PASSING = {
    "Relu": ("y = Relu(x)", True),
    "Clip": ("y = Clip(x, z, s)", True),
    "Clip below": ("y = Clip(x, z)", True),
    "Clip above": ("y = Clip(x, , s)", True),
    "a computed bound": ("q = Sin(s) y = Clip(x, z, q)", False),
    "MaxPool": ("y = MaxPool<kernel_shape=[2,2], pads=[1,1,1,1]>(x)", True),
    "AveragePool": ("y = AveragePool<kernel_shape=[2,2]>(x)", True),
    "AveragePool that pads": ("y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1]>(x)", True),
    "AveragePool with its padding": (
        "y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], count_include_pad=1>(x)", False,
    ),
    "AveragePool, ceiled": ("y = AveragePool<kernel_shape=[2,2], pads=[1,1,1,1], ceil_mode=1>(x)", False),
    "AveragePool without pads, ceiled": ("y = AveragePool<kernel_shape=[2,2], ceil_mode=1>(x)", True),
    "Flatten": ("y = Flatten(x)", True),
    "two outputs": ("y, m = MaxPool<kernel_shape=[2,2]>(x)", False),
    "Sigmoid": ("y = Sigmoid(x)", False),
}  # fmt: skip


@pytest.mark.parametrize("case", PASSING)
def test_what_passes_a_constant_on(case):
    text, passing = PASSING[case]
    made = net(text)
    assert _passes(made, made.nodes[-1]) is passing


def test_bounds_move_with_the_value():
    made = net("c = Relu(x) e = Clip(c, z, s) h = Clip(e, , s) y = Flatten(h)")
    for node in list(made.nodes):
        _shift_bounds(made, node, 1.5)
    assert [node.op_type for node in made.nodes] == ["Clip", "Clip", "Clip", "Flatten"]
    bounds = [[made.arrays[name].tolist() if name else None for name in node.input[1:]] for node in made.nodes]
    assert bounds == [[1.5], [1.5, 7.5], [None, 7.5], []]
    assert {made.arrays[name].dtype for node in made.nodes for name in node.input[1:] if name} == {np.dtype(f32)}
    assert (made.arrays["z"].tolist(), made.arrays["s"].tolist()) == (0, 6)
    assert made.producer["c"].op_type == "Clip"


def test_the_sums_of_weights_are_those_of_the_integers_times_their_scales():
    draw = np.random.default_rng(0)
    weight = draw.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8)
    scale = draw.uniform(0.1, 1, 4).astype(f32)
    text = "(float[N,4,6,6] x) => (float y) { q = DequantizeLinear<axis=0>(i, t, o) y = Conv(x, q, b4) }"
    made = ProtoGraph(model(text,
                     {"i": weight, "t": scale, "o": np.zeros(4, np.int8), "b4": (4,)}))  # fmt: skip
    assert _sums(made, made.nodes[1]) == pytest.approx(weight.astype(np.float64).sum((1, 2, 3)) * scale)
    plain = net("y = Conv(x, u)")
    assert _sums(plain, plain.nodes[0]) == pytest.approx(plain.arrays["u"].astype(np.float64).sum((1, 2, 3)))
    flat = net("p = GlobalAveragePool(x) f = Flatten(p) y = Gemm<transB=1>(f, g)")
    assert _sums(flat, flat.nodes[2]) == pytest.approx(flat.arrays["g"].astype(np.float64).sum(1))


def test_attributes_of_other_nodes_are_not_pads():
    node = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    assert pads(node) == []
    assert attributes(node) == {"kernel_shape": [2, 2]}


def test_no_old_bound_is_left_in_the_file():
    made = net("a = Conv(x, w, b4) e = Clip(a, z, s) y = Conv(e, v, b4)")
    own_weights(made)
    plan = place(made, TRT)
    grids = {"x": QuantParams(0.02, 0, "s8"), "e": QuantParams(6 / 255, -128, "s8")}
    insert_qdq(made, plan, grids, TRT, {})
    assert move_zero_points_to_biases(made) == {"e/Q": -128}
    read = {name for node in made.nodes for name in node.input}
    assert {tensor.name for tensor in made.graph.initializer} <= read
    (clip,) = (node for node in made.nodes if node.op_type == "Clip")
    by = float(f32(6 / 255)) * -128
    assert [float(made.arrays[name]) for name in clip.input[1:]] == pytest.approx([by, 6 + by])
