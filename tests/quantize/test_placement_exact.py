"""What is quantised and which channels hang together, rule by rule, on graphs of a few nodes as text."""

import numpy as np
import pytest

from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize.equalization.channel_groups import _keeps_channels, _split_sizes, channel_groups
from edgesmith.optimize.quantize.layer_queries import is_plain
from edgesmith.optimize.quantize.placement import (
    QuantPlan,
    _unfit,
    activations,
    fold_relus,
    foldable,
    inside_layers,
    place,
    share_concats,
)
from edgesmith.optimize.quantize.quant_params import QuantParams
from edgesmith.optimize.quantize.targets import find_target, quantized_targets
from support.graphs import model

f32, i64 = np.float32, np.int64
INF = float("inf")
X = "(float[N,4,6,6] x)"
W = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "u": (4, 4, 1, 1), "k": f32([[[1]], [[2]], [[3]], [[4]]]), "z": f32(0),
     "s": f32(6), "g": (4, 5), "t": f32(1), "n": f32(-1), "h": (5,), "cut": i64([1, 3]),
     "w8": (4, 8, 1, 1)}  # fmt: skip


def net(text, weights=None, head=X, **options):
    """A graph of these nodes whose last tensor is the output y, of any rank."""
    return ProtoGraph(model(f"{head} => (float y) {{ {text} }}", W if weights is None else W | weights, **options))


def placed(text, target, keep=(), weights=None, head=X, **options):
    made = net(text, weights, head, **options)
    plan = place(made, find_target(target), frozenset(keep))
    names = {id(node): node.output[0] for node in made.nodes}
    readers = {name: sorted(names[at] for at in ids) for name, ids in plan.quantized_reads.items()}
    return made, plan, readers


# text -> tensor: who reads it quantised (nodes go by their first output), for TensorRT
TRT = {
    "a chain": ("a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Relu(c)", {"x": ["a"], "b": ["c"]}),
    "an addition of the input": ("a = Conv(x, w) b = Add(a, x) y = Relu(b)", {"x": ["a", "b"]}),
    "the other way round": ("a = Conv(x, w) b = Add(x, a) y = Relu(b)", {"x": ["a", "b"]}),
    "of two layers the later one fuses": (
        "a = Conv(x, w) b = Conv(x, v) c = Add(a, b) y = Relu(c)", {"x": ["a", "b"], "a": ["c"]},
    ),
    "of two layers, turned": (
        "a = Conv(x, w) b = Conv(x, v) c = Add(b, a) y = Relu(c)", {"x": ["a", "b"], "a": ["c"]},
    ),
    "of two layers the later one fuses, whatever its name": (
        "b = Conv(x, w) a = Conv(x, v) c = Add(a, b) y = Relu(c)",
        {"x": ["a", "b"], "b": ["c"]},
    ),
    "a layer that others read does not fuse": (
        "a = Conv(x, w) b = Conv(x, v) c = Add(a, b) d = Relu(b) y = Add(c, d)", {"x": ["a", "b"], "b": ["c"]},
    ),
    "nothing to fuse with": ("a = Relu(x) b = Add(a, x) y = Conv(b, w)", {"b": ["y"]}),
    "with a constant": ("a = Conv(x, w) y = Add(a, k)", {"x": ["a"]}),
    "with itself": ("a = Conv(x, w) y = Add(a, a)", {"x": ["a"]}),
    "a product is not an addition": ("a = Conv(x, w) y = Mul(a, x)", {"x": ["a"]}),
    "a Gemm fuses too": (
        "p = GlobalAveragePool(x) f = Flatten(p) a = Gemm(f, g, h) q = Relu(a) b = Gemm(q, m) y = Add(b, q)",
        {"f": ["a"], "q": ["b", "y"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TRT)
def test_tensorrt_has_the_inputs_of_layers_and_one_side_of_residuals(case):
    text, expected = TRT[case]
    made, plan, readers = placed(text, "trt", weights={"m": (5, 5)})
    assert readers == expected
    assert (plan.shared_scale, plan.kept_float) == ({}, {})
    read = {name for names in expected.values() for name in names}
    assert [node.output[0] for node in plan.other_ops] == [
        node.output[0] for node in made.nodes if node.op_type == "Add" and node.output[0] in read
    ]


# text -> readers, glue, tensors with one scale, for ONNX Runtime
ORT = {
    "a chain": (
        "a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Sin(c)",
        {"x": ["a"], "a": ["b"], "b": ["c"]}, ["b"], {},
    ),
    "pooling has its input's scale": (
        "a = Conv(x, w) b = MaxPool<kernel_shape=[2,2]>(a) c = Clip(b, z, s) y = Sin(c)",
        {"x": ["a"], "a": ["b"], "b": ["c"], "c": ["y"]}, ["b", "c"], {"b": "a"},
    ),
    "a mean has its own": (
        "a = Conv(x, w) b = GlobalAveragePool(a) c = Flatten(b) y = Sin(c)",
        {"x": ["a"], "a": ["b"], "b": ["c"], "c": ["y"]}, ["b", "c"], {"c": "b"},
    ),
    "a split has one scale for all": (
        "a = Conv(x, w) b, c = Split<axis=1>(a, cut) d = Concat<axis=1>(c, b) y = Conv(d, w)",
        {"x": ["a"], "a": ["b"], "b": ["d"], "c": ["d"], "d": ["y"]}, ["b", "d"], {"b": "a", "c": "a"},
    ),
    "an addition of constants is not glue": (
        "a = Conv(x, w) b = Add(a, k) y = Sin(b)", {"x": ["a"], "a": ["b"]}, [], {},
    ),
    "an addition of two": (
        "a = Conv(x, w) b = Conv(a, v) c = Add(a, b) y = Sin(c)",
        {"x": ["a"], "a": ["b", "c"], "b": ["c"], "c": ["y"]}, ["c"], {},
    ),
    "an addition of one that is not": (
        "a = Conv(x, w) b = Sin(a) c = Add(a, b) y = Sin(c)", {"x": ["a"], "a": ["b", "c"]}, [], {},
    ),
    "others do not read the input": (
        "a = Conv(x, w) b = Sin(x) c = Mul(a, b) y = Conv(c, w)", {"x": ["a"], "a": ["c"], "c": ["y"]}, [], {},
    ),
    "glue reads the input": (
        "a = Conv(x, w) b = MaxPool<kernel_shape=[1,1]>(x) c = Sin(x) d = Mul(b, c) e = Mul(a, d) y = Conv(e, w)",
        {"x": ["a", "b"], "a": ["e"], "b": ["d"], "e": ["y"]}, ["b"], {"b": "x"},
    ),
    "glue before any layer": ("a = Relu(x) y = Conv(a, w)", {"a": ["y"]}, [], {}),
    "a last Gemm stays float": (
        "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm(f, g, h)", {"f": ["y"]}, [], {},
    ),
    "a last Conv too": ("y = Conv(x, w)", {"x": ["y"]}, [], {}),
    "and what it writes is moved in float": (
        "a = Conv(x, w) b = Flatten(a) y = Softmax(b)", {"x": ["a"]}, [], {},
    ),
    "boxes and logits": (
        "a = Conv(x, w) b = Relu(a) c = Conv(b, v) d = Conv(b, u) e = Concat<axis=1>(c, d) y = Flatten<axis=2>(e)",
        {"x": ["a"], "a": ["b"], "b": ["c", "d"]}, ["b"], {},
    ),
    "a Concat of more than layers": (
        "a = Conv(x, w) b = Relu(a) c = Conv(b, v) d = Add(a, c) y = Concat<axis=1>(b, d)",
        {"x": ["a"], "a": ["b", "d"], "b": ["c", "y"], "c": ["d"], "d": ["y"]}, ["b", "d"], {},
    ),
    "a head that leads on does not end": (
        "a = Conv(x, w) b = Concat<axis=1>(a, a) c = Softmax(b) y = Conv(c, w8)",
        {"x": ["a"], "a": ["b"], "b": ["c"], "c": ["y"]}, ["b"], {},
    ),
    "a pooled end stays INT8": (
        "a = Conv(x, w) b = GlobalAveragePool(a) y = Flatten(b)",
        {"x": ["a"], "a": ["b"], "b": ["y"], "y": []}, ["b", "y"], {"y": "b"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ORT)
def test_onnxruntime_has_whole_regions(case):
    text, expected, glue, same = ORT[case]
    _, plan, readers = placed(text, "ort-x86")
    assert readers == expected
    assert [node.output[0] for node in plan.other_ops] == glue
    assert {name: plan.root(name) for name in plan.shared_scale} == same
    assert plan.kept_float == {}


def test_what_is_kept_on_request_is_float():
    _, plan, readers = placed("a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Sin(c)", "ort-x86", ["Conv0"])
    assert plan.kept_float == {"Conv0": "kept float on request"}
    assert readers == {"b": ["c"]}
    _, plan, readers = placed("a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Sin(c)", "ort-x86", ["Relu1"])
    assert [node.op_type for node in plan.other_ops] == []
    assert readers == {"x": ["a"], "a": ["b"], "b": ["c"]}


FLAT = "(float[3,5] x)"
UNFIT = {
    "computed weights": ("q = Sin(w) y = Conv(x, q)", X, "its weights are computed, not constant"),
    "doubles": ("r = Cast<to=11>(x) y = Conv(r, d)", X, "its weights are float64"),
    "a constant input": ("y = Conv(c, w)", X, "its input is constant"),
    "a computed bias": ("b = Sin(h4) y = Conv(x, w, b)", X, "its bias is computed, not constant"),
    "a constant bias": ("y = Conv(x, w, h4)", X, None),
    "transA": ("y = Gemm<transA=1>(x, g3)", FLAT, "Gemm with transA, alpha or beta"),
    "alpha": ("y = Gemm<alpha=0.5>(x, m)", FLAT, "Gemm with transA, alpha or beta"),
    "beta": ("y = Gemm<beta=2.0>(x, m, h)", FLAT, "Gemm with transA, alpha or beta"),
    "a plain Gemm": ("y = Gemm<alpha=1.0, beta=1.0, transB=1>(x, m, h)", FLAT, None),
    "MatMul": ("y = MatMul(x, m)", FLAT, None),
    "MatMul of many": ("y = MatMul(x, mm)", FLAT, "MatMul with weights of rank other than 2"),
    "a grouped Conv of rank 3": ("y = Conv(x, w1)", "(float[1,4,6] x)", None),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_which_layers_stay_float_and_why(case):
    text, head, reason = UNFIT[case]
    weights = {"d": np.ones((4, 4, 1, 1)), "c": (1, 4, 6, 6), "h4": (4,), "g3": (3, 5), "m": (5, 5), "mm": (2, 5, 5),
               "w1": (4, 4, 1)}  # fmt: skip
    _, plan, readers = placed(text, "trt", weights=weights, head=head)
    assert list(plan.kept_float.values()) == ([reason] if reason else [])
    assert len(plan.layers) == len(readers) == (0 if reason else 1)


def test_shapes_and_constants_are_no_activations():
    made = net("a = Conv(x, w) b = Reshape(a, cut) c = Add(a, k) d = Concat<axis=1>(a, k, x) e = Clip(a, , z)"
               " y = Mul(c, d)")  # fmt: skip
    assert [activations(made, node) for node in made.nodes] == [["x"], ["a"], ["a"], ["a", "x"], ["a"], ["c"]]


def test_groups_of_one_scale_are_joined_under_the_first_root():
    plan = QuantPlan()
    plan.join("a", "b")
    plan.join("b", "c")
    plan.join("c", "a")
    plan.join("d", "a")
    assert [plan.root(name) for name in "abcde"] == ["d", "d", "d", "d", "e"]


# ranges of what is concatenated -> whether it gets one scale
SHARED = {
    "alike": (((0, 1), (0, 1.5)), True),
    "twice as wide": (((0, 1), (0, 2)), True),
    "more than twice": (((0, 1), (0, 2.01)), False),
    "both below zero": (((-1, 1), (-1.5, 0.5)), True),
    "one below zero": (((-1, 0), (0, 1)), False),
    "low ends count": (((-1, 0.1), (-3, 0)), False),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_is_concatenated_shares_a_scale_where_it_costs_less_than_a_bit(case):
    ranges, shared = SHARED[case]
    _, plan, _ = placed("a = Conv(x, w) b = Conv(x, v) c = Concat<axis=1>(a, b) y = Conv(c, wide)", "ort-x86",
                        weights={"wide": (4, 8, 1, 1)})  # fmt: skip
    plan.shared_scale.clear()
    share_concats(plan, dict(zip("ab", ranges, strict=True)))
    assert plan.shared_scale == ({"a": "c", "b": "c"} if shared else {})
    del plan.quantized_reads["c"]
    plan.shared_scale.clear()
    share_concats(plan, dict(zip("ab", ranges, strict=True)))
    assert plan.shared_scale == {}


FOLDABLE = {
    "Relu": ("y = Relu(x)", (0.0, INF)),
    "Clip(0, 6)": ("y = Clip(x, z, s)", (0.0, 6.0)),
    "Clip(0,)": ("y = Clip(x, z)", (0.0, 3e38)),
    "Clip(, 6)": ("y = Clip(x, , s)", None),
    "Clip(1, 6)": ("y = Clip(x, t, s)", None),
    "Clip(-1, 6)": ("y = Clip(x, n, s)", None),
    "a computed bound": ("q = Sin(s) y = Clip(x, z, q)", None),
    "Sigmoid": ("y = Sigmoid(x)", None),
}


@pytest.mark.parametrize("case", FOLDABLE)
def test_what_can_become_a_range(case):
    text, bounds = FOLDABLE[case]
    made = net(text)
    assert foldable(made, made.nodes[-1]) == bounds


INNER = {
    "read once": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", {"a"}),
    "read twice": ("a = Conv(x, w) b = Relu(a) c = Conv(a, v) y = Add(b, c)", set()),
    "not foldable": ("a = Conv(x, w) b = MaxPool<kernel_shape=[1,1]>(a) y = Conv(b, v)", set()),
    "no glue": ("a = Relu(x) y = Conv(a, v)", set()),
}


@pytest.mark.parametrize("case", INNER)
def test_what_lies_between_a_layer_and_its_relu(case):
    text, inner = INNER[case]
    made, plan, _ = placed(text, "ort-x86")
    assert inside_layers(made, plan) == inner
    if inner:
        made.outputs.append("a")
        assert inside_layers(made, plan) == set()


SIX = QuantParams(6 / 255, 0, "u8")
# text, grid of b, what is changed first -> whether Relu or Clip goes
FOLDS = {
    "Clip": ("a = Conv(x, w) b = Clip(a, z, s) y = Conv(b, v)", SIX, None, 6.0),
    "Relu": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", QuantParams(3.0, 0, "u8"), None, INF),
    "S8": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", QuantParams(3.0, -128, "s8"), None, INF),
    "a wider grid": ("a = Conv(x, w) b = Clip(a, z, s) y = Conv(b, v)", QuantParams(6.001 / 255, 0, "u8"), None, None),
    "a grid a hair wider": (
        "a = Conv(x, w) b = Clip(a, z, s) y = Conv(b, v)", QuantParams(6 * (1 + 0.9e-6) / 255, 0, "u8"), None, 6.0,
    ),
    "a narrower grid": ("a = Conv(x, w) b = Clip(a, z, s) y = Conv(b, v)", QuantParams(5 / 255, 0, "u8"), None, 6.0),
    "a grid from below zero": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", QuantParams(1.0, 1, "u8"), None, None),
    "two readers": ("a = Conv(x, w) b = Relu(a) c = Conv(a, v) y = Add(b, c)", SIX, None, None),
    "an output too": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", SIX, lambda net, _: net.outputs.append("a"), None),
    "one scale with another": (
        "a = Conv(x, w) b = Relu(a) y = Conv(b, v)", SIX, lambda _, plan: plan.join("x", "a"), None,
    ),
    "one scale with another, first": (
        "a = Conv(x, w) b = Relu(a) y = Conv(b, v)", SIX, lambda _, plan: plan.join("a", "x"), None,
    ),
    "not quantised": (
        "a = Conv(x, w) b = Relu(a) y = Conv(b, v)", SIX, lambda _, plan: plan.quantized_reads.pop("a"), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDS)
def test_a_relu_goes_where_the_quantiser_limits_to_the_same(case):
    text, at, change, bound = FOLDS[case]
    made, plan, _ = placed(text, "ort-x86")
    if change is not None:
        change(made, plan)
    grids = {name: at if name == "b" else QuantParams(1.0, 0, "u8") for name in ("a", "b", "c", "x", "y")}
    folded = fold_relus(made, plan, grids)
    kinds = [node.op_type for node in made.nodes]
    if bound is None:
        assert folded == {}
        assert set(kinds) & {"Relu", "Clip"}
        return
    ((name, found),) = folded.items()
    assert (name, found) == (f"{'Clip' if 'Clip' in text else 'Relu'}1", ("b", bound))
    assert (kinds, [node.op_type for node in plan.other_ops]) == (["Conv", "Conv"], [])
    assert made.nodes[0].output[0] == "b"
    assert made.producer["b"] is made.nodes[0]
    assert "a" not in plan.quantized_reads


def test_a_relu_of_the_input_stays():
    made, plan, _ = placed("a = Conv(x, w) b = Relu(x) y = Add(a, b)", "ort-x86")
    grids = dict.fromkeys(("a", "b", "x", "y"), SIX)
    assert [node.op_type for node in plan.other_ops] == ["Relu", "Add"]
    assert fold_relus(made, plan, grids) == {}


def test_the_forms_are_what_the_page_says():
    names = ("trt", "trt-rtx", "ort-x86", "ort-arm", "openvino")
    assert set(names) == set(quantized_targets())
    rows = [
        (one.name, one.activation_dtype, one.avoid_int16_saturation, one.free_channel_scales)
        for one in map(find_target, names)
    ]
    assert rows == [
        ("trt", "symmetric", False, True), ("trt-rtx", "symmetric", False, True),
        ("ort-x86", "u8", True, False), ("ort-arm", "s8", False, False),
        ("openvino", "u8", True, True),
    ]  # fmt: skip


KEEPS = {
    "Relu": ("y = Relu(x)", True),
    "Sigmoid": ("y = Sigmoid(x)", False),
    "Add": ("y = Add(x, x)", True),
    "Add of a constant": ("y = Add(x, k)", False),
    "Clip(0, 6)": ("y = Clip(x, z, s)", True),
    "Clip(-1, 6)": ("y = Clip(x, n, s)", False),
    "Concat": ("y = Concat<axis=1>(x, x)", True),
    "Concat of places": ("y = Concat<axis=2>(x, x)", False),
    "Concat of a constant": ("y = Concat<axis=1>(x, c)", False),
    "Split": ("y, o = Split<axis=1>(x, cut)", True),
    "Split in equal parts": ("y, o = Split<axis=1, num_outputs=2>(x)", True),
    "Split of images": ("y, o = Split(x, cut)", False),
    "Split by computed sizes": ("q = Abs(cut) y, o = Split<axis=1>(x, q)", False),
    "ReduceMean": ("y = ReduceMean(x, sides)", True),
    "ReduceMean from behind": ("y = ReduceMean(x, behind)", True),
    "ReduceMean of rows": ("y = ReduceMean(x, rows)", False),
    "ReduceMean of all": ("y = ReduceMean(x)", False),
    "Flatten after pooling": ("p = GlobalAveragePool(x) y = Flatten(p)", True),
    "Flatten after a mean": ("p = ReduceMean(x, sides) y = Flatten<axis=1>(p)", True),
    "Flatten at another axis": ("p = GlobalAveragePool(x) y = Flatten<axis=2>(p)", False),
    "Flatten of maps": ("p = Relu(x) y = Flatten(p)", False),
    "Flatten of the input": ("y = Flatten(x)", False),
    "Squeeze after pooling": ("p = GlobalAveragePool(x) y = Squeeze(p, sides)", True),
    "Reshape after pooling": ("p = GlobalAveragePool(x) y = Reshape(p, flat)", True),
    "Reshape of maps": ("p = Relu(x) y = Reshape(p, flat)", False),
    "Transpose after pooling": ("p = GlobalAveragePool(x) y = Transpose(p)", False),
}


@pytest.mark.parametrize("case", KEEPS)
def test_which_operators_keep_channels(case):
    text, kept = KEEPS[case]
    weights = {"c": (1, 4, 6, 6), "sides": i64([2, 3]), "behind": i64([-2, -1]), "rows": i64([2]), "flat": i64([0, -1])}
    made = net(text, weights)
    assert _keeps_channels(made, made.nodes[-1]) is kept


def test_the_sizes_of_a_split_are_given_or_as_even_as_they_go():
    made = net("y, o = Split<axis=1>(x, cut)")
    assert _split_sizes(made, made.nodes[0], 4) == [1, 3]
    made = net("y, o, p = Split<axis=1, num_outputs=3>(x)")
    assert [_split_sizes(made, made.nodes[0], count) for count in (6, 7, 8)] == [[2, 2, 2], [3, 3, 1], [3, 3, 2]]
    made = net("y, o = Split<axis=1, split=[3,1]>(x)", opset=11)
    assert _split_sizes(made, made.nodes[0], 4) == [3, 1]


PLAIN = {
    "Conv": ("y = Conv(x, w)", X, True),
    "Conv with an empty bias": ("y = Conv(x, w)", X, True),
    "Conv with a bias": ("y = Conv(x, w, h4)", X, True),
    "computed weights": ("q = Sin(w) y = Conv(x, q)", X, False),
    "a computed bias": ("q = Sin(h4) y = Conv(x, w, q)", X, False),
    "a constant input": ("y = Conv(c, w)", X, False),
    "Gemm": ("y = Gemm(x, m)", FLAT, False),
    "Gemm turned": ("y = Gemm<transB=1, alpha=1.0, beta=1.0>(x, m)", FLAT, True),
}


@pytest.mark.parametrize("case", PLAIN)
def test_which_layers_are_plain(case):
    text, head, plain = PLAIN[case]
    made = net(text, {"h4": (4,), "c": (1, 4, 6, 6), "m": (5, 5)}, head)
    if "empty" in case:
        made.nodes[-1].input.append("")
        assert _unfit(made, made.nodes[-1], find_target("trt")) == ""
    assert is_plain(made, made.nodes[-1]) is plain


def told(made):
    """Each space that is not of one tensor, or not frozen, in words."""
    found = []
    for space in channel_groups(made):
        writers, readers = (
            "".join(sorted(node.output[0] for node in nodes)) for nodes in (space.writers, space.readers)
        )
        channels = {name: numbers.tolist() for name, numbers in space.channels.items()}
        found.append(("".join(sorted(space.tensors)), writers, readers, sorted(space.between), space.limit,
                      space.frozen, channels))  # fmt: skip
    return sorted(found)


FOUR = [0, 1, 2, 3]
ENDS = "an input or output of the graph"
SPACES = {
    "layers alone": (
        "a = Conv(x, w) b = Relu(a) y = Conv(b, v)",
        [("ab", "a", "y", ["Relu"], INF, "", {"a": FOUR, "b": FOUR}), ("x", "", "a", [], INF, ENDS, {}),
         ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "the lowest limit": (
        "a = Conv(x, w) b = Clip(a, z, s) c = Clip(b, z, t) y = Conv(c, v)",
        [("abc", "a", "y", ["Clip"], 1.0, "", {"a": FOUR, "b": FOUR, "c": FOUR}), ("x", "", "a", [], INF, ENDS, {}),
         ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "an addition": (
        "a = Conv(x, w) b = Conv(a, v) c = Add(a, b) y = Conv(c, u)",
        [("abc", "ab", "by", ["Add"], INF, "", {"a": FOUR, "b": FOUR, "c": FOUR}), ("x", "", "a", [], INF, ENDS, {}),
         ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "a sigmoid": (
        "a = Conv(x, w) b = Sigmoid(a) y = Conv(b, v)",
        [("a", "a", "", [], INF, "Sigmoid Sigmoid1", {"a": FOUR}), ("b", "", "y", [], INF, "Sigmoid Sigmoid1", {}),
         ("x", "", "a", [], INF, ENDS, {}), ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "three parts": (
        "a = Conv(x, w) b, c, d = Split<axis=1>(a, parts) e = Concat<axis=1>(c, d, b) y = Conv(e, v)",
        [("abcde", "a", "y", ["Concat", "Split"], INF, "",
          {"a": FOUR, "b": [0], "c": [1, 2], "d": [3], "e": [1, 2, 3, 0]}), ("x", "", "a", [], INF, ENDS, {}),
         ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "two layers joined": (
        "a = Conv(x, w) b = Conv(x, v) c = Concat<axis=1>(a, b) d, e = Split<axis=1, num_outputs=2>(c)"
        " f = Add(d, e) y = Conv(f, u)",
        [("abcdef", "ab", "y", ["Add", "Concat", "Split"], INF, "",
          {"a": FOUR, "b": FOUR, "c": FOUR * 2, "d": FOUR, "e": FOUR, "f": FOUR}), ("x", "", "ab", [], INF, ENDS, {}),
         ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "unknown channels": (
        "q = Sin(w) a = Conv(x, q) b = Relu(a) y = Conv(b, v)",
        [("ab", "", "y", ["Relu"], INF, "Conv Conv1", {}), ("q", "", "", [], INF, "Conv Conv1", {}),
         ("x", "", "", [], INF, ENDS, {}), ("y", "y", "", [], INF, ENDS, {"y": FOUR})],
    ),
    "the mean of a map": (
        "a = Conv(x, w) b = GlobalAveragePool(a) c = Flatten(b) y = Gemm<transB=1>(c, gt)",
        [("abc", "a", "y", ["Flatten", "GlobalAveragePool"], INF, "", {"a": FOUR, "b": FOUR, "c": FOUR}),
         ("x", "", "a", [], INF, ENDS, {}), ("y", "y", "", [], INF, ENDS, {"y": [0, 1, 2, 3, 4]})],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPACES)
def test_channels_that_can_only_be_scaled_together(case):
    text, expected = SPACES[case]
    assert told(net(text, {"parts": i64([1, 2, 1]), "gt": (5, 4)})) == expected
