"""What a flat part of an activation function hides costs no levels."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.activation_clipping import saturating_activations, sigmoid, silu
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import find_target
from support.quant_graphs import Graph, batches, images, run


def hard_swish(graph, source):
    graph.node("HardSwish", [source], "act")


def hard_swish_in_parts(graph, source):
    graph.node("HardSigmoid", [source], "gate", alpha=1 / 6, beta=0.5)
    graph.node("Mul", [source, "gate"], "act")


def swish(graph, source):
    graph.node("Sigmoid", [source], "gate")
    graph.node("Mul", ["gate", source], "act")


def gate(graph, source):
    graph.node("Sigmoid", [source], "act")


def hard_gate(graph, source):
    graph.node("HardSigmoid", [source], "act", alpha=0.25, beta=0.5)


FUNCTIONS = {
    hard_swish: lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    hard_swish_in_parts: lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    swish: silu,
    gate: sigmoid,
    hard_gate: lambda x: np.clip(x / 4 + 0.5, 0, 1),
}


def network(activation, also=False, loud=12.0):
    """A convolution with answers to about -40, the activation, and a convolution; `also`: one more reader."""
    graph = Graph(2)
    graph.conv("input", "c0", (16, 3, 3, 3))
    graph.arrays[-2].CopyFrom(onnx.numpy_helper.from_array(loud * onnx.numpy_helper.to_array(graph.arrays[-2]), "c0_w"))
    graph.arrays[-1].CopyFrom(onnx.numpy_helper.from_array(np.full(16, -loud, np.float32), "c0_b"))
    activation(graph, "c0")
    graph.conv("act", "c1", (8, 16, 1, 1))
    if also:
        graph.conv("c0", "c2", (8, 16, 1, 1))
        graph.node("Add", ["c1", "c2"], "output")
    else:
        graph.node("Identity", ["c1"], "output")
    return graph.model({"output": ["N", 8, 16, 16]})


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_each_function_is_recognised_and_computed(activation):
    net = ProtoGraph(network(activation))
    found = saturating_activations(net, place(net, find_target("ort-x86")))
    assert set(found) == {"c0"}
    x = np.linspace(-30, 30, 1001)
    np.testing.assert_allclose(found["c0"].function(x), FUNCTIONS[activation](x), atol=1e-6)
    low, high = found["c0"].cut(-50.0, 50.0)
    beyond = x.clip(low, high)
    assert np.abs(found["c0"].function(beyond) - found["c0"].function(x))[x < high].max() < 3e-3
    assert low > -9


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_another_reader_wants_the_whole_range(activation):
    net = ProtoGraph(network(activation, also=True))
    assert not saturating_activations(net, place(net, find_target("ort-x86")))


def test_a_product_with_something_else_is_no_swish():
    graph = Graph(2)
    graph.conv("input", "c0", (16, 3, 3, 3))
    graph.node("Sigmoid", ["c0"], "gate")
    graph.node("Mul", ["c0", graph.array("other", 2.0)], "twice")
    graph.node("Mul", ["twice", "gate"], "output")
    net = ProtoGraph(graph.model({"output": ["N", 16, 16, 16]}))
    assert not saturating_activations(net, place(net, find_target("ort-x86")))


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("activation", [hard_swish, swish])
def test_cutting_gains_what_it_should(activation, refine, tmp_path, monkeypatch):
    model, settings = network(activation), QuantSettings(equalize=None, refine=refine, reconstruct=False)
    onnx.save(model, tmp_path / "m.onnx")
    seen = images(64, seed=9)
    quality = []
    for kept in (True, False):
        if not kept:
            monkeypatch.setattr("edgesmith.optimize.quantize.pipeline.saturating_activations", lambda net, plan: {})
        report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", settings=settings)
        quality.append(sqnr_db(run(model, seen), run(tmp_path / "q.onnx", seen)))
        assert (report.ranges["c0"][0] > -9) == kept
    assert quality[0] > quality[1] + 0.5
