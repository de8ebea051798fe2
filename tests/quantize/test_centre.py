"""Zero points moved into biases: the same function with symmetric integers, where all readers allow it, only there."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import collect
from edgesmith.optimize.graph.proto_graph import ProtoGraph, attributes
from edgesmith.optimize.graph.protobuf import copied
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.equalization.cross_layer import own_weights
from edgesmith.optimize.quantize.pipeline import convert
from edgesmith.optimize.quantize.placement import place
from edgesmith.optimize.quantize.qdq.zero_points_to_biases import (
    MOVED,
    move_zero_points_to_biases,
    restore_zero_points,
    tensors_with_zero_point,
)
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.optimize.trt.mixed_precision import restore_float_nodes
from support.quant_graphs import Graph, batches, images, relu_paths, run, small_cnn

TRT = find_target("trt-rtx")


NETWORKS = {"small": small_cnn, "relu paths": relu_paths}


def made_of(model, form=TRT, **options):
    return convert(model, form, Samples(batches(), (None, 3, 16, 16)), QuantSettings(**options))


@pytest.fixture(scope="module", params=NETWORKS)
def pair(request):
    """The float graph, what it became, and the same with its zero points put back."""
    source = NETWORKS[request.param]()
    made = made_of(source)
    back = copied(made.model)
    assert restore_zero_points(ProtoGraph(back)) == made.centred
    return source, made, back


def unrounded(model):
    """Take all rounding of activations away: what is left is the float function that the graph stands for."""
    copy = copied(model)
    net = ProtoGraph(copy)
    for quantiser in [node for node in net.nodes if node.op_type == "QuantizeLinear"]:
        for value in net.readers[quantiser.output[0]]:
            for node in net.readers[value.output[0]]:
                names = [quantiser.input[0] if name == value.output[0] else name for name in node.input]
                node.input[:] = names
    return copy


def quantisers(model):
    net = ProtoGraph(copied(model))
    return {node.name: net.arrays[node.input[2]] for node in net.nodes if node.op_type == "QuantizeLinear"}


def test_every_integer_is_symmetric_and_was_not(pair):
    _, made, back = pair
    zeros = quantisers(made.model).values()
    assert {(zero.dtype, int(zero)) for zero in zeros} == {(np.dtype(np.int8), 0)}
    found = {name: int(zero) for name, zero in quantisers(back).items() if zero}
    assert found == made.centred
    assert len(found) > 3
    assert -128 in found.values()


def test_the_float_function_is_kept(pair):
    """Without rounding both graphs compute the same: on borders too, which is where a wrong value would show."""
    _, made, back = pair
    seen = images(32, seed=2)
    assert sqnr_db(run(unrounded(back), seen), run(unrounded(made.model), seen)) > 100
    assert sqnr_db(run(back, seen), run(made.model, seen)) > 60


@pytest.mark.parametrize("spoilt", ["pad", "bias", "bound", "offset"])
def test_a_wrong_correction_is_seen(spoilt):
    """The comparison above rejects one border, one bias, one bound and one sum that was not moved along."""
    model = made_of(relu_paths()).model
    reference, net = run(unrounded(model), images(32, seed=2)), ProtoGraph(copied(model))
    tensors_with_zero_point = {"pad": ("Pad", 2), "bias": ("Conv", 2), "bound": ("Clip", 1), "offset": ("Add", 1)}
    wanted, at = tensors_with_zero_point[spoilt]
    nodes = [node for node in net.nodes if node.op_type == wanted and node.input[at] in net.arrays]
    name = nodes[1 if spoilt == "bias" else 0].input[at]
    net.set_array(name, net.arrays[name] + np.float32(0.05))
    assert sqnr_db(reference, run(unrounded(net.model), images(32, seed=2))) < 60


def test_going_there_and_back_changes_nothing(pair):
    _, made, back = pair
    again = copied(back)
    assert move_zero_points_to_biases(ProtoGraph(again)) == made.centred
    assert [node.op_type for node in again.graph.node] == [node.op_type for node in made.model.graph.node]
    before, after = (ProtoGraph(copied(model)).arrays for model in (made.model, again))
    layers = [node.input[2] for node in made.model.graph.node if node.op_type in ("Conv", "Gemm")]
    for name in layers:
        np.testing.assert_allclose(after[name], before[name], atol=1e-5)
    assert not any(entry.key == MOVED for entry in back.metadata_props)
    assert restore_zero_points(ProtoGraph(again)) == made.centred


def chosen(model, form=TRT):
    net = ProtoGraph(copied(model))
    own_weights(net)
    plan = place(net, form)
    return set(tensors_with_zero_point(net, plan, collect(net.model, sorted(plan.quantized_reads), batches()), form))


def test_where_it_is_done():
    """Behind a Relu and HardSwish, whatever reads it; not for what has two like sides."""
    assert chosen(relu_paths()) == {"r0", "r1", "h2", "p4", "left", "right", "f0"}
    assert chosen(relu_paths(), find_target("ort-x86")) == set()


def reading(kind):
    """One Relu and something that reads its quantised value."""
    graph = Graph(1)
    graph.conv("input", "c0", (8, 3, 3, 3))
    graph.node("Relu", ["c0"], "r0")
    outputs = {"output": ["N", 8, 16, 16]}
    weight = graph.array("w", graph.draw.standard_normal((8, 8, 3, 3)) / 9)
    if kind == "plain":
        graph.node("Conv", ["r0", weight], "output", pads=[1, 1, 1, 1])
    elif kind == "padding by name":
        graph.node("Conv", ["r0", weight], "output", auto_pad="SAME_UPPER")
    elif kind == "an output":
        graph.node("Conv", ["r0", weight], "output", pads=[1, 1, 1, 1])
        outputs["r0"] = ["N", 8, 16, 16]
    elif kind == "a product of matrices":
        graph.node("MatMul", ["r0", graph.array("m", graph.draw.standard_normal((16, 16)))], "output")
    elif kind in ("pooled", "pooled, by channel"):
        graph.node("MaxPool", ["r0"], "p0", kernel_shape=[1, 1])
        groups = 8 if kind == "pooled, by channel" else 1
        held = graph.array("v", graph.draw.standard_normal((8, 8 // groups, 3, 3)) / 9)
        graph.node("Conv", ["p0", held], "output", pads=[1, 1, 1, 1], group=groups)
    elif kind == "pooled, of two layers":
        graph.conv("input", "c1", (8, 3, 3, 3))
        graph.node("Concat", ["r0", "c1"], "k0", axis=1)
        graph.node("Relu", ["k0"], "r1")
        graph.node("MaxPool", ["r1"], "p0", kernel_shape=[1, 1])
        graph.conv("p0", "output", (8, 16, 1, 1))
    return graph.model(outputs)


ALLOWED = {
    "plain": {"r0"}, "padding by name": set(), "an output": set(), "a product of matrices": set(), "pooled": set(),
    "pooled, by channel": {"p0"}, "pooled, of two layers": set(),
}  # fmt: skip


@pytest.mark.parametrize("kind", ALLOWED)
def test_only_where_all_readers_allow_it(kind):
    model = reading(kind)
    assert chosen(model) - {"input"} == ALLOWED[kind]
    made = made_of(model)
    assert sqnr_db(run(model, images(32, seed=2)), run(made.model, images(32, seed=2))) > 30


def test_a_bound_and_a_border_move_with_the_value():
    made = made_of(relu_paths())
    net = ProtoGraph(copied(made.model))
    step = float(net.arrays["r0_scale"])
    by = np.float32(step * made.centred["r0/Q"])
    clip = next(node for node in net.nodes if node.name == "n_r0")
    np.testing.assert_allclose([net.arrays[name] for name in clip.input[1:]], [by, 6 + by], rtol=1e-6)
    (pad,) = (node for node in net.nodes if node.op_type == "Pad" and node.input[0] == "r0")
    assert net.arrays[pad.input[1]].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    np.testing.assert_allclose(net.arrays[pad.input[2]], by, rtol=1e-6)
    relu = next(node for node in net.nodes if node.name == "n_r1")
    assert (relu.op_type, len(relu.input)) == ("Clip", 2)
    for node in net.nodes:
        if node.op_type == "Conv" and node.name in ("n_c1", "n_c2", "n_c4"):
            assert not any(attributes(node)["pads"])


def test_readers_that_pad_differently_have_quantisers_of_their_own():
    made = made_of(relu_paths())
    net = ProtoGraph(copied(made.model))
    behind = {}
    for name in ("n_c1", "n_c2", "n_c3", "n_a1"):
        node = next(node for node in net.nodes if node.name == name)
        value = net.producer[node.input[0]]
        quantiser = net.producer[value.input[0]]
        maker = net.producer[quantiser.input[0]]
        behind[name] = quantiser.name, maker.op_type
    assert behind == {
        "n_c1": ("r0/Q/1", "Pad"), "n_a1": ("r0/Q", "Clip"), "n_c2": ("r1/Q/1", "Pad"), "n_c3": ("r1/Q", "Clip"),
    }  # fmt: skip


def test_an_addition_stands_where_no_layer_alone_decides():
    made = made_of(relu_paths())
    offsets = {node.name.removesuffix("/Q/offset") for node in made.model.graph.node if node.name.endswith("/offset")}
    assert {name.removesuffix("_even") for name in offsets} == {"h2", "left", "right", "f0"}


def test_the_form_for_every_tensorrt_has_neither_pads_nor_additions():
    """It moves what costs no node: no reader pads, and layers alone write the tensor."""
    everything, some = made_of(relu_paths()).centred, made_of(relu_paths(), find_target("trt")).centred
    assert set(some) == {"p4/Q"} < set(everything)
    plain = made_of(relu_paths(), dataclasses.replace(TRT, zero_points_in_biases=False)).model
    before, after = (Counter(node.op_type for node in made.graph.node)
                     for made in (plain, made_of(relu_paths(), find_target("trt")).model))  # fmt: skip
    assert after["Relu"] + after["Clip"] == before["Relu"] + before["Clip"]
    assert {name: count for name, count in after.items() if name not in ("Relu", "Clip")} == {
        name: count for name, count in before.items() if name not in ("Relu", "Clip")
    }


def test_it_keeps_more(tmp_path):
    model, fresh = relu_paths(), images(128, seed=5)
    reference = run(model, fresh)
    kept = [sqnr_db(reference, run(made_of(model, form).model, fresh))
            for form in (dataclasses.replace(TRT, zero_points_in_biases=False), TRT)]  # fmt: skip
    assert kept[1] > kept[0] + 2
    onnx.save(model, tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), settings=QuantSettings.quick())
    assert any(quantisers(onnx.load(tmp_path / "q.onnx")))
    assert not any(quantisers(onnx.load(tmp_path / "q.onnx")).values())


def test_a_foreign_file_is_left_alone():
    """Nothing was moved in a file that does not say so, and then nothing moves."""
    model = made_of(small_cnn(), find_target("ort-arm")).model
    before = model.SerializeToString()
    net = ProtoGraph(model)
    assert restore_zero_points(net) == {}
    assert move_zero_points_to_biases(net, {}) == {}
    assert model.SerializeToString() == before


def test_constants_are_not_shared_by_accident():
    """A bias that two layers read is moved for one of them only."""
    graph = Graph(2)
    graph.conv("input", "c0", (8, 3, 1, 1))
    graph.node("Relu", ["c0"], "r0")
    first = graph.array("w1", graph.draw.standard_normal((8, 8, 1, 1)) / 3)
    second = graph.array("w2", graph.draw.standard_normal((8, 8, 1, 1)) / 3)
    bias = graph.array("b", graph.draw.standard_normal(8))
    graph.node("Conv", ["r0", first, bias], "c1")
    graph.node("Conv", ["c1", second, bias], "output")
    model = graph.model({"output": ["N", 8, 16, 16]})
    made = made_of(model, equalize=None)
    assert "r0/Q" in made.centred
    assert sqnr_db(run(model, images(16)), run(made.model, images(16))) > 30


@pytest.mark.parametrize("floats", [["n_c0", "n_c4", "n_c7"], None])
def test_a_mix_puts_them_back_where_layers_are_in_float(floats, tmp_path):
    """All layers in float are the float network again, with no padding outside; some are INT8 beside float."""
    model, fresh = relu_paths(), images(64, seed=6)
    onnx.save(model, tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="trt-rtx")
    everything = [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    restore_float_nodes(tmp_path / "m.onnx", tmp_path / "q.onnx", floats or everything, tmp_path / "x.onnx", half=False)
    mixed = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(mixed, full_check=True)
    assert not any(quantisers(mixed).values())
    counts = Counter(node.op_type for node in mixed.graph.node)
    assert (counts["Pad"] > 0) is (counts["QuantizeLinear"] > 0) is (floats is not None)
    assert sqnr_db(run(model, fresh), run(mixed, fresh)) > 30
