"""Channels are padded with zeros where ONNX Runtime's INT8 kernels gain by it, and no number changes."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, pipeline, quantize
from edgesmith.optimize.quantize.equalization import cross_layer
from edgesmith.optimize.quantize.equalization.channel_groups import channel_groups
from edgesmith.optimize.quantize.layer_queries import reads_rgb_input
from edgesmith.optimize.quantize.qdq import mean_to_pool
from edgesmith.optimize.quantize.qdq.pad_channels import pad_channels
from edgesmith.optimize.quantize.weights.int16_saturation import largest_integers
from support.graphs import model
from support.quant_graphs import Graph, images

PLAIN = QuantSettings(equalize=None, refine=False, noise=0.0)


def head(graph, source, channels):
    graph.classifier(source, channels)
    return graph.model({"output": ("N", 10)})


def unit(middle, inner=58):
    """1x1, depthwise, 1x1, as in ShuffleNet, behind a first layer of 24 channels."""
    graph = Graph()
    graph.conv("input", "a", (24, 3, 3, 3), stride=2)
    graph.node("Relu", ["a"], "ar")
    graph.conv("ar", "b", (inner, 24, 1, 1))
    graph.node("Relu", ["b"], "br")
    graph.conv("br", "c", (inner, 1, 3, 3), group=inner)
    return graph, middle(graph, "c", inner)


def plainly(graph, source, channels):
    graph.conv(source, "d", (40, channels, 1, 1))
    graph.node("Relu", ["d"], "dr")
    return head(graph, "dr", 40)


def at_the_end(graph, source, channels):
    return head(graph, source, channels)


def concatenated(graph, source, channels):
    graph.conv("br", "e", (channels, channels, 1, 1))
    graph.node("Concat", [source, "e"], "joined", axis=1)
    graph.conv("joined", "d", (40, 2 * channels, 1, 1))
    return head(graph, "d", 40)


def added(graph, source, channels):
    graph.conv("br", "e", (channels, channels, 1, 1))
    graph.node("Add", [source, "e"], "sum")
    graph.conv("sum", "d", (40, channels, 1, 1))
    return head(graph, "d", 40)


def pooled(graph, source, channels):
    graph.node("MaxPool", [source], "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    graph.conv("p", "d", (40, channels, 3, 3))
    return head(graph, "d", 40)


def through_a_sigmoid(graph, source, channels):
    graph.node("Sigmoid", [source], "s")
    graph.conv("s", "d", (40, channels, 1, 1))
    return head(graph, "d", 40)


# What follows the depthwise layer, its channels, and how many each layer then writes
CASES = {
    "a convolution": (plainly, 58, {"n_a": None, "n_b": 64, "n_c": 64, "n_d": None, "input": 4}),
    "72 channels": (plainly, 72, {"n_b": 80, "n_c": 80, "input": 4}),
    "64 channels are quick already": (plainly, 64, {"n_b": None, "n_c": None, "input": 4}),
    "10 channels would become too many": (plainly, 10, {"n_b": None, "n_c": None, "input": 4}),
    "a pool": (pooled, 58, {"n_b": 64, "n_c": 64, "input": 4}),
    "an addition": (added, 58, {"n_b": 64, "n_c": 64, "n_e": 64, "input": 4}),
    "a concatenation sees the channels": (concatenated, 58, {"n_b": None, "n_c": None, "n_e": None, "input": 4}),
    "an operator in float sees them": (through_a_sigmoid, 58, {"n_b": None, "n_c": None, "input": 4}),
    "the global pool sees them": (at_the_end, 58, {"n_b": None, "n_c": None, "input": 4}),
}


def quantised(tmp_path, made, monkeypatch, settings=PLAIN):
    """Quantise without padding."""
    onnx.save(made, tmp_path / "in.onnx")
    monkeypatch.setattr(pipeline, "pad_channels", lambda net: {})
    given = [images()[at : at + 1] for at in range(64)]
    quantize(tmp_path / "in.onnx", tmp_path / "out.onnx", given, target="ort-x86", settings=settings, allow_random=True)
    return onnx.load(tmp_path / "out.onnx")


def answers(made, optimise):
    return session(made, optimise=optimise).run(None, {"input": images(7, seed=9)})[0]


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_no_number(case, tmp_path, monkeypatch):
    middle, inner, wanted = CASES[case]
    plain = quantised(tmp_path, unit(middle, inner)[1], monkeypatch)
    before = [answers(plain, optimise) for optimise in (False, True)]
    net = ProtoGraph(plain)
    found = pad_channels(net)
    assert {name: found.get(name) for name in wanted} == wanted
    onnx.checker.check_model(net.model, full_check=True)
    for optimise, expected in zip((False, True), before, strict=True):
        assert np.array_equal(answers(net.model, optimise), expected)


def test_the_comparison_sees_a_padded_channel_that_is_not_zero(tmp_path, monkeypatch):
    plain = quantised(tmp_path, unit(plainly)[1], monkeypatch)
    before, net = answers(plain, False), ProtoGraph(plain)
    pad_channels(net)
    names = [name for name in net.arrays if name.startswith("n_d/weight_q")]
    net.set_array(names[0], np.where(net.arrays[names[0]] == 0, 50, net.arrays[names[0]]).astype(np.int8))
    bias = next(name for name in net.arrays if name.startswith("n_c/bias_q") and len(net.arrays[name]) == 64)
    net.set_array(bias, np.concatenate([net.arrays[bias][:58], np.full(6, 10**5, np.int32)]))
    assert not np.array_equal(answers(net.model, False), before)


def test_the_form_of_onnx_runtime_on_x86_has_it_and_others_have_not(tmp_path):
    onnx.save(unit(plainly)[1], tmp_path / "in.onnx")
    given = [images()[at : at + 1] for at in range(64)]
    for target, channels in (("ort-x86", 4), ("ort-arm", 3), ("openvino", 3), ("trt", 3)):
        out = tmp_path / f"{target}.onnx"
        quantize(tmp_path / "in.onnx", out, given, target=target, settings=PLAIN, allow_random=True)
        sizes = {
            tensor.name: tensor.dims for tensor in onnx.load(out).graph.initializer if "n_a/weight_q" in tensor.name
        }
        assert [dims[1] for dims in sizes.values()] == [channels]


SHAPES = {"w": (6, 4, 1, 1), "v": (4, 6, 1, 1)}
CLIPS = {"ReLU6": (0.0, 6.0, True), "from one": (1.0, 6.0, False), "to below zero": (-2.0, -1.0, False)}


@pytest.mark.parametrize("case", CLIPS)
def test_a_clip_keeps_zeros_only_if_it_holds_zero(case):
    low, high, padded = CLIPS[case]
    scales = {"s": np.float32(0.1), "z": np.uint8(7), "ws": np.float32(0.1), "wz": np.int8(0)}
    draw = np.random.default_rng(0)
    weights = {name: draw.integers(-9, 9, shape).astype(np.int8) for name, shape in SHAPES.items()}
    made = model(
        """(float[1, 4, 4, 4] x) => (float[1, 4, 4, 4] y) {
            xq = QuantizeLinear (x, s, z) xd = DequantizeLinear (xq, s, z) wd = DequantizeLinear (w, ws, wz)
            a = Conv (xd, wd) b = Clip (a, low, high)
            bq = QuantizeLinear (b, s, z) bd = DequantizeLinear (bq, s, z) vd = DequantizeLinear (v, ws, wz)
            y = Conv (bd, vd)
        }""",
        {**scales, **weights, "low": np.float32(low), "high": np.float32(high)},
    )
    assert bool(pad_channels(ProtoGraph(made))) is padded


def test_means_become_pools_and_nothing_else_changes():
    text = (
        "(float[2, 3, 8, 8] x) => (float[2, 3] y, float[2, 3, 8] z) {{ y = ReduceMean <keepdims = {}> (x, a) z = {} }}"
    )
    both = model(text.format(0, "ReduceMean <keepdims = 0> (x, b)"), {"a": np.array([2, 3]), "b": np.array([3])})
    made = mean_to_pool.pooled(both)
    assert sorted(node.op_type for node in made.graph.node) == ["Flatten", "GlobalAveragePool", "ReduceMean"]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)}
    for ours, theirs in zip(
        session(made, optimise=False).run(None, feeds), session(both).run(None, feeds), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert mean_to_pool.pooled(unit(plainly)[1]).graph.node[0].op_type == "Conv"


def test_weights_of_zero_shift_no_channel_in_equalisation():
    """A number of channels filled up with zeros gives the others the factors that they have without."""

    def norms(extra):
        weight = np.random.default_rng(1).uniform(0.1, 2, (4, 6, 1, 1)).astype(np.float32)
        arrays = {
            "w": np.ones((6 + extra, 3, 1, 1), np.float32), "v": np.pad(weight, [(0, 0), (0, extra), (0, 0), (0, 0)]),
        }  # fmt: skip
        made = model(
            "(float[1, 3, 4, 4] x) => (float[1, 4, 4, 4] y) { a = Conv (x, w) b = Relu (a) y = Conv (b, v) }", arrays
        )
        net = ProtoGraph(made)
        (space,) = [one for one in channel_groups(net) if one.writers and one.readers]
        return cross_layer.norms(net, space, 6 + extra)

    np.testing.assert_allclose(norms(4)[:6], norms(0), rtol=1e-12)
    assert norms(4)[6:].tolist() == [1.0] * 4


def test_limits_follow_the_order_of_products():
    """Three channels: pairs cross from one pixel to the next as they are, and do not once they are padded to four."""
    peaks = np.full(3, 255.0)
    crossing = np.zeros((1, 3, 1, 2))
    crossing[0, 2, 0, 0] = crossing[0, 0, 0, 1] = 1  # third channel of a pixel, first of the next
    inside = np.zeros((1, 3, 1, 2))
    inside[0, 0, 0, 1] = inside[0, 1, 0, 1] = 1  # neighbours in the second pixel, apart in the order as it is
    alone = np.zeros((1, 3, 1, 2))
    alone[0, 0, 0, 0] = 1
    found = [
        [int(largest_integers(one, 1, peaks, fours=fours)[0]) for one in (crossing, inside, alone)]
        for fours in (False, True)
    ]
    assert found == [[63, 127, 127], [127, 63, 127]]


def test_the_input_of_a_network_of_volumes_stays(tmp_path):
    onnx.save(
        model(
            "(float[1, 3, 4, 8, 8] x) => (float[1, 4, 2, 6, 6] z) { y = Conv (x, w) z = Relu (y) }",
            {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3, 3), dtype=np.float32)},
        ),
        tmp_path / "in.onnx",
    )
    given = list(np.random.default_rng(1).standard_normal((32, 1, 3, 4, 8, 8), dtype=np.float32))
    options = {"settings": PLAIN, "allow_random": True}
    report = quantize(tmp_path / "in.onnx", tmp_path / "out.onnx", given, target="ort-x86", **options)
    assert report.quantised["Conv"] == 1
    assert all(node.op_type != "Pad" for node in onnx.load(tmp_path / "out.onnx").graph.node)


@pytest.mark.parametrize(("more", "padded"), [("", True), ("c = Conv (x, w)", False), ("c = Relu (x)", False)])
def test_an_input_is_padded_for_the_one_convolution_that_reads_it(more, padded, tmp_path):
    text = "(float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv (x, w) " + more + " }"
    net = ProtoGraph(model(text, {"w": np.ones((4, 3, 3, 3), np.float32)}))
    assert reads_rgb_input(net, net.nodes[0]) is padded
