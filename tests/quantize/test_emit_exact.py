"""Q/DQ as it is written, the ranges it is written with, and the walk that mends it, on graphs of a few nodes."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.ort_runs import with_outputs
from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import Stats
from edgesmith.optimize.graph.proto_graph import ProtoGraph, attributes
from edgesmith.optimize.quantize import QuantSettings, pipeline
from edgesmith.optimize.quantize.pipeline import _alternatives, _ceilings, _joined, _limits, _method, grids_of
from edgesmith.optimize.quantize.placement import QuantPlan, place
from edgesmith.optimize.quantize.qdq.insert import insert_qdq, integer_biases
from edgesmith.optimize.quantize.qdq.zero_points_to_biases import restore_zero_points
from edgesmith.optimize.quantize.quant_params import QuantParams, quant_params
from edgesmith.optimize.quantize.range_estimators import METHODS
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.optimize.quantize.weights import reconstruction
from edgesmith.optimize.quantize.weights.int16_saturation import largest_integers, raw_peaks
from edgesmith.optimize.quantize.weights.quantize_weights import (
    bias_scales,
    mse_scale,
    scales,
    stored_weights,
    weight_scales,
)
from edgesmith.runtime.errors import ModelError
from support.graphs import model
from support.quant_graphs import run

f32 = np.float32
X = "(float[N,4,6,6] x)"
W = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "b4": (4,), "z": f32(0), "s": f32(6), "g": (4, 5), "m": (6, 3)}
TRT, X86, ARM = (find_target(name) for name in ("trt", "ort-x86", "ort-arm"))


def net(text, head=X, **weights):
    return ProtoGraph(model(f"{head} => (float[] y) {{ {text} }}".replace("float[] y", "float y"), W | weights))


def by_output(made):
    return {node.output[0]: node for node in made.nodes}


WEIGHT = np.random.default_rng(0).normal(0, 1, (3, 4, 2, 2)) * np.array([1, 2, 3]).reshape(3, 1, 1, 1)
BIAS = np.array([0.1, -1e7, 0.0])


def test_scales_of_weights_follow_the_form():
    plain = scales(WEIGHT, 0)
    clipped = mse_scale(WEIGHT, plain)
    assert weight_scales(WEIGHT, 0, TRT, None, BIAS, 0.1) == pytest.approx(np.maximum(clipped, 2.0**-14))
    assert weight_scales(WEIGHT * 1e-9, 0, TRT, None, None, 0.1) == pytest.approx([2.0**-14] * 3)
    assert weight_scales(WEIGHT * 1e-9, 0, X86, None, None, 0.1) == pytest.approx(clipped * 1e-9)
    integer = bias_scales(clipped, 0.1, BIAS)
    assert integer[1] > 2 * clipped[1]
    assert weight_scales(WEIGHT, 0, X86, None, BIAS, 0.1) == pytest.approx(integer)
    assert weight_scales(WEIGHT, 0, X86, None, None, 0.1) == pytest.approx(clipped)


def test_a_channel_with_a_limit_is_not_clipped():
    """Twenty thousand weights and one far out: clipping pays, but a limited channel keeps its largest weight."""
    weight = np.random.default_rng(0).normal(0, 1, (2, 20000))
    weight[:, 0] = 6
    free, both = (
        weight_scales(weight, 0, X86, None, None, 0.1),
        weight_scales(weight, 0, X86, np.array([127, 63]), None, 0.1),
    )
    assert free[0] < 6 / 127 * 0.99
    assert both == pytest.approx([free[0], 6 / 63])


def test_one_scale_for_all_takes_the_lowest_limit_and_the_largest_bias():
    top = np.abs(WEIGHT).max()
    assert weight_scales(WEIGHT, None, X86, None, None, 0.1) == pytest.approx(top / 127)
    assert weight_scales(WEIGHT, None, X86, np.array([100, 50, 127]), None, 0.1) == pytest.approx(top / 50)
    made = weight_scales(WEIGHT, None, X86, None, np.array([0.1, -1e9, 0.0]), 0.1)
    assert made.shape == ()
    assert made == pytest.approx(1e9 / 0.1 / 2**30)


FIRST = {
    "Conv": ("y = Conv(x, w)", X, 0, "w"),
    "Gemm": ("y = Gemm<alpha=1.0>(x, g)", "(float[N,4] x)", 0, "g_t"),
    "Gemm, transB=0": ("y = Gemm<transB=0, beta=1.0>(x, g)", "(float[N,4] x)", 0, "g_t"),
    "Gemm turned": ("y = Gemm<transB=1>(x, g)", "(float[N,5] x)", 0, "g"),
    "MatMul": ("y = MatMul(x, m)", X, None, "m"),
}


@pytest.mark.parametrize("case", FIRST)
def test_output_channels_stand_first(case):
    text, head, axis, name = FIRST[case]
    made = net(text, head)
    before = dict(made.arrays)
    weight, found = stored_weights(made, made.nodes[0])
    assert (found, made.nodes[0].input[1]) == (axis, name)
    if name == "g_t":
        assert weight.tolist() == before["g"].T.tolist()
        assert made.arrays["g_t"].tolist() == weight.tolist()
        kept = {key: value for key, value in attributes(made.nodes[0]).items() if key != "transB"}
        assert attributes(made.nodes[0])["transB"] == 1
        assert kept == ({"beta": 1.0} if "beta" in text else {"alpha": 1.0})
        assert len(made.nodes[0].attribute) == 2
    else:
        assert weight is before[name]


GRIDS = {
    "x": QuantParams(0.05, 3, "u8"),
    "a": QuantParams(0.1, 128, "u8"),
    "b": QuantParams(0.02, 0, "u8"),
    "y": QuantParams(0.2, 7, "u8"),
}


def emitted(text, form, limits=None, **options):
    made = net(text)
    plan = place(made, form)
    weights = insert_qdq(made, plan, GRIDS, form, limits or {}, **options)
    return made, plan, weights


def test_pairs_stand_where_the_plan_has_them():
    made, _, weights = emitted("a = Conv(x, w, b4) b = Relu(a) y = Conv(b, v)", X86)
    nodes = by_output(made)
    assert list(nodes["a"].input) == ["x_dq", "Conv0/weight_dq", "b4"]
    assert list(nodes["b"].input) == ["a_dq"]
    assert list(nodes["y"].input)[:2] == ["b_dq", "Conv2/weight_dq"]
    assert [node.name for node in made.nodes if node.op_type == "QuantizeLinear"] == ["x/Q", "a/Q", "b/Q"]
    assert nodes["x_dq"].name == "x/DQ"
    for name, at in [pair for pair in GRIDS.items() if pair[0] != "y"]:
        assert (made.arrays[f"{name}_scale"], made.arrays[f"{name}_zero"]) == (f32(at.scale), at.zero)
        assert (made.arrays[f"{name}_scale"].dtype, made.arrays[f"{name}_zero"].dtype) == (f32, np.uint8)
        assert made.arrays[f"{name}_scale"].shape == ()
    assert set(weights) == {"Conv0", "Conv2"}
    assert attributes(nodes["Conv0/weight_dq"]) == {"axis": 0}
    assert nodes["Conv0/weight_dq"].name == "Conv0/weight/DQ"
    assert "w" not in made.arrays
    onnx.checker.check_model(made.model)
    assert [node.output[0] for node in made.nodes] == [node.output[0] for node in made.graph.node]


def test_integers_times_scales_are_the_weights():
    made, _, weights = emitted("a = Conv(x, w, b4) b = Relu(a) y = Conv(b, v)", TRT, per_tensor=True)
    for name in ("Conv0", "Conv2"):
        integers, scale = made.arrays[f"{name}/weight_q"], made.arrays[f"{name}/weight_scale"]
        assert (integers.dtype, scale.shape, made.arrays[f"{name}/weight_zero"].dtype) == (np.int8, (), np.int8)
        assert np.abs(integers).max() == 127
        assert integers * scale == pytest.approx(weights[name], abs=0.51 * float(scale))
        assert "axis" not in attributes(by_output(made)[f"{name}/weight_dq"])
    assert "y_scale" not in made.arrays
    made, _, _ = emitted("a = Conv(x, w, b4) b = Relu(a) y = Conv(b, v)", TRT, {"Conv0": np.array([60, 127, 127, 30])})
    assert np.abs(made.arrays["Conv0/weight_q"]).max((1, 2, 3)).tolist() == [60, 127, 127, 30]
    assert np.abs(made.arrays["Conv2/weight_q"]).max((1, 2, 3)).tolist() == [127] * 4


@pytest.mark.parametrize("form", [TRT, X86])
def test_the_scale_of_a_single_output_channel_is_a_scalar(form):
    """TensorRT runs a convolution with weight scales of shape (1,) in float."""
    single = {"v": np.random.default_rng(1).normal(0, 1, (1, 4, 1, 1)).astype(f32), "b1": np.ones(1, f32)}
    made = net("a = Conv(x, w, b4) b = Relu(a) y = Conv(b, v, b1)", **single)
    done = converted(made.model, form).model
    packed = ProtoGraph(done)
    weight = next(node for node in packed.nodes if node.name == "Conv2/weight/DQ")
    integers, scale, zero = (packed.arrays[name] for name in weight.input)
    assert (scale.shape, zero.shape, attributes(weight)) == ((), (), {})
    assert integers * scale == pytest.approx(single["v"], abs=2 * float(scale))
    assert sqnr_db(value_of(made.model, "y"), value_of(done, "y")) > 25


def test_a_large_bias_raises_the_scale_of_its_weights():
    bias = np.array([0, 0, 1e7, 0], f32)
    made = net("a = Conv(x, w, b4) b = Relu(a) y = Conv(b, v)", b4=bias)
    insert_qdq(made, place(made, X86), GRIDS, X86, {})
    scale = made.arrays["Conv0/weight_scale"]
    assert scale[2] == pytest.approx(1e7 / 0.05 / 2**30)
    assert scale[2] > 3 * scale[[0, 1, 3]].max()


def test_only_who_is_in_the_plan_reads_the_quantised_value():
    made, _, _ = emitted("a = Conv(x, w) b = Sin(x) y = Add(a, b)", TRT)
    nodes = by_output(made)
    assert nodes["a"].input[0] == "x_dq"
    assert nodes["b"].input[0] == "x"
    made = net("a = Conv(x, w) b = Sin(x) y = Add(b, b)")
    plan = place(made, TRT)
    plan.quantized_reads = {"x": plan.quantized_reads["x"], "b": set()}
    insert_qdq(made, plan, GRIDS, TRT, {})
    assert "b_q" not in by_output(made)
    assert "b_scale" not in made.arrays


def test_both_places_of_a_reader_are_changed():
    made = net("a = Conv(x, w) b = Add(a, a) y = Sin(b)")
    plan = place(made, X86)
    insert_qdq(made, plan, GRIDS, X86, {})
    assert list(by_output(made)["b"].input) == ["a_dq", "a_dq"]


def test_integer_biases_are_multiples_of_both_scales():
    bias = np.array([0.1, -0.3, 1e9, -1e9], f32)
    made = net("a = Conv(x, w, b4) b = Relu(a) c = Conv(b, v) y = Conv(c, w)", b4=bias)
    made.nodes[3].input.append("")
    plan = place(made, X86)
    grids = GRIDS | {"c": QuantParams(0.3, 0, "u8")}
    insert_qdq(made, plan, grids, find_target("trt"), {})
    integer_biases(made, plan)
    product = f32(0.05).astype(np.float64) * made.arrays["Conv0/weight_scale"]
    integers = made.arrays["Conv0/bias_q"]
    assert integers.dtype == np.int32
    assert integers.tolist() == np.clip(np.rint(bias / product), 1 - 2.0**31, 2.0**31 - 1).tolist()
    assert integers.tolist()[2:] == [2147483647, -2147483647]
    assert made.arrays["Conv0/bias_scale"] == pytest.approx(product, rel=1e-6)
    assert made.arrays["Conv0/bias_zero"].tolist() == [0] * 4
    nodes = by_output(made)
    assert list(nodes["a"].input)[2] == "Conv0/bias_dq"
    assert attributes(nodes["Conv0/bias_dq"]) == {"axis": 0}
    assert "b4" not in made.arrays
    assert len(nodes["c"].input) == 2
    assert nodes["y"].input[2] == ""
    order = [node.output[0] for node in made.nodes]
    assert order.index("Conv0/bias_dq") < order.index("a")


def test_a_bias_with_one_scale_is_spread():
    made = net("a = Conv(x, w, b4) y = Sin(a)")
    plan = place(made, X86)
    insert_qdq(made, plan, GRIDS, X86, {}, per_tensor=True)
    integer_biases(made, plan)
    assert made.arrays["Conv0/bias_scale"].shape == (4,)
    assert np.ptp(made.arrays["Conv0/bias_scale"]) == 0


def seen(low, high):
    return Stats(low, high, np.full(4, low), np.full(4, high))


def test_tensors_with_one_scale_have_the_widest_range():
    plan = QuantPlan(shared_scale={"b": "a", "c": "b"})
    made = _joined(plan, {"a": (0.5, 1.0), "b": (-1.0, 0.2), "c": (0.0, 3.0), "d": (1.0, 2.0), "e": (-3.0, -2.0)})
    assert made == {"a": (-1, 3), "d": (0, 2), "e": (-3, 0)}


def test_grids_cover_what_was_seen_and_no_scale_is_too_small():
    text = "a = Conv(x, w) b = Conv(x, v) c = Concat<axis=1>(a, b) y = Conv(c, wide)"
    stats = {"x": seen(-1, 2), "a": seen(-1, 1), "b": seen(-2, 1), "c": seen(-2, 1)}
    for high, shared in ((1, True), (9, False)):
        plan = place(net(text, wide=(4, 8, 1, 1)), X86)
        stats["b"] = seen(-2, high)
        made = grids_of(plan, X86, stats, QuantSettings())
        assert made["x"] == quant_params(-1, 2, "u8")
        assert made["a"] == (quant_params(-2, 1, "u8") if shared else quant_params(-1, 1, "u8"))
        assert (made["a"] == made["b"]) == shared
        assert "y" not in made
    plan = place(net("a = Conv(x, w) y = Sin(a)"), TRT)
    assert 1 <= grids_of(plan, TRT, {"x": seen(-1e-9, 1e-9)}, QuantSettings())["x"].scale / 2.0**-14 < 2.02
    assert grids_of(plan, TRT, {"x": seen(-1, 1), "other": seen(0, 1)}, QuantSettings()) == {
        "x": quant_params(-1, 1, TRT.activation_dtype)
    }


@pytest.mark.parametrize(
    ("method", "refined", "first"),
    [("auto", True, "min-max"), ("auto", False, "auto"), ("mse", True, "mse"), ("mse", False, "mse")],
)
def test_auto_begins_with_min_max_where_it_is_refined(method, refined, first):
    assert _method(QuantSettings(method=method, refine=refined)) == first


def counted(values):
    stats = Stats()
    stats.add("t", values)
    stats.count_values(values)
    return stats


def test_each_method_is_an_alternative_for_a_group():
    draw = np.random.default_rng(0)
    stats = {
        "x": counted(draw.normal(0, 1, (4, 4, 9, 9))),
        "a": counted(draw.normal(0, 3, (4, 4, 9, 9))),
        "b": seen(-9, 9),
    }
    plan = place(net("a = Conv(x, w) b = MaxPool<kernel_shape=[1,1]>(a) y = Sin(b)"), X86)
    assert _alternatives(plan, X86, stats, QuantSettings(method="mse")) == {}
    found = _alternatives(plan, X86, stats, QuantSettings(method="auto"))
    assert set(found) == {"x", "a"}
    assert [len(each) for each in found.values()] == [len(METHODS)] * 2
    assert found["x"][0] == (stats["x"].low, stats["x"].high)
    assert found["x"][1] == stats["x"].average
    assert all(ends == (-9, max(9, stats["a"].high)) or ends[0] < -9 for ends in found["a"])


def test_the_lowest_bound_of_a_group_is_its_ceiling():
    plan = QuantPlan(shared_scale={"b": "a"})
    folded = {"one": ("a", 6.0), "two": ("b", 3.0), "three": ("c", np.inf), "four": ("a", 4.0)}
    assert _ceilings(plan, folded) == {"a": 3.0, "c": np.inf}


def test_only_layers_that_could_saturate_are_limited():
    text = ("a = Conv(x, ones) b = Conv(a, depth) p = GlobalAveragePool(b) f = Flatten(p) c = Gemm(f, g) r = Relu(c)"
            " y = MatMul(r, mm)")  # fmt: skip
    depth = text.replace("Conv(a, depth)", "Conv<group=4>(a, depth)")
    made = net(depth, ones=np.ones((4, 4, 1, 1), f32), depth=np.ones((4, 1, 3, 3), f32), g=np.ones((4, 5), f32),
               mm=np.array([[1, 0.01]] * 5, f32))  # fmt: skip
    plan = place(made, X86)
    names = [node.input[0] for node in plan.layers]
    stats = {name: seen(0, 2.0) for name in names}
    stats["r"] = Stats(0, 2.0, np.zeros(5), np.full(5, 2.0))
    grids = {name: quant_params(0, 2.0, "u8") for name in names}
    found = _limits(made, plan, grids, stats)
    assert {name: np.shape(limit) for name, limit in found.items()} == {"Conv0": (4,), "Gemm4": (5,), "MatMul6": ()}
    expected = largest_integers(np.ones((4, 4, 1, 1)), 1, raw_peaks(np.full(4, 2.0), grids["x"].scale, 0))
    assert found["Conv0"].tolist() == expected.tolist() == [63] * 4
    assert found["Gemm4"].tolist() == [63] * 5
    assert found["MatMul6"] == 63
    turned = net("p = GlobalAveragePool(x) f = Flatten(p) c = Gemm<transB=1>(f, gt) y = Sin(c)",
                 gt=np.array([[1, 1, 1, 1], [1, 0, 1, 0]], f32))  # fmt: skip
    plan = place(turned, X86)
    stats = {"f": Stats(0, 2.0, np.zeros(4), np.full(4, 2.0))}
    assert _limits(turned, plan, {"f": quant_params(0, 2.0, "u8")}, stats)["Gemm2"].tolist() == [63, 127]


def test_a_graph_with_nothing_to_quantise_says_why():
    made = model(f"{X} => (float y) {{ q = Sin(w) y = Conv(x, q) }}", W)
    samples = Samples([np.zeros((8, 4, 6, 6), f32)], (None, 4, 6, 6))
    with pytest.raises(ModelError) as caught:
        pipeline.convert(made, X86, samples, QuantSettings.quick())
    assert caught.value.got == "Conv1: its weights are computed, not constant"
    made = model(f"{X} => (float y) {{ y = Sin(x) }}")
    with pytest.raises(ModelError) as caught:
        pipeline.convert(made, X86, samples, QuantSettings.quick())
    assert caught.value.got == "no Conv, Gemm or MatMul"
    many = "q = Sin(w) a = Conv(x, q) b = Conv(a, q) c = Conv(b, q) y = Conv(c, q)"
    with pytest.raises(ModelError) as caught:
        pipeline.convert(model(f"{X} => (float y) {{ {many} }}", W), X86, samples, QuantSettings.quick())
    assert caught.value.got.count("computed") == 3


IMAGES = np.random.default_rng(5).normal(0.3, 1, (24, 4, 6, 6)).astype(f32)
LAYERS = (
    "a = Conv(x, w, b4) b = Clip(a, z, s) c = Conv<pads=[1,1,1,1], group=2>(b, o) d = Relu(c) e = Conv(d, far)"
    " p = GlobalAveragePool(e) f = Flatten(p) y = Gemm(f, g)"
)


def coarse():
    """A network with a weight far out in each layer, so that all others are rounded badly."""
    draw, weights = np.random.default_rng(5), dict(W)
    for name, shape in (("w", (4, 4, 1, 1)), ("o", (4, 2, 3, 3)), ("far", (4, 4, 1, 1))):
        weights[name] = draw.normal(0, 1, shape).astype(f32)
        weights[name].reshape(len(weights[name]), -1)[:, 0] *= 30
    return model(f"{X} => (float y) {{ {LAYERS} }}", weights)


def converted(made, form, batch=None, **options):
    settings = QuantSettings(**({"equalize": None, "noise": 0.0, "cover": 0.0} | options))
    return pipeline.convert(made, form, Samples([IMAGES], (batch, 4, 6, 6)), settings)


def value_of(made, name):
    return run(with_outputs(made, [name]), IMAGES)


@pytest.mark.parametrize("target", ["trt", "openvino"])
@pytest.mark.parametrize("reconstruct", [True, False])
def test_after_bias_correction_every_layer_has_the_mean_of_the_float_one(target, reconstruct, monkeypatch):
    """On the same images; the biases of these two forms stay float, so that it is exact but for rounding.

    Where no share is left to chance, and what an activation clips counts too (`test_bias_correction` has these).
    """
    monkeypatch.setattr(reconstruction, "CHANCE", 0.0)
    monkeypatch.setattr(reconstruction, "linear_part", lambda net, tensor: (-np.inf, np.inf))
    made = coarse()
    wide = converted(made, find_target(target), refine=False).model
    mended = converted(made, find_target(target), reconstruct=reconstruct).model
    for moved in (wide, mended):
        restore_zero_points(ProtoGraph(moved))
    for node in [node for node in made.graph.node if node.op_type in ("Conv", "Gemm")]:
        name = next(other for other in mended.graph.node if other.name == node.name).output[0]
        before = next(other for other in wide.graph.node if other.name == node.name).output[0]
        axes = (0, 2, 3) if node.op_type == "Conv" else (0,)
        exact = value_of(made, node.output[0]).mean(axes)
        worst = np.abs(value_of(wide, before).mean(axes) - exact).max()
        assert np.abs(value_of(mended, name).mean(axes) - exact).max() < 1e-2 * worst + 1e-5
        assert worst > 1e-3


def test_fitting_and_rounding_make_less_noise_in_each_layer():
    made = coarse()
    reference = value_of(made, "y")
    noise = [sqnr_db(reference, value_of(converted(made, TRT, **options).model, "y"))
             for options in ({"refine": False}, {"reconstruct": False}, {})]  # fmt: skip
    assert noise[0] < noise[1] < noise[2]
    found = converted(made, TRT)
    assert set(found.fitted) == {"Conv0", "Conv2", "Conv4", "Gemm7"}
    assert all(0 < left <= 1 for left in found.fitted.values())
    assert {"x", "b", "d", "f"} == set(found.noise)
    assert converted(made, TRT, reconstruct=False).fitted == {}
    assert converted(made, TRT, refine=False).noise == {}


def test_what_is_said_of_a_tensor_is_the_noise_of_its_own_grid():
    found = converted(coarse(), TRT)
    at = found.grids["x"]
    assert found.noise["x"] == pytest.approx(sqnr_db(IMAGES, at.rounded(IMAGES)), abs=0.1)
    net = ProtoGraph(found.model)
    for name, at in found.grids.items():
        assert net.arrays[f"{name}_scale"] == f32(at.scale)


@pytest.mark.parametrize("batch", [None, 1, 8])
def test_a_fixed_batch_is_walked_in_pieces(batch):
    made = coarse()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch or 0
    if batch is None:
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    free = converted(coarse(), X86)
    found = converted(made, X86, batch)
    assert found.grids.keys() == free.grids.keys()
    for name, at in found.grids.items():
        assert at.scale == pytest.approx(free.grids[name].scale, rel=0.2)


def test_limited_layers_are_told_and_hold_to_it():
    found = converted(coarse(), X86)
    net = ProtoGraph(found.model)
    for name, limit in found.limits.items():
        integers = net.arrays[f"{name}/weight_q"]
        assert (np.abs(integers.reshape(len(integers), -1)).max(1) <= np.maximum(limit, 1)).all()
    assert converted(coarse(), ARM).limits == {}


class Setup:
    """A refiner over one convolution, and the values it sees."""

    def __init__(self, form=X86, ceilings=None, ranges=None, bends=None, scale=0.02, value=None):
        self.net = net("a = Conv(x, w, b4) y = Sin(a)")
        plan = place(self.net, form)
        plan.quantized_reads = {"x": plan.quantized_reads["x"]}
        self.grids = {"x": QuantParams(scale, 100 if form is X86 else 0, form.activation_dtype)}
        insert_qdq(self.net, plan, self.grids, form, {})
        source = reconstruction.FloatReference(self.net, {}, {}, {}, ranges or {}, bends or {})
        self.refiner = reconstruction.LayerReconstruction(
            self.net, plan, self.grids, ceilings or {}, source, form, QuantSettings(reconstruct=False)
        )
        self.value = IMAGES if value is None else value
        self.refiner.run([self.value])


def widths(at, kind, low=-np.inf, high=np.inf):
    return [quant_params(max(at.low * width, low), min(at.high * width, high), kind) for width in reconstruction.WIDTHS]


def least(tried, value, shape=lambda x: x):
    return min(tried, key=lambda at: np.square(shape(at.rounded(value)) - shape(value)).mean())


def test_a_grid_is_tried_at_several_widths():
    made = Setup()
    start = QuantParams(0.02, 100, "u8")
    best = least(widths(start, "u8"), IMAGES.astype(np.float64))
    assert made.refiner.grids["x"] == best
    assert made.net.arrays["x_scale"] == f32(best.scale)
    assert made.net.arrays["x_zero"] == best.zero
    assert made.refiner.sqnr_db["x"] == pytest.approx(sqnr_db(IMAGES, best.rounded(IMAGES.astype(np.float64))))


def test_the_best_of_the_methods_is_where_the_widths_begin():
    ranges = {"x": [(-9.0, 9.0), (-3.1, 3.6), (-0.5, 0.5)]}
    made = Setup(ranges=ranges)
    tried = [QuantParams(0.02, 100, "u8"), *(quant_params(low, high, "u8") for low, high in ranges["x"])]
    value = IMAGES.astype(np.float64)
    assert made.refiner.grids["x"] == least(widths(least(tried, value), "u8"), value) != tried[0]


def test_what_a_folded_clip_cuts_off_is_no_error():
    made = Setup(ceilings={"x": 1.5}, ranges={"x": [(0.0, 4.0)]})
    value = IMAGES.astype(np.float64).clip(0, 1.5)
    start = least([QuantParams(0.02, 100, "u8"), quant_params(0, 1.5, "u8")], value)
    best = least(widths(start, "u8", high=1.5), value)
    assert made.refiner.grids["x"] == best
    assert best.high <= 1.5 * (1 + 1e-6)
    assert made.refiner.sqnr_db["x"] == pytest.approx(sqnr_db(value, best.rounded(value)))


def test_no_scale_gets_smaller_than_the_form_allows():
    made = Setup(TRT, scale=2.0**-14, value=IMAGES * f32(1e-9))
    assert 1 <= made.refiner.grids["x"].scale / 2.0**-14 < 2.02


def test_a_large_tensor_is_sampled_in_odd_steps(monkeypatch):
    for most, step in ((1 << 16, 1), (3456, 1), (3455, 1), (1728, 3), (1151, 3), (700, 5)):
        monkeypatch.setattr(reconstruction, "VALUES", most)
        made = Setup(value=IMAGES)
        value = IMAGES.reshape(-1)[::step].astype(np.float64)
        assert IMAGES.size == 3456
        best = least(widths(QuantParams(0.02, 100, "u8"), "u8"), value)
        assert made.refiner.grids["x"] == best
        assert made.refiner.sqnr_db["x"] == pytest.approx(sqnr_db(value, best.rounded(value)))


def test_behind_a_bend_only_what_the_function_tells_apart_counts():
    from edgesmith.optimize.quantize.activation_clipping import SaturatingActivation, silu

    gain = np.array([1, 0.5, 2, 1], f32)
    bend = SaturatingActivation(silu, ((-2.0, np.inf), (-1.0, 2.5)), gain)
    made = Setup(bends={"x": bend})
    value = IMAGES.reshape(-1).astype(np.float64)
    by = np.repeat(np.tile(gain.astype(np.float64), 24), 36)

    def shape(x):
        return silu(x / by)

    tried = [cut for at in widths(QuantParams(0.02, 100, "u8"), "u8") for cut in bend.tried(at)]
    best = least(tried, value, shape)
    assert made.refiner.grids["x"] == best
    assert made.refiner.sqnr_db["x"] == pytest.approx(sqnr_db(shape(value), shape(best.rounded(value))))


def test_tensors_with_one_scale_are_chosen_once_by_the_first():
    made = net("a = Conv(x, w) b = MaxPool<kernel_shape=[2,2]>(a) y = Conv(b, v)")
    plan = place(made, X86)
    grids = {name: QuantParams(0.05, 128, "u8") for name in ("x", "a", "b", "y")}
    insert_qdq(made, plan, grids, X86, {})
    assert plan.shared_scale == {"b": "a"}
    source = reconstruction.FloatReference(made, {}, {}, {}, {}, {})
    refiner = reconstruction.LayerReconstruction(made, plan, grids, {}, source, X86, QuantSettings(reconstruct=False))
    refiner.run([IMAGES])
    assert grids["a"] == grids["b"] != QuantParams(0.05, 128, "u8")
    assert set(refiner.sqnr_db) == {"x", "a"}
    for name in "ab":
        assert made.arrays[f"{name}_scale"] == f32(grids["a"].scale)


def test_products_stand_only_where_they_are_needed(monkeypatch):
    """ort-x86 converts again with gains where less than NEED_DB is kept, and takes what keeps more."""
    calls = []
    quality = {}

    def kept(model_, made, batches):
        calls.append(sum(len(batch) for batch in batches))
        return quality[made.plan]

    first, second = (
        pipeline.Converted(None, "first", {}, (), {}, {}),
        pipeline.Converted(None, "second", {}, (), {}, {}),
    )
    monkeypatch.setattr(pipeline, "_kept", kept)
    monkeypatch.setattr(pipeline._Conversion, "converted", lambda self, _, gains: ((second if gains else first), True))
    samples = Samples([np.concatenate([IMAGES, IMAGES])], (None, 4, 6, 6))
    for one, two, best, times in (
        (30.0, 99, first, 1),
        (29.9, 30, second, 2),
        (29.9, 29.9, first, 2),
        (20, 10, first, 2),
    ):
        quality.update(first=one, second=two)
        calls.clear()
        assert pipeline.convert(coarse(), X86, samples, QuantSettings()) is best
        assert calls == [32] * times
    calls.clear()
    assert pipeline.convert(coarse(), TRT, samples, QuantSettings()) is second
    assert pipeline.convert(coarse(), X86, samples, QuantSettings(equalize=None)) is first
    assert calls == []
    quality.update(first=40.0)
    calls.clear()
    for batch, count in ((5, 30), (40, 40)):
        fixed = Samples([np.concatenate([IMAGES, IMAGES])], (batch, 4, 6, 6))
        pipeline.convert(coarse(), X86, fixed, QuantSettings())
        assert calls.pop() == count


def test_a_clip_that_must_stay_has_a_grid_before_it():
    """Joined with what reaches 9 its range does not end at 6, so it is not a range and its input is quantised."""
    text = "a = Conv(x, w) b = Clip(a, z, s) c = Conv(x, v) d = Relu(c) e = Concat<axis=1>(b, d) y = Conv(e, wide)"
    weights = W | {"w": 4 * np.eye(4, dtype=f32).reshape(4, 4, 1, 1), "v": np.eye(4, dtype=f32).reshape(4, 4, 1, 1)}
    weights["v"] *= f32(9 / IMAGES.max())
    made = model(f"{X} => (float y) {{ {text} }}", weights | {"wide": (2, 8, 1, 1)})
    found = converted(made, X86, refine=False)
    assert [node.op_type for node in found.model.graph.node if node.op_type in ("Clip", "Relu")] == ["Clip"]
    assert found.folded == ("Relu3",)
    assert found.grids["a"] == quant_params(4 * float(IMAGES.min()), 4 * float(IMAGES.max()), "u8")
    assert found.grids["b"] == found.grids["d"] == found.grids["e"]
    assert found.grids["e"].high == pytest.approx(9, rel=1e-3)
    reference = run(made, IMAGES)
    assert sqnr_db(reference, run(found.model, IMAGES)) > 25
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in found.model.graph.initializer}
    assert stored["a_scale"] == f32(found.grids["a"].scale)


@pytest.mark.parametrize(("batch", "images", "count"), [(None, 8, 8), (None, 19, 16), (4, 9, 8), (5, 24, 20)])
def test_as_many_images_are_walked_as_the_memory_holds(batch, images, count, monkeypatch):
    met = []
    monkeypatch.setattr(pipeline, "images_that_fit", lambda sizes: met.append(sorted(sizes)) or images)
    monkeypatch.setattr(reconstruction.LayerReconstruction, "run", lambda self, given: met.append(sum(map(len, given))))
    made = coarse()
    made.graph.input[0].type.tensor_type.shape.dim[0].dim_value = batch or 0
    if batch is None:
        made.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"
    converted(made, TRT, batch)
    assert met == [[5, 144, 144, 144, 144], count]
