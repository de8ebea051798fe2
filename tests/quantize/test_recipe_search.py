"""A step of the quantiser is kept where it gains on images held back; the result is never below plain ranges."""

import dataclasses
import itertools
import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.optimize.calibration.inputs import GraphInput, InputLayout
from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples
from edgesmith.optimize.calibration.statistics_cache import collected
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize import QuantSettings, pipeline, quantize
from edgesmith.optimize.quantize import recipe_search as recipe
from edgesmith.optimize.quantize.equalization.cross_layer import equalise
from edgesmith.optimize.quantize.pipeline import convert
from edgesmith.optimize.quantize.recipe_search import Trial, choose_recipe
from edgesmith.optimize.quantize.report import STEPS, judge
from edgesmith.optimize.quantize.targets import find_target
from support.quant_graphs import Graph, batches, images, small_cnn

QUICK = QuantSettings(choose=STEPS, refine=False)


def samples_of(count=64, batch=16):
    return Samples(batches(count, batch=batch), (None, 3, 16, 16))


def chosen(model, target="ort-x86", options=QUICK, count=64):
    return choose_recipe(model, find_target(target), samples_of(count), options)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(2, 5), st.sampled_from([None, 1, 3]))
@settings(max_examples=60, deadline=None)
def test_two_shares_have_each_sample_once(sizes, every, fixed):
    values = np.arange(sum(sizes), dtype=np.float32)[:, None]
    parts = np.split(values, np.cumsum(sizes)[:-1])
    shares = Samples(parts, (fixed, 1)).split(every)
    rows = [np.concatenate(list(share.batches or [np.zeros((0, 1))]) or [np.zeros((0, 1))])[:, 0] for share in shares]
    assert sorted(np.concatenate(rows)) == sorted(values[:, 0])
    assert [int(row) for row in rows[1]] == list(range(every - 1, len(values), every))


def test_shares_of_several_inputs_keep_what_all_samples_share():
    layout = InputLayout((GraphInput("x", "float32", (None, 2), ("N",)), GraphInput("t", "float32", (1,))))
    batch = {"x": np.arange(16, dtype=np.float32).reshape(8, 2), "t": np.ones(1, np.float32)}
    first, second = Samples([batch], layout).split(4)
    assert [one["x"].shape for one in (*first.batches, *second.batches)] == [(6, 2), (2, 2)]
    assert all(one["t"].shape == (1,) for one in (*first.batches, *second.batches))


def test_where_no_axis_is_the_batch_whole_batches_are_shared():
    given_ = [np.full((3, 4), number, np.float32) for number in range(8)]
    first, second = Samples(given_, (3, 4), size=0).split(4)
    assert [one[0, 0] for one in second.batches] == [3, 7]
    assert len(list(first.batches)) == 6


@pytest.mark.parametrize("target", ["ort-x86", "trt"])
@pytest.mark.parametrize("seed", range(3))
def test_the_result_is_never_below_plain_ranges(target, seed):
    """Each kept trial is better than the one kept before it; the graph is the best one's, on all images."""
    graph = Graph(seed)
    graph.array("zero", 0)
    graph.array("six", 6)
    graph.relu6(graph.conv("input", "c0", (8, 3, 3, 3), stride=2), "r0")
    graph.relu6(graph.conv("r0", "c1", (8, 1, 3, 3), group=8), "r1")
    graph.node("Relu", [graph.conv("r1", "c2", (16, 8, 1, 1))], "r2")
    graph.classifier("r2", 16)
    result = chosen(graph.model({"output": ("N", 10)}), target)
    kept = [trial for trial in result.trials if trial.kept]
    assert result.trials[0].kept
    assert all(two.score >= one.score + recipe.GAIN_DB for one, two in itertools.pairwise(kept))
    assert kept[-1].sqnr_db >= result.trials[0].sqnr_db
    model = graph.model({"output": ("N", 10)})
    again = convert(model, find_target(target), samples_of(), result.settings)
    assert again.model.SerializeToString() == result.conversion.model.SerializeToString()


def test_the_choice_is_the_same_each_time():
    model = small_cnn()
    one, two = (chosen(model) for _ in range(2))
    assert one.trials == two.trials
    assert one.conversion.model.SerializeToString() == two.conversion.model.SerializeToString()


def losing(monkeypatch, steps):
    """Let equalisation, or any step of this setting, cost accuracy: its weights are made wrong."""
    real = recipe.convert

    def convert(model, form, samples, options, *rest):
        made = real(model, form, samples, options, *rest)
        if any(getattr(options, step) not in (None, 0.0, False) for step in steps):
            copy = copied(made.model)
            net = ProtoGraph(copy)
            name = next(node.input[0] for node in net.nodes if node.op_type == "DequantizeLinear"
                        and net.arrays.get(node.input[0], np.zeros(0)).ndim == 4)  # fmt: skip
            net.set_array(name, np.zeros_like(net.arrays[name]))
            made = dataclasses.replace(made, model=copy)
        return made

    monkeypatch.setattr(recipe, "convert", convert)


@pytest.mark.parametrize(
    ("steps", "titles"),
    [
        (["equalize"], {"equalisation 0.5", "equalisation 0.25", "equalisation through clips"}),
        (["noise"], {"disturbed images"}),
        (["refine"], {"layer by layer", "ranges and biases layer by layer"}),
    ],
)
def test_a_step_that_loses_is_left_out(monkeypatch, steps, titles):
    losing(monkeypatch, steps)
    result = chosen(small_cnn(), options=QuantSettings.measured())
    assert {trial.step for trial in result.trials if trial.step in titles} == titles
    assert not any(trial.kept for trial in result.trials if trial.step in titles)
    assert all(getattr(result.settings, step) in (None, 0.0, False) for step in steps)


def test_a_method_that_the_user_names_stays():
    result = chosen(small_cnn(), options=dataclasses.replace(QuantSettings.measured(method="mse"), refine=False))
    assert result.settings.method == "mse"
    assert next(trial.step for trial in result.trials) == "mse ranges"
    assert "percentile ranges" not in [trial.step for trial in result.trials]


def one_noisy_layer():
    """Twelve pointwise layers; n_c7 takes the difference of two channels that are nearly equal, a hundredfold."""
    graph, last = Graph(5), "input"
    for number in range(12):
        last = graph.node("Relu", [graph.conv(last, f"c{number}", (16, 16 if number else 3, 1, 1))], f"r{number}")
    graph.classifier(last, 16)
    model = graph.model({"output": ("N", 10)})
    net = ProtoGraph(model)
    before, noisy = (net.arrays[name].copy() for name in ("c6_w", "c7_w"))
    before[1], noisy[:, 0], noisy[:, 1] = before[0] * 1.003, 100.0, -100.0
    net.set_array("c6_w", before)
    net.set_array("c7_w", noisy)
    return model


@pytest.mark.parametrize("target", ["trt", "trt-rtx", "ort-x86"])
def test_the_noisiest_layer_returns_to_float_where_an_engine_is_no_slower(target):
    result = chosen(one_noisy_layer(), target)
    engine = target != "ort-x86"
    assert result.settings.noisy == (frozenset({"n_c7"}) if engine else frozenset())
    assert result.conversion.plan.kept_float == ({"n_c7": pipeline.NOISY} if engine else {})
    steps = {trial.step: trial for trial in result.trials}
    assert ("noisiest layers in float: 1" in steps) is engine
    json.dumps(result.settings.to_dict())


def test_where_no_layer_is_noisy_none_returns_to_float():
    result = chosen(small_cnn(), "trt")
    assert result.settings.noisy == frozenset()


def test_a_step_that_is_not_chosen_is_done():
    options = QuantSettings(choose=frozenset({"method"}), refine=False, noise=0.0)
    result = chosen(small_cnn(), options=options)
    assert result.settings.equalize == options.equalize
    assert [trial.step for trial in result.trials] == ["min-max ranges", "percentile ranges"]


def test_an_unknown_step_is_refused():
    with pytest.raises(ValueError, match="walk"):
        chosen(small_cnn(), options=QuantSettings(choose=frozenset({"walk"})))


@pytest.mark.parametrize(("count", "fitted"), [(64, 48), (31, 31)])
def test_few_images_judge_themselves(monkeypatch, count, fitted):
    counts = []
    real = recipe.convert
    monkeypatch.setattr(recipe, "convert", lambda *given_: (counts.append(given_[2].count()), real(*given_))[1])
    chosen(small_cnn(), count=count)
    assert set(counts) == {fitted, count}


def test_the_report_names_every_trial(tmp_path):
    onnx.save(small_cnn(), tmp_path / "net.onnx")
    report = quantize(tmp_path / "net.onnx", tmp_path / "q.onnx", batches(), target="ort-x86")
    assert [set(one) for one in report.recipe] == [{field.name for field in dataclasses.fields(Trial)}] * len(
        report.recipe
    )
    assert report.recipe[-1]["step"] in ("layer by layer", "ranges and biases layer by layer")
    quick = quantize(
        tmp_path / "net.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings.quick()
    )
    assert quick.recipe == ()


def clipped(pool):
    """A layer, ReLU6, perhaps a pool, and a layer; on the images seen its second channel stays far below 6."""
    graph = Graph(3)
    graph.array("zero", 0)
    graph.array("six", 6)
    graph.relu6(graph.conv("input", "c0", (4, 3, 1, 1)), "r0")
    last = graph.node("GlobalAveragePool", ["r0"], "p0") if pool else "r0"
    graph.conv(last, "c1", (4, 4, 1, 1))
    return graph.model({"c1": ("N", 4, "H", "W")})


@pytest.mark.parametrize(("pool", "clips", "scaled"), [(False, True, True), (False, False, False), (True, True, False)])
def test_channels_before_a_clip_are_scaled_only_where_its_values_are_seen(pool, clips, scaled):
    """Behind a pool there are only means, which do not say whether a value comes near the bound."""
    net = ProtoGraph(copied(clipped(pool)))
    name = "p0" if pool else "r0"
    stats = collected(net.model, [name], AugmentedSamples(samples_of(), 0.0), channels={name: 1})
    before = net.arrays["c0_w"].copy()
    equalise(net, stats, 0.5, clips=clips)
    assert (not np.array_equal(before, net.arrays["c0_w"])) is scaled


def test_an_equalised_network_answers_like_the_float_one_on_brighter_images():
    """What is above all that was seen is not cut off by the Clip, up to half as much again."""
    model = clipped(pool=False)
    net = ProtoGraph(copied(model))
    equalise(net, collected(net.model, ["r0"], AugmentedSamples(samples_of(), 0.0), channels={"r0": 1}), 0.5)
    held_out = [images(16, seed=9) * 1.2]
    assert min(judge(model, net.model, held_out).sqnr_db.values()) > 100
