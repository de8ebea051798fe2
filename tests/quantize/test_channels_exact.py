"""Scaling channels, undoing it, and where activation functions are flat: each formula by itself."""

import warnings
from collections import Counter

import numpy as np
import pytest

from edgesmith.optimize.calibration.statistics import Stats, collect
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize.activation_clipping import (
    CUTS,
    SaturatingActivation,
    saturating_activations,
    sigmoid,
    silu,
)
from edgesmith.optimize.quantize.equalization import explicit_scales
from edgesmith.optimize.quantize.equalization.channel_groups import ChannelGroup, channel_groups
from edgesmith.optimize.quantize.equalization.cross_layer import (
    LEAST,
    MARGIN,
    _centres,
    _scales,
    _shiftable,
    equalise,
    norms,
    own_weights,
    read_scaled,
    write_scaled,
)
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.quant_params import quant_params
from edgesmith.optimize.quantize.targets import find_target
from support.graphs import model
from support.quant_graphs import run

f32, i64 = np.float32, np.int64
INF = np.inf
X = "(float[N,4,6,6] x)"
IMAGES = np.random.default_rng(7).normal(0, 1, (8, 4, 6, 6)).astype(f32)
W = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "u": (4, 4, 3, 3), "d": (4, 1, 3, 3), "b4": (4,), "k": (4, 1, 1),
     "z": f32(0), "s": f32(6), "g": (5, 4), "b5": (5,)}  # fmt: skip


def net(text, head=X, **weights):
    return ProtoGraph(model(f"{head} => (float y) {{ {text} }}", W | weights))


def test_sigmoid_and_its_product_are_those_of_their_formulas_everywhere():
    x = np.array([-800.0, -8.0, -1.0, 0.0, 0.5, 8.0, 800.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = sigmoid(x), silu(x)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x))
    assert made[0] == pytest.approx(expected, abs=1e-15)
    assert made[1] == pytest.approx(x * expected, abs=1e-12)


def hard(x, alpha=0.2, beta=0.5):
    return np.clip(alpha * x + beta, 0, 1)


SWISH = "s1 = HardSigmoid<alpha=0.25, beta=0.75>(a) y = Mul(a, s1)"
# what reads a -> the function and its limits
BENDS = {
    "HardSwish": ("y = HardSwish(a)", lambda x: x * np.clip(x / 6 + 0.5, 0, 1), [(-3, INF)]),
    "Sigmoid": ("y = Sigmoid(a)", sigmoid, [(-cut, cut) for cut in CUTS]),
    "SiLU": ("b = Sigmoid(a) y = Mul(a, b)", silu, [(-cut, INF) for cut in CUTS]),
    "SiLU, turned": ("b = Sigmoid(a) y = Mul(b, a)", silu, [(-cut, INF) for cut in CUTS]),
    "HardSigmoid": ("y = HardSigmoid(a)", hard, [(-2.5, 2.5)]),
    "HardSigmoid of its own": (
        "y = HardSigmoid<alpha=0.25, beta=0.75>(a)", lambda x: hard(x, 0.25, 0.75), [(-3, 1)],
    ),
    "HardSigmoid and a product": (SWISH, lambda x: x * hard(x, 0.25, 0.75), [(-3, INF)]),
    "falling": ("y = HardSigmoid<alpha=-0.25>(a)", None, None),
    "flat": ("y = HardSigmoid<alpha=0.0>(a)", None, None),
    "Relu": ("y = Relu(a)", None, None),
    "HardSwish and Relu": ("b = HardSwish(a) c = Relu(a) y = Add(b, c)", None, None),
    "two kinds of gates": ("b = Sigmoid(a) c = HardSigmoid(a) y = Add(b, c)", None, None),
    "two gates": ("b = Sigmoid(a) c = Sigmoid(a) y = Add(b, c)", sigmoid, [(-cut, cut) for cut in CUTS]),
    "two gates and a product": ("b = Sigmoid(a) c = Sigmoid(a) d = Mul(a, b) y = Add(c, d)", None, None),
    "a product with something else": ("b = Sigmoid(a) c = Mul(a, x) y = Add(b, c)", None, None),
    "a sum with its gate": ("b = Sigmoid(a) y = Add(a, b)", None, None),
    "a gate that others read": ("b = Sigmoid(a) c = Mul(a, b) y = Add(b, c)", None, None),
    "a gate alone that others read": ("b = Sigmoid(a) c = Relu(b) y = Add(b, c)", sigmoid, [(-c, c) for c in CUTS]),
}  # fmt: skip


@pytest.mark.parametrize("case", BENDS)
def test_which_function_reads_a_tensor_and_where_it_is_flat(case):
    text, function, limits = BENDS[case]
    made = net(f"a = Conv(x, w) {text.replace('y =', 'f =')} y = Conv(f, v)")
    found = saturating_activations(made, place(made, find_target("ort-x86"))).get("a")
    if function is None:
        assert found is None
        return
    assert found.limits == tuple(limits)
    assert found.gain is None
    at = np.array([-9.0, -3.0, -2.6, -1.0, 0.0, 0.9, 2.6, 3.0, 9.0])
    assert found.function(at) == pytest.approx(function(at))


def test_a_tensor_with_one_scale_for_several_or_that_is_an_output_has_no_bend():
    made = net("a = Conv(x, w) f = HardSwish(a) y = Conv(f, v)")
    for change in (lambda plan: plan.join("o", "a"), lambda plan: plan.join("a", "o")):
        plan = place(made, find_target("ort-x86"))
        change(plan)
        assert "a" not in saturating_activations(made, plan)
    plan = place(made, find_target("ort-x86"))
    made.outputs.append("a")
    assert "a" not in saturating_activations(made, plan)


def test_a_bend_cuts_at_its_limits():
    bend = SaturatingActivation(silu, ((-8.0, 9.0), (-4.0, 5.0)))
    assert bend.cut(-20, 10) == (-8, 9)
    assert bend.cut(-2, 3) == (-2, 3)
    at = quant_params(-20, 10, "u8")
    assert bend.tried(at) == [quant_params(-8, 9, "u8"), quant_params(-4, 5, "u8")]
    at = quant_params(-1, 20, "s8")
    assert bend.tried(at) == [quant_params(at.low, 9, "s8"), quant_params(at.low, 5, "s8")]
    channels = np.array([0, 1, 1])
    assert bend.at(channels) is silu
    scaled = SaturatingActivation(silu, ((-8.0, 8.0),), np.array([2.0, 0.5], f32)).at(channels)
    assert scaled(np.array([2.0, 2.0, -1.0])) == pytest.approx(silu(np.array([1.0, 4.0, -2.0])))


def stats_of(low, high):
    low, high = np.array(low, np.float64), np.array(high, np.float64)
    return Stats(float(low.min()), float(high.max()), low, high)


def the_space(made, name):
    return next(space for space in channel_groups(made) if name in space.tensors)


SHIFTS = {
    "1x1": ("a = Conv(x, w) y = Conv(a, v)", True),
    "no padding": ("a = Conv(x, w) y = Conv(a, u)", True),
    "padding of nothing": ("a = Conv(x, w) y = Conv<pads=[0,0,0,0]>(a, u)", True),
    "padding": ("a = Conv(x, w) y = Conv<pads=[0,0,0,1]>(a, u)", False),
    "one of two pads": ("a = Conv(x, w) b = Conv(a, v) c = Conv<pads=[1,1,1,1]>(a, u) y = Concat<axis=1>(b, c)", False),
    "an addition": ("a = Conv(x, w) b = Conv(a, v) c = Add(a, b) y = Conv(c, w)", True),
    "a Relu between": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", False),
    "a mean between": ("a = Conv(x, w) p = GlobalAveragePool(a) y = Conv(p, v)", False),
    "Identity": ("a = Conv(x, w) b = Identity(a) y = Conv(b, v)", True),
}


@pytest.mark.parametrize("case", SHIFTS)
def test_which_readers_see_a_shift_exactly(case):
    text, shifts = SHIFTS[case]
    made = net(text)
    assert _shiftable(made, the_space(made, "a")) is shifts


def test_middles_add_up():
    made = net(
        "a = Conv(x, w) i = Identity(a) b = Conv(i, v) c = Add(i, b) e = Conv(c, w) f = Add(c, e) y = Conv(f, v)"
    )
    seen = {"a": stats_of([-1, 0, 2, -4], [3, 0, 4, 0]), "b": stats_of([1] * 4, [2] * 4)}
    found = _centres(made, the_space(made, "a"), seen)
    a, b = np.array([1.0, 0, 3, -2]), np.full(4, 1.5)
    expected = {"a": a, "i": a, "b": b, "c": a + b, "e": 0 * a, "f": a + b}
    assert {name: middle.tolist() for name, middle in found.items()} == {
        name: middle.tolist() for name, middle in expected.items()
    }


def test_the_norm_of_a_channel_is_that_of_the_weights_that_read_it():
    draw = np.random.default_rng(0)
    made = net(
        "a = Conv(x, w) b = Conv<group=2>(a, o) c = Conv(a, u) p = GlobalAveragePool(a) f = Flatten(p)"
        " e = Gemm<transB=1>(f, g) y = Identity(b)",
        o=draw.normal(0, 1, (6, 2, 3, 3)).astype(f32),
    )
    space = the_space(made, "a")
    assert len(space.readers) == 3
    logs = []
    for name, groups in (("o", 2), ("u", 1), ("g", 1)):
        weight = made.arrays[name].astype(np.float64)
        weight = weight.reshape(*weight.shape[:2], -1)
        norm = np.zeros(4)
        for channel in range(4):
            width = weight.shape[1]
            outputs = len(weight) // groups
            rows = weight[channel // width * outputs : (channel // width + 1) * outputs, channel % width]
            norm[channel] = np.sqrt((rows**2).sum())
        logs.append(np.log(norm) - np.log(norm).mean())
    assert norms(made, space, 4) == pytest.approx(np.exp(np.mean(logs, axis=0)))


def test_a_channel_that_nothing_reads_is_in_the_middle_and_shifts_no_other():
    made = net("y = Conv(x, o)", o=np.array([1, 0, 4, 1], f32).reshape(1, 4, 1, 1))
    space = ChannelGroup(channels={"x": np.arange(4)}, readers=made.nodes[:1])
    logs = np.log([1, 4, 1])
    first, third, fourth = np.exp(logs - logs.mean())
    assert norms(made, space, 5) == pytest.approx([first, 1, third, fourth, 1])


def one_space(names=("a",), **options):
    channels = {name: np.arange(4) for name in names} | options.pop("channels", {})
    return ChannelGroup(tensors=set(channels), channels=channels, **options)


A = stats_of([-1, 0, -8, 0], [2, 4, 1, 1e-9])
# space, what was seen, offsets, strength -> factors
FACTORS = {
    "each fills the range": (one_space(), {"a": A}, {}, 1.0, [4, 2, 1, 8e9]),
    "none": (one_space(), {"a": A}, {}, 0.0, [1, 1, 1, 1]),
    "half": (one_space(), {"a": A}, {}, 0.5, [2, 2**0.5, 1, (8e9) ** 0.5]),
    "around a middle": (one_space(), {"a": A}, {"a": np.array([0.5, 2, -3.5, 0])}, 1.0, [3, 2.25, 1, 4.5e9]),
    "two tensors, each of its own size": (
        one_space(("a", "b")), {"a": A, "b": stats_of([0] * 4, [1, 4, 4, 4])}, {}, 1.0, [4, 1, 1, 1],
    ),
    "concatenated, the largest counts": (
        one_space(channels={"b": np.arange(4, 6)}, between={"Concat"}),
        {"a": A, "b": stats_of([0, -2], [4, 1])}, {}, 1.0, [4, 2, 1, 8e9, 2, 4],
    ),
    "not concatenated": (
        one_space(channels={"b": np.arange(4, 6)}), {"a": A, "b": stats_of([0, -2], [4, 1])}, {}, 1.0,
        [4, 2, 1, 8e9, 1, 2],
    ),
    "below a limit": (one_space(limit=8.8), {"a": A}, {}, 1.0, [4, 2, 1, 8e9]),
    "at a limit": (one_space(limit=6.6), {"a": stats_of([0] * 4, [1, 2, 4, 0.5])}, {}, 1.0, [4, 2, 1.5, 8]),
    "beyond a limit": (one_space(limit=3.3), {"a": stats_of([0] * 4, [1, 2, 4, 0.5])}, {}, 1.0, [3, 1.5, 1, 6]),
}  # fmt: skip


@pytest.mark.parametrize("case", FACTORS)
def test_the_factors_are_those_of_the_formula(case):
    space, seen, offsets, strength, expected = FACTORS[case]
    made = net("y = Conv(x, w)")
    names = [name for name in sorted(space.tensors) if name in seen]
    found = _scales(made, space, names, seen, offsets, strength)
    if "limit" in case:
        amplitude = np.maximum.reduce([np.maximum(-seen[n].lows(), seen[n].highs()) for n in names])
        peak = max(seen[n].high for n in names)
        free = amplitude.max() / np.maximum(amplitude, 1e-6 * amplitude.max())
        bound = space.limit / (MARGIN * peak * np.maximum(amplitude / amplitude.max(), LEAST))
        assert found == pytest.approx(np.maximum(np.minimum(free, bound), 1))
    else:
        quiet = np.minimum(np.array(expected, np.float64), 1e6**strength)
        assert found / found.min() == pytest.approx(quiet / quiet.min(), rel=1e-6)


@pytest.mark.parametrize("loud", [1.0, 0.01])
def test_the_loudest_channel_keeps_its_size(loud):
    made = net("y = Conv(x, w)")
    seen = stats_of(loud * A.lows(), loud * A.highs())
    for strength in (0.0, 0.3, 1.0):
        space = one_space(readers=made.nodes[:1])
        space.channels["x"] = np.arange(4)
        scale = _scales(made, space, ["a"], {"a": seen}, {}, strength)
        amplitude = np.array([2, 4, 8, 1e-9]) / 8
        norm = norms(made, space, 4)
        wanted = (np.maximum(amplitude, 1e-6) * norm) ** (1 - strength) / np.maximum(amplitude, 1e-6)
        assert scale == pytest.approx(wanted / (wanted * amplitude).max())


WRITTEN = (
    "a = Conv(x, w, b4) y = Identity(a)",
    "a = Conv(x, w) y = Identity(a)",
    "a = Conv<group=4>(x, d) y = Relu(a)",
)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_layer_writes_what_is_scaled_and_shifted(text):
    scale, offset = np.array([1, 2, 0.5, 4]), np.array([0.1, -1, 0, 3])
    for shift in (None, offset):
        made = net(text)
        before = run_tensor(made, "a")
        write_scaled(made, made.nodes[0], scale, shift)
        expected = (before - (0 if shift is None else shift.reshape(-1, 1, 1))) * scale.reshape(-1, 1, 1)
        assert run_tensor(made, "a") == pytest.approx(expected, abs=1e-4)
        assert {array.dtype for array in made.arrays.values()} <= {np.dtype(f32), np.dtype(i64)}


def run_tensor(made, name):
    from edgesmith.optimize.calibration.ort_runs import with_outputs

    return run(with_outputs(made.model, [name]), IMAGES)


READ = {
    "dense": "y = Conv(x, u, b4)",
    "without a bias": "y = Conv(x, w)",
    "groups": "y = Conv<group=2>(x, o, b4)",
    "depthwise": "y = Conv<group=4>(x, d)",
    "Gemm": "p = GlobalAveragePool(x) f = Flatten(p) y = Gemm<transB=1>(f, g, b5)",
}


@pytest.mark.parametrize("case", READ)
def test_a_layer_that_reads_what_is_scaled_answers_as_before(case):
    scale, offset = np.array([1, 2, 0.5, 4]), np.array([0.1, -1, 0, 3])
    for shift in (None, offset):
        made = net(READ[case], o=(4, 2, 3, 3))
        before = run_tensor(made, "y")
        read_scaled(made, made.nodes[-1], scale, shift)
        changed = (IMAGES - (0 if shift is None else shift.reshape(-1, 1, 1))) * scale.reshape(-1, 1, 1)
        assert run(made.model, changed.astype(f32)) == pytest.approx(before, abs=1e-4)


def test_layers_get_weights_and_biases_of_their_own():
    made = net("q = Sin(w) a = Conv(x, w, b4) b = Conv(a, w, b4) c = Conv(b, w) e = Conv(c, q) f = MatMul(e, m)"
               " y = Conv(f, v)", m=(6, 6))  # fmt: skip
    own_weights(made)
    given = {node.output[0]: list(node.input[1:]) for node in made.nodes if node.op_type in ("Conv", "MatMul")}
    assert given["e"] == ["q"]
    assert given["f"] == ["m"]
    own = [name for key in "abcy" for name in given[key]]
    assert max(Counter(own).values()) == 1
    assert given["a"] == ["w", "b4"]
    assert given["b"] == ["w_1", "b4_1"]
    assert len(own) == 8
    assert made.arrays["w_1"].tolist() == made.arrays["w"].tolist()
    assert all(made.readers[name] for name in own)
    before = {key: list(names) for key, names in given.items()}
    own_weights(made)
    assert before == {n.output[0]: list(n.input[1:]) for n in made.nodes if n.op_type in ("Conv", "MatMul")}


CHAIN = "a = Conv(x, w, b4) b = Relu(a) c = Conv(b, v) y = Sin(c)"


def test_a_space_without_statistics_or_layers_is_left_alone():
    made = net(CHAIN)
    assert equalise(made, {}) == {}
    made = net("a = Relu(x) y = Conv(a, v)")
    assert equalise(made, {"a": stats_of([0] * 4, [1, 2, 3, 4])}) == {}


def test_equal_channels_are_left_alone_and_others_are_told():
    made = net(CHAIN)
    before = made.arrays["w"].tolist()
    stats = {"b": stats_of([0] * 4, [2] * 4)}
    assert equalise(made, stats, strength=1.0) == {}
    assert made.arrays["w"].tolist() == before
    stats = {"b": stats_of([0] * 4, [1, 2, 4, 8])}
    assert equalise(made, stats, strength=1.0) == {"b": pytest.approx(8)}
    assert stats["b"].highs() == pytest.approx([8] * 4)
    assert made.arrays["w"] == pytest.approx(np.array(before) * np.array([8, 4, 2, 1]).reshape(4, 1, 1, 1), rel=1e-6)


@pytest.mark.parametrize("shift", [True, False])
def test_linear_tensors_are_centred_where_they_may_be(shift):
    made = net("a = Conv(x, w, b4) b = Conv(a, v) y = Sin(b)")
    reference = run_tensor(made, "b")
    stats = collect(made.model, ["a"], [IMAGES])
    done = equalise(made, stats, 1.0, shift)
    assert done
    fresh = collect(made.model, ["a"], [IMAGES])["a"]
    assert stats["a"].lows() == pytest.approx(fresh.lows(), abs=1e-4)
    assert stats["a"].highs() == pytest.approx(fresh.highs(), abs=1e-4)
    middles = fresh.lows() + fresh.highs()
    assert (np.abs(middles).max() < 1e-3) == shift
    assert run_tensor(made, "b") == pytest.approx(reference, abs=1e-3)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["symmetric", "u8"])
def test_factors_fill_one_with_the_loudest(kind, strength):
    low, high = np.array([-1.0, 0.5, -0.001, 0.0]), np.array([0.5, 4.0, -0.0005, 0.0])
    norm = np.array([1, 2, 0.5, 1])
    wide = explicit_scales.channel_ranges(np.minimum(low, 0), np.maximum(high, 0), norm, kind)
    wide = np.maximum(wide, wide.max() / 64)
    expected = (wide * norm) ** (1 - strength) / wide
    made = explicit_scales._factors(low, high, norm, strength, kind)
    assert made.dtype == f32
    assert made == pytest.approx(expected / (expected * wide).max(), rel=1e-6)
    assert (made * wide).max() == pytest.approx(1)


def test_spans_are_the_best_of_all_places_of_zero():
    low, high, weight = np.array([-1.0, 0.0, -3.0]), np.array([2.0, 5.0, 0.0]), np.array([1.0, 0.3, 2.0])
    tried = []
    for share in np.linspace(0, 1, 65):
        each = []
        for one, two in zip(low, high, strict=True):
            below = 0 if one == 0 else (np.inf if share == 0 else -one / share)
            above = 0 if two == 0 else (np.inf if share == 1 else two / (1 - share))
            each.append(max(below, above))
        total = sum((span * by) ** 2 for span, by in zip(each, weight, strict=True))
        tried.append((total, each))
    assert explicit_scales.channel_ranges(low, high, weight, "u8") == pytest.approx(min(tried)[1])
    assert explicit_scales.channel_ranges(low, high, weight, "symmetric").tolist() == [4, 10, 6]


EDGES = {
    "a function behind a layer": ("a = Conv(x, w) b = HardSwish(a) y = Conv(b, v)", {"ort-x86": "ab", "trt": "b"}),
    "a gate": (
        "a = Conv(x, w) s1 = Sigmoid(a) b = Mul(a, s1) c = Conv(b, v) y = Sin(c)",
        {"ort-x86": "ab", "trt": "b"},
    ),
    "a Relu is no such edge": ("a = Conv(x, w) b = Relu(a) y = Conv(b, v)", {"ort-x86": "", "trt": ""}),
    "one that a layer reads too": (
        "a = Conv(x, w) b = HardSwish(a) c = Conv(b, v) e = Conv(a, w) y = Concat<axis=1>(c, e)",
        {"ort-x86": "b", "trt": "b"},
    ),
    "a sine is no such operator": ("a = Conv(x, w) b = Sin(a) y = Conv(b, v)", {"ort-x86": "a", "trt": ""}),
    "an input": ("y = Conv(x, w)", {"ort-x86": "", "trt": ""}),
    "a mean of floats": (
        "a = Conv(x, w) b = HardSwish(a) p = GlobalAveragePool(b) y = Conv(p, v)", {"ort-x86": "ap", "trt": "p"},
    ),
    "computed weights": ("a = Conv(x, w) b = HardSwish(a) q = Sin(v) y = Conv(b, q)", {"ort-x86": "a", "trt": ""}),
}  # fmt: skip


@pytest.mark.parametrize("target", ["ort-x86", "trt"])
@pytest.mark.parametrize("case", EDGES)
def test_between_layers_and_operators_in_float(case, target):
    text, expected = EDGES[case]
    made, form = net(text), find_target(target)
    plan = place(made, form)
    stats = collect(made.model, sorted(plan.quantized_reads), [IMAGES])
    assert "".join(explicit_scales.scalable_tensors(made, plan, stats, form)) == expected[target]
    for name in expected[target]:
        assert name not in explicit_scales.scalable_tensors(
            made, plan, {k: v for k, v in stats.items() if k != name}, form
        )
        joined = place(made, form)
        joined.join("other", name)
        assert name not in explicit_scales.scalable_tensors(made, joined, stats, form)
        joined = place(made, form)
        joined.join(name, "other")
        assert name not in explicit_scales.scalable_tensors(made, joined, stats, form)
        one = stats | {name: stats_of([0], [1])}
        assert name not in explicit_scales.scalable_tensors(made, plan, one, form)
        outputs, made.outputs = made.outputs, [*made.outputs, name]
        assert name not in explicit_scales.scalable_tensors(made, plan, stats, form)
        made.outputs = outputs


def test_a_product_stands_behind_its_maker_and_only_some_read_it():
    made = net("a = Conv(x, w) b = HardSwish(a) c = Conv(b, v) e = Mul(b, b) y = Add(c, e)")
    value = explicit_scales._multiply(made, "b", np.array([1, 2, 3, 4.0]), [made.nodes[2]])
    assert value == "b_even"
    assert [node.name for node in made.nodes][:3] == ["Conv0", "HardSwish1", "b_even/gain"]
    assert [list(node.input) for node in made.nodes[2:5]] == [["b", "b_even_factor"], ["b_even", "v"], ["b", "b"]]
    assert made.arrays["b_even_factor"].shape == (4, 1, 1)
    assert made.arrays["b_even_factor"].dtype == f32
    assert explicit_scales._multiply(made, "b", np.ones(4), [made.nodes[4]]) == "b_even_1"
    assert [list(node.input) for node in made.nodes if node.output[0] == "e"] == [["b_even_1", "b_even_1"]]
    flat = net("p = GlobalAveragePool(x) f = Flatten(p) h = Sigmoid(f) y = Gemm<transB=1>(h, g)")
    explicit_scales._multiply(flat, "h", np.array([1, 2, 3, 4.0]), [flat.nodes[3]])
    assert flat.arrays["h_even_factor"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(("loud", "scaled"), [(1.24, False), (1.2501, True)])
def test_only_channels_that_differ_by_a_quarter_are_worth_a_product(loud, scaled):
    form = find_target("ort-x86")
    for name in "ab":
        made = net("a = Conv(x, w) b = HardSwish(a) y = Conv(b, v)", v=np.eye(4, dtype=f32).reshape(4, 4, 1, 1))
        plan = place(made, form)
        stats = {"a": stats_of([-1] * 4, [1] * 4), "b": stats_of([-1] * 4, [1] * 4)}
        stats[name] = stats_of([-loud, -1, -1, -1], [loud, 1, 1, 1])
        done = explicit_scales.insert_channel_scales(made, plan, stats, form, 1.0, saturating_activations(made, plan))
        assert done == ({name: pytest.approx(loud, rel=1e-4)} if scaled else {})


def test_a_bend_follows_its_tensor():
    made, form = net("a = Conv(x, w) b = HardSwish(a) y = Conv(b, v)"), find_target("ort-x86")
    plan = place(made, form)
    stats = {"a": stats_of([-9, -2, -1, -6], [1, 2, 8, 0.5])}
    bent = saturating_activations(made, plan)
    explicit_scales.insert_channel_scales(made, plan, stats, form, 0.5, bent)
    gain = bent["a"].gain
    low, high = np.maximum([-9, -2, -1, -6], -3) * gain, np.array([1, 2, 8, 0.5]) * gain
    assert bent["a"].limits == ((pytest.approx(low.min()), pytest.approx(high.max())),)
    assert stats["a"].lows() == pytest.approx(np.array([-9, -2, -1, -6]) * gain)
    (reader,) = made.readers["a"]
    assert (reader.op_type, plan.quantized_reads["a"]) == ("Mul", {id(reader)})
    assert made.arrays[reader.input[1]].reshape(-1) == pytest.approx(1 / gain)
