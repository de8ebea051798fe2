"""The pieces of the quantiser one by one: rounding, ranges, the graph's index, what is printed and what is drawn."""

import dataclasses
import itertools
import pickle
import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.cli import _noise_plot, _quantize_tables
from edgesmith.optimize.calibration.batching import with_free_batch
from edgesmith.optimize.calibration.data_checks import _looks_random
from edgesmith.optimize.calibration.histogram import Histogram
from edgesmith.optimize.calibration.inputs import input_layout
from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples, repeatable
from edgesmith.optimize.calibration.statistics import Stats, collect
from edgesmith.optimize.graph import union_find
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.equalization.channel_groups import _is_global_mean, _unite
from edgesmith.optimize.quantize.layer_queries import is_plain, layer_bias
from edgesmith.optimize.quantize.mixed_precision.latency_model import model_costs
from edgesmith.optimize.quantize.quant_params import quant_params
from edgesmith.optimize.quantize.range_estimators import choose
from edgesmith.optimize.quantize.weights.rounding import adaround, best_rounding, gptq, loss, nearest
from support.quant_graphs import Graph, batches, images, small_cnn


def problem(seed, outputs=40, inputs=5):
    """Weights over their scale and the second moments of inputs that hang together."""
    draw = np.random.default_rng(seed)
    reads = draw.standard_normal((200, inputs)) @ draw.standard_normal((inputs, inputs))
    return draw.uniform(-20, 20, (1, outputs, inputs)), (reads.T @ reads / 200)[None]


def least(ratio, gram):
    """The least loss of all ways to round each weight up or down, (G, m)."""
    ways = itertools.product((np.floor, np.ceil), repeat=ratio.shape[2])
    made = [np.stack([way(ratio[..., at]) for at, way in enumerate(ways_)], axis=2) for ways_ in ways]
    return np.min([loss(ratio, one, gram) for one in made], axis=0)


@pytest.mark.parametrize("seed", range(3))
def test_rounding_is_near_the_best_of_all_ways(seed):
    ratio, gram = problem(seed)
    plain, fed, learnt = (
        loss(ratio, one(ratio, gram), gram).sum() for one in (lambda r, _: nearest(r), gptq, adaround)
    )
    bound = least(ratio, gram).sum()
    assert bound <= fed <= 0.4 * bound + 0.6 * plain
    assert bound <= learnt <= 0.4 * bound + 0.6 * plain


def test_the_best_rounding_learns_only_where_it_is_told():
    ratio, gram = problem(0)
    kinds = [nearest(ratio), gptq(ratio, gram), adaround(ratio, gram)]
    losses = np.stack([loss(ratio, one, gram) for one in kinds])
    assert losses.min(axis=0).sum() < losses[:2].min(axis=0).sum()
    assert loss(ratio, best_rounding(ratio, gram), gram) == pytest.approx(losses[:2].min(axis=0))
    assert loss(ratio, best_rounding(ratio, gram, learn=True), gram) == pytest.approx(losses.min(axis=0))


def counted(values):
    stats = Stats()
    stats.add("x", values)
    stats.count_values(values)
    return stats


@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_both_ends_are_clipped_and_only_outliers(method):
    values = np.random.default_rng(0).uniform(-1, 1, (512, 1, 32, 32)).astype(np.float32)
    low, high = choose(counted(values), method, "u8")
    assert low == pytest.approx(-1, abs=0.15)
    assert high == pytest.approx(1, abs=0.15)
    values[0, 0, 0, :2] = -8, 8
    low, high = choose(counted(values), method, "u8")
    assert -5 < low < -0.8
    assert 0.8 < high < 5
    assert choose(counted(np.abs(values)), method, "u8")[0] == 0


def test_a_quantile_is_the_upper_edge_from_the_middle_on_and_the_lower_one_before():
    seen = Histogram()
    seen.add(np.full(10, 0.3))
    low, high = seen.quantile(0.49), seen.quantile(0.5)
    assert low < 0.3 < high
    assert high - low == pytest.approx(seen.width)


def test_names_are_fresh_and_constants_are_lifted():
    graph = Graph()
    graph.node("Constant", [], "k", value=onnx.numpy_helper.from_array(np.float32([2])))
    graph.node("Mul", ["input", "k"], "a")
    graph.node("Gemm", ["f", graph.array("w", np.ones((5, 7)))], "output")
    graph.nodes.insert(2, onnx.helper.make_node("Flatten", ["a"], ["f"]))
    net = ProtoGraph(graph.model({"output": ["N", 7]}, ("N", 5, 1, 1)))
    assert [node.op_type for node in net.nodes] == ["Mul", "Flatten", "Gemm"]
    assert net.arrays["k"].tolist() == [2]
    assert [net.fresh("a"), net.fresh("a"), net.fresh("new")] == ["a_1", "a_2", "new"]
    assert len({node.name for node in net.nodes}) == 3
    assert layer_bias(net, net.nodes[2]).tolist() == [0] * 7
    assert len(net.nodes[2].input) == 3
    net.arrays["w"] = np.ones((7, 5))


def test_the_bias_of_a_transposed_layer_has_its_outputs():
    graph = Graph()
    graph.node("Gemm", ["input", graph.array("w", np.ones((7, 5)))], "output", transB=1)
    net = ProtoGraph(graph.model({"output": ["N", 7]}, ("N", 5)))
    assert layer_bias(net, net.nodes[0]).shape == (7,)


LAYERS = {
    "plain": ({"transB": 1}, True),
    "not transposed": ({}, False),
    "input transposed": ({"transB": 1, "transA": 1}, False),
    "alpha": ({"transB": 1, "alpha": 0.5}, False),
    "beta": ({"transB": 1, "beta": 0.5}, False),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_with_more_than_weights_is_not_plain(case):
    values, plain = LAYERS[case]
    graph = Graph()
    graph.node("Gemm", ["input", graph.array("w", np.ones((5, 5))), graph.array("k", np.ones(5))], "output", **values)
    net = ProtoGraph(graph.model({"output": [5, 5]}, (5, 5)))
    assert is_plain(net, net.nodes[0]) is plain


@pytest.mark.parametrize(("axes", "whole"), [([2, 3], True), ([-1, -2], True), ([3], False), ([1, 2, 3], False)])
@pytest.mark.parametrize("opset", [13, 18])
def test_a_mean_over_both_sides_is_global(axes, whole, opset):
    graph = Graph()
    if opset == 18:
        graph.node("ReduceMean", ["input", graph.array("axes", axes, np.int64)], "output")
    else:
        graph.node("ReduceMean", ["input"], "output", axes=axes)
    net = ProtoGraph(graph.model({"output": ["a", "b", "c", "d"]}, ("N", 3, 4, 4), opset=opset))
    assert bool(_is_global_mean(net, net.nodes[0])) is whole


def test_channels_that_meet_have_one_root():
    parents = {}
    _unite(parents, np.array([0, 1]), np.array([2, 3]))
    _unite(parents, np.array([2]), np.array([5]))
    assert [union_find.root(parents, at) for at in range(6)] == [0, 1, 0, 1, 4, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=30))
def test_union_find_makes_the_groups_that_a_search_of_the_graph_finds(pairs):
    parents, groups = {}, {at: {at} for at in range(16)}
    for kept, other in pairs:
        representative = union_find.root(parents, kept)
        union_find.join(parents, kept, other)
        whole = groups[kept] | groups[other]
        groups |= dict.fromkeys(whole, whole)
        assert {union_find.root(parents, at) for at in whole} == {representative}
    roots = [union_find.root(parents, at) for at in range(16)]
    assert all((roots[one] == roots[two]) == (two in groups[one]) for one in range(16) for two in range(16))


def test_a_fixed_batch_is_freed_and_a_free_one_left():
    fixed = small_cnn(batch=4)
    free = with_free_batch(fixed, images(4))
    assert free.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert with_free_batch(free, images(4)) is None
    assert fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


def test_noise_is_another_one_for_each_image_of_the_stream():
    same = np.repeat(images(1), 48, axis=0)
    whole = list(AugmentedSamples(Samples([same], (None, 3, 16, 16)), 0.25))
    assert [len(batch) for batch in whole] == [16] * 6
    noisy = np.concatenate(whole[1::2])
    assert len(np.unique(noisy.reshape(48, -1), axis=0)) == 48


def test_what_is_spooled_is_data_and_no_code():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it ran",))

    with pytest.raises((ValueError, pickle.PicklingError)), repeatable(iter([np.array([Bomb()], object)])):
        pass
    with repeatable(iter(batches())) as spool:
        for _ in range(2):
            assert np.array_equal(np.concatenate(list(spool)), images())


def test_an_image_with_nothing_in_it_does_not_look_random():
    flat = np.zeros((2, 3, 16, 16), np.float32)
    edge = flat.copy()
    edge[..., -1] = np.random.default_rng(0).standard_normal((2, 3, 16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not _looks_random(flat)
        assert not _looks_random(edge[..., :-1])
        assert not _looks_random(np.roll(np.where(np.arange(16) == 15, 1, flat), 0, axis=-1).astype(np.float32))
    assert _looks_random(np.random.default_rng(0).standard_normal((2, 3, 16, 16)))
    assert not _looks_random(images())


def test_a_clip_without_bounds_is_not_from_zero():
    graph = Graph()
    graph.node("Clip", ["input"], "a")
    graph.node("Identity", ["a"], "output")
    model = graph.model({"output": ["N", 3, 16, 16]})
    assert collect(model, ["a"], batches())["a"].lows() == pytest.approx(images().min(axis=(0, 2, 3)))


def test_an_engine_pays_for_a_layer_in_integers_and_for_what_it_is_given():
    costs = model_costs(small_cnn(), "trt")
    plain = model_costs(small_cnn(), "ort-x86")
    assert set(costs.int8_s) == set(costs.float_s) == set(plain.int8_s)
    assert all(0 < costs.float_s[name] < costs.int8_s[name] for name in costs.float_s)  # so small that launching counts
    assert all(0 < plain.int8_s[name] <= plain.float_s[name] for name in plain.float_s)


def test_the_quick_settings_do_nothing_but_calibrate():
    assert QuantSettings.quick("mse") == QuantSettings(method="mse", equalize=None, refine=False, noise=0.0)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("quantised")
    onnx.save(small_cnn(), folder / "m.onnx")
    made = quantize(folder / "m.onnx", folder / "q.onnx", batches(), target="trt", settings=QuantSettings.quick())
    tried = {"layers_in_float": 2, "seconds": 0.0015, "sqnr_db": 31.25, "points": 0.5, "meets": True, "best": False}
    best_one = {**tried, "layers_in_float": 0, "sqnr_db": None, "meets": False, "best": True}
    return dataclasses.replace(
        made, layer_sqnr_db={"one": 30.0, "two <2>": 10.0}, tensor_sqnr_db={"x": 20.0}, tried=(tried, best_one),
        reason="the quickest that is allowed", floats={"n_c0": "it is the first"},
    )  # fmt: skip


def test_what_is_printed_says_all_of_it(report, capsys):
    _quantize_tables.int8(report, Path("q.onnx"))
    said = " ".join(capsys.readouterr().out.split())
    for part in ("Computed in INT8", "Left in float", "n_c0", "it is the first", "two <2>", "10.0", "Noisiest tensors",
                 "Tried for the accuracy budget", "the quickest that is allowed", "q.onnx: trt, 64 images",
                 "31.2"):  # fmt: skip
        assert part in said, part
    assert said.index("float 0.50 no yes") < said.index("31.2 0.50 yes")


def test_what_is_not_there_is_not_printed(report, capsys):
    bare = dataclasses.replace(report, layer_sqnr_db={}, tensor_sqnr_db={}, tried=(), floats={}, agreement=None)
    _quantize_tables.int8(bare, Path("q.onnx"))
    said = capsys.readouterr().out
    for part in ("Left in float", "Noisiest", "Tried", "top-1", "alone"):
        assert part not in said


def test_the_plot_has_a_bar_for_each_the_noisiest_first(report):
    pytest.importorskip("matplotlib")
    figure = _noise_plot.bars(report)
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    values = [[text.get_text() for text in axes.texts] for axes in figure.axes]
    _noise_plot.pyplot().close(figure)
    assert (names, values) == ([["two <2>", "one"], ["x"]], [["10.0", "30.0"], ["20.0"]])


def test_a_grid_reaches_the_farther_end():
    for low, high, scale in ((-3.0, 1.0, 3 / 127), (-1.0, 3.0, 3 / 127), (0.5, 2.0, 2 / 127), (-2.0, -1.0, 2 / 127)):
        made = quant_params(low, high, "symmetric")
        assert (made.scale, made.zero) == (pytest.approx(scale), 0)
    made = quant_params(-1.0, 3.0, "u8")
    assert made.scale == pytest.approx(4 / 255)
    assert made.rounded(np.float64([-1, 0, 3, 9])) == pytest.approx([-1, 0, 3, 3], abs=made.scale / 2)


def test_an_input_of_any_rank_has_its_batch_first():
    graph = Graph()
    graph.node("Relu", ["input"], "output")
    assert input_layout(graph.model({"output": ["N", 3]}, ("N", 3))).main.shape == (None, 3)
    assert input_layout(graph.model({"output": ["N"]}, ("N",))).size is None
