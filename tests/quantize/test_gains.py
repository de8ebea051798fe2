"""Channels are made alike where float operators stand between layers: the same function, with less noise."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import collect
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.activation_clipping import saturating_activations
from edgesmith.optimize.quantize.equalization.cross_layer import own_weights
from edgesmith.optimize.quantize.equalization.explicit_scales import SUFFIX, channel_ranges, insert_channel_scales
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import find_target
from support.quant_graphs import Graph, batches, images, run, small_cnn


def uneven(seed=3):
    """An inverted residual with HardSwish, SiLU and a squeeze-and-excite gate; channels differ by up to 30 times."""
    graph = Graph(seed)
    graph.conv("input", "c0", (24, 3, 3, 3))
    factor = np.exp(graph.draw.uniform(np.log(1 / 15), np.log(2), 24)).astype(np.float32)
    weight = onnx.numpy_helper.to_array(graph.arrays[-2]) * factor.reshape(-1, 1, 1, 1)
    graph.arrays[-2].CopyFrom(onnx.numpy_helper.from_array(weight, "c0_w"))
    graph.node("HardSwish", ["c0"], "h0")
    graph.conv("h0", "c1", (24, 1, 3, 3), group=24)
    graph.node("Sigmoid", ["c1"], "s1")
    graph.node("Mul", ["c1", "s1"], "a1")
    graph.node("GlobalAveragePool", ["a1"], "g0")
    graph.conv("g0", "c2", (24, 24, 1, 1))
    graph.node("Sigmoid", ["c2"], "s2")
    graph.node("Mul", ["a1", "s2"], "a2")
    graph.conv("a2", "c3", (8, 24, 1, 1))
    graph.node("Identity", ["c3"], "output")
    return graph.model({"output": ["N", 8, 16, 16]})


def gained(model, target):
    """Return the graph with channels scaled, the statistics that gain keeps, its plan, and what it answers."""
    net, form = ProtoGraph(copied(model)), find_target(target)
    own_weights(net)
    plan = place(net, form)
    stats = collect(net.model, sorted(plan.quantized_reads), batches())
    done = insert_channel_scales(net, plan, stats, form, 0.5, saturating_activations(net, plan))
    return net, stats, plan, done


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_the_function_stays(target):
    model, seen = uneven(), images(32, seed=4)
    net, _, plan, done = gained(model, target)
    assert set(done) == {"h0", "a2", "g0"} | ({"c0", "c1", "c2"} if target == "ort-x86" else set())
    assert max(done.values()) > 2
    onnx.checker.check_model(net.model, full_check=True)
    np.testing.assert_allclose(run(net.model, seen), run(model, seen), atol=1e-4)
    (reader,) = net.readers["h0_even"]
    assert plan.quantized_reads["h0_even"] == {id(reader)}
    assert reader.name == "n_c1"


def test_statistics_are_those_of_the_new_graph():
    net, stats, plan, _ = gained(uneven(), "ort-x86")
    fresh = collect(net.model, sorted(plan.quantized_reads), batches())
    for name, seen in fresh.items():
        np.testing.assert_allclose(stats[name].lows(), seen.lows(), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(stats[name].highs(), seen.highs(), rtol=1e-3, atol=1e-5)
    before = collect(uneven(), ["c0"], batches())["c0"].highs()
    after = stats["c0"].highs()
    assert before.max() / np.median(before) > 1.5 * after.max() / np.median(after)


def products(path):
    """Return the names of the products by channel in a file."""
    return [node.name for node in onnx.load(path).graph.node if node.name.endswith(SUFFIX)]


@pytest.fixture
def needed(monkeypatch):
    """Every network needs its channels made alike, also where that costs time."""
    monkeypatch.setattr("edgesmith.optimize.quantize.pipeline.NEED_DB", np.inf)


@pytest.mark.parametrize("target", ["trt", "ort-x86", "ort-arm", "openvino"])
def test_less_noise(target, tmp_path, monkeypatch, needed):
    model, seen, quality = uneven(), images(64, seed=9), []
    onnx.save(model, tmp_path / "m.onnx")
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr("edgesmith.optimize.quantize.pipeline.insert_channel_scales", lambda *given: {})
        quantize(
            tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, settings=QuantSettings(refine=False)
        )
        quality.append(sqnr_db(run(model, seen), run(tmp_path / "q.onnx", seen)))
        assert bool(products(tmp_path / "q.onnx")) == kept
    assert quality[0] > quality[1] + 0.5


@pytest.mark.parametrize(("need", "count"), [(-np.inf, 0), (np.inf, 6)])
def test_where_products_cost_time_they_stand_only_if_needed(need, count, tmp_path, monkeypatch):
    onnx.save(uneven(), tmp_path / "m.onnx")
    monkeypatch.setattr("edgesmith.optimize.quantize.pipeline.NEED_DB", need)
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings())
    assert len(products(tmp_path / "q.onnx")) == count


def test_products_that_gain_nothing_are_left_out(tmp_path, monkeypatch, needed):
    onnx.save(uneven(), tmp_path / "m.onnx")
    kept = iter([20.0, 19.0])
    monkeypatch.setattr("edgesmith.optimize.quantize.pipeline._kept", lambda *given: next(kept))
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings())
    assert products(tmp_path / "q.onnx") == []
    assert next(kept, None) is None


def test_a_network_without_such_edges_is_converted_once(tmp_path, monkeypatch, needed):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    monkeypatch.setattr("edgesmith.optimize.quantize.pipeline._kept", lambda *given: pytest.fail("measured"))
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings())
    assert products(tmp_path / "q.onnx") == []


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_scales_of_activations_stay_scalars(target, tmp_path, needed):
    onnx.save(uneven(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, settings=QuantSettings())
    net = ProtoGraph(onnx.load(tmp_path / "q.onnx"))
    assert "h0_even" + SUFFIX in products(tmp_path / "q.onnx")
    quantisers = [node for node in net.nodes if node.op_type == "QuantizeLinear"]
    assert all(net.arrays[node.input[1]].ndim == 0 for node in quantisers)


def test_layers_still_compute_in_integers_and_answer_as_written(tmp_path, needed):
    onnx.save(uneven(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=QuantSettings())
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ort.InferenceSession(str(tmp_path / "q.onnx"), options, providers=["CPUExecutionProvider"])
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node)
    assert (counts["QLinearConv"], counts["Conv"]) == (3, 1)  # the last one answers float
    assert "FusedConv" not in counts
    seen = images(32, seed=6)
    exact = run(tmp_path / "q.onnx", seen)
    assert sqnr_db(exact, run(tmp_path / "q.onnx", seen, optimise=True)) > 40


def test_openvino_computes_the_layers_in_integers(tmp_path):
    openvino = pytest.importorskip("openvino")
    onnx.save(uneven(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="openvino")
    compiled = openvino.Core().compile_model(str(tmp_path / "q.onnx"), "CPU", {"INFERENCE_NUM_THREADS": 1})
    kinds = [
        (node.get_rt_info()["layerType"].get(), node.get_rt_info()["runtimePrecision"].get())
        for node in compiled.get_runtime_model().get_ordered_ops()
    ]
    layers = [precision for kind, precision in kinds if kind == "Convolution"]
    assert len(layers) == 4
    assert set(layers) <= {"u8", "i8"}


def test_a_tensor_that_a_layer_reads_too_is_left_alone():
    graph = Graph(2)
    graph.conv("input", "c0", (8, 3, 3, 3))
    graph.node("HardSwish", ["c0"], "h0")
    graph.conv("h0", "c1", (8, 8, 1, 1))
    graph.conv("c0", "c2", (8, 8, 1, 1))
    graph.node("Add", ["c1", "c2"], "output")
    *_, done = gained(graph.model({"output": ["N", 8, 16, 16]}), "ort-x86")
    assert set(done) == {"h0"}


@pytest.mark.parametrize("turned", [0, 1])
def test_a_layer_with_its_outputs_on_another_axis_is_left_alone(turned):
    graph = Graph(2)
    graph.node("GlobalAveragePool", ["input"], "p0")
    graph.node("Flatten", ["p0"], "f0")
    weight = graph.draw.standard_normal((8, 3) if turned else (3, 8))
    names = ["f0", graph.array("g0_w", weight), graph.array("g0_b", np.linspace(0.1, 9, 8))]
    graph.node("Gemm", names, "g0", transB=turned)
    graph.node("HardSwish", ["g0"], "h0")
    graph.node("Gemm", ["h0", graph.array("g1_w", graph.draw.standard_normal((8, 5)))], "output")
    *_, done = gained(graph.model({"output": ["N", 5]}), "ort-x86")
    assert set(done) == ({"f0", "g0"} if turned else set())


ENDS = st.lists(st.tuples(st.floats(0, 100), st.floats(0.01, 100)), min_size=1, max_size=12)


@given(ENDS)
def test_a_span_holds_its_channel_and_zero_lies_at_one_place(ends):
    low, high = -np.array([one for one, _ in ends]), np.array([two for _, two in ends])
    wide = channel_ranges(low, high, np.ones(len(low)), "u8")
    # Zero lies at share f: what it must be at least for the lower ends, and at most for the upper ones.
    assert (-low / wide).max() <= (1 - high / wide).min() + 1e-9
    np.testing.assert_allclose(channel_ranges(low, high, np.ones(len(low)), "symmetric"), 2 * np.maximum(-low, high))


def test_the_loud_channel_decides_where_zero_lies():
    low, high = np.array([-1.0, -1.0]), np.array([100.0, 1.0])
    assert channel_ranges(low, high, np.ones(2), "u8")[0] < 110
    assert channel_ranges(low, high, np.array([1.0, 1000.0]), "u8")[1] < 2.2


def test_channels_that_hardly_differ_are_left_alone(monkeypatch):
    monkeypatch.setattr("edgesmith.optimize.quantize.equalization.explicit_scales.WORTH", 1e9)
    net, stats, plan, done = gained(uneven(), "ort-x86")
    assert done == {}
    assert set(stats) >= plan.quantized_reads.keys() - {"output"}
    assert not [node for node in net.nodes if node.name.endswith(SUFFIX)]
