"""Equalisation keeps the float function, and undoes the damage where scales were spoilt on purpose."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import collect
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.equalization.channel_groups import channel_groups
from edgesmith.optimize.quantize.equalization.cross_layer import equalise
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.targets import find_target
from support.quant_graphs import Graph, batches, images, run, small_cnn


def linear_bottlenecks():
    """1x1, depthwise and 1x1 convolutions with Relu, a residual chain, and a linear output."""
    graph = Graph(3)
    graph.conv("input", "c0", (12, 3, 3, 3), stride=2)
    graph.conv("c0", "c1", (24, 12, 1, 1))
    graph.node("Relu", ["c1"], "r1")
    graph.conv("r1", "c2", (24, 1, 3, 3), group=24)
    graph.node("Relu", ["c2"], "r2")
    graph.conv("r2", "c3", (12, 24, 1, 1))
    graph.node("Add", ["c0", "c3"], "a0")
    graph.conv("a0", "c4", (24, 12, 1, 1))
    graph.node("Relu", ["c4"], "r4")
    graph.classifier("r4", 24)
    return graph.model({"output": ["N", 10]})


def shuffled():
    """Halves of a tensor through different layers, joined, split anew and joined with a third: as in ShuffleNet."""
    graph = Graph(4)
    graph.conv("input", "c0", (16, 3, 3, 3), stride=2)
    graph.node("Relu", ["c0"], "r0")
    graph.node("Split", ["r0", graph.array("sizes", [6, 10], np.int64)], ["left", "right"], axis=1)
    graph.conv("right", "c1", (10, 10, 1, 1))
    graph.node("Relu", ["c1"], "r1")
    graph.conv("r1", "c2", (10, 1, 3, 3), group=10)
    graph.conv("c2", "c3", (12, 10, 1, 1))
    graph.node("Relu", ["c3"], "r3")
    graph.node("Concat", ["left", "r3"], "k0", axis=1)
    graph.node("Split", ["k0"], ["half", "other"], axis=1, num_outputs=2)
    graph.conv("half", "c4", (9, 9, 1, 1))
    graph.node("Relu", ["c4"], "r4")
    graph.node("Concat", ["other", "r4"], "k1", axis=1)
    graph.conv("k1", "c5", (8, 18, 1, 1))
    graph.node("Relu", ["c5"], "r5")
    graph.classifier("r5", 8)
    return graph.model({"output": ["N", 10]})


def equalised(model, strength, shift=True):
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    net = ProtoGraph(copy)
    names = place(net, find_target("ort-x86")).quantized_reads
    names = [name for name in names if not any(node.op_type in ("Relu", "Clip") for node in net.readers.get(name, []))]
    return copy, equalise(net, collect(copy, names, batches()), strength, shift)


@pytest.mark.parametrize("make", [linear_bottlenecks, small_cnn, shuffled])
@pytest.mark.parametrize(("strength", "shift"), [(1.0, True), (0.5, False), (0.0, True)])
def test_the_float_function_is_kept(make, strength, shift):
    model = make()
    changed, _ = equalised(model, strength, shift)
    seen = images()
    assert sqnr_db(run(model, seen), run(changed, seen)) > 90


def test_residual_chains_are_scaled_as_one():
    (chain,) = [space for space in channel_groups(ProtoGraph(linear_bottlenecks())) if "a0" in space.tensors]
    assert chain.tensors == {"c0", "c3", "a0"}
    assert sorted(node.name for node in chain.writers) == ["n_c0", "n_c3"]
    assert sorted(node.name for node in chain.readers) == ["n_c1", "n_c4"]


def test_a_channel_keeps_its_factor_through_concat_and_split():
    (space,) = [space for space in channel_groups(ProtoGraph(shuffled())) if "k0" in space.tensors]
    assert space.tensors == {"c0", "r0", "left", "right", "c3", "r3", "k0", "half", "other", "c4", "r4", "k1"}
    channels = space.channels
    np.testing.assert_array_equal(channels["left"], channels["c0"][:6])
    np.testing.assert_array_equal(channels["k0"], [*channels["left"], *channels["r3"]])
    np.testing.assert_array_equal(channels["other"], channels["k0"][9:])
    np.testing.assert_array_equal(channels["k1"], [*channels["other"], *channels["c4"]])
    assert len(set(channels["c0"]) | set(channels["c3"]) | set(channels["c4"])) == 16 + 12 + 9


def test_what_is_concatenated_fills_one_range():
    model = shuffled()
    before = collect(model, ["k0", "k1"], batches())
    changed, _ = equalised(model, 1.0)
    after = collect(changed, ["k0", "k1"], batches())
    assert np.ptp(before["k0"].highs()) > 0.3 * before["k0"].high
    assert np.ptp(after["k0"].highs()) < 0.001 * after["k0"].high
    assert np.ptp(after["k1"].highs()) < 0.001 * after["k1"].high


def test_channels_fill_their_tensor():
    model = linear_bottlenecks()
    before = collect(model, ["r1", "c3"], batches())
    changed, scales = equalised(model, 1.0)
    after = collect(changed, ["r1", "c3"], batches())
    assert np.ptp(before["r1"].highs()) > 0.3 * before["r1"].high
    assert np.ptp(after["r1"].highs()) < 0.001 * after["r1"].high
    assert np.abs(after["c3"].lows() + after["c3"].highs()).max() < 1e-4 * after["c3"].high
    assert max(scales.values()) > 1.5


def spoilt(model, seed=5):
    """Scale channels by factors of 1/16 to 16 and undo it in the next layer: the same function, terrible ranges."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    net, draw = ProtoGraph(copy), np.random.default_rng(seed)
    for writer, reader in [("n_c1", "n_c2"), ("n_c2", "n_c3"), ("n_c4", "n_output")]:
        one, two = (next(node for node in net.nodes if node.name == name) for name in (writer, reader))
        weight, other = net.arrays[one.input[1]], net.arrays[two.input[1]]
        scale = np.exp(draw.uniform(-np.log(16), np.log(16), len(weight))).astype(np.float32)
        net.set_array(one.input[1], weight * scale.reshape(-1, 1, 1, 1))
        net.set_array(one.input[2], net.arrays[one.input[2]] * scale)
        depthwise = other.shape[1] == 1
        shape = (-1, 1, 1, 1) if depthwise else (1, -1, *[1] * (other.ndim - 2))
        net.set_array(two.input[1], other / scale.reshape(shape))
    return copy


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_a_spoilt_network_is_mended(target, tmp_path):
    model = linear_bottlenecks()
    worse = spoilt(model)
    seen = images(256, seed=9)
    reference = run(model, seen)
    assert sqnr_db(reference, run(worse, seen)) > 90
    quality = {}
    for name, source, strength in [("good", model, 0.5), ("mended", worse, 0.5), ("left", worse, None)]:
        onnx.save(source, tmp_path / "m.onnx")
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, settings=QuantSettings(strength))
        quality[name] = sqnr_db(reference, run(tmp_path / "q.onnx", seen))
    assert quality["mended"] > quality["good"] - 1.5
    assert quality["mended"] > quality["left"] + 4
