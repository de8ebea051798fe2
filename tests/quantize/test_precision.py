"""FP16 files are valid, keep their inputs and outputs, name what stays float, and compute the same."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime.errors import CheckFailed, DataError
from support.quant_graphs import Graph, batches, images, run, small_cnn


def kinds(model):
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def test_inputs_and_outputs_stay_float_and_weights_become_half(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    report = to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32))
    half = onnx.load(tmp_path / "h.onnx")
    onnx.checker.check_model(half, full_check=True)
    assert [item.type.tensor_type.elem_type for item in (*half.graph.input, *half.graph.output)] == [
        TensorProto.FLOAT
    ] * 2
    assert set(kinds(half).values()) == {TensorProto.FLOAT16, TensorProto.INT64}
    assert (report.casts, report.kept, report.half) == (2, {}, len(small_cnn().graph.node))
    assert report.bytes_after < 0.6 * report.bytes_before
    assert report.relative_error["output"] < 2e-3
    fresh = images(16, seed=3)
    reference, value = run(tmp_path / "m.onnx", fresh), run(tmp_path / "h.onnx", fresh, optimise=True)
    assert value.dtype == np.float32
    assert np.abs(value - reference).max() < 4e-3 * np.abs(reference).max()
    assert not np.array_equal(value, reference)


def loud(factor):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Mul", ["c0", graph.array("up", factor)], "m0")
    graph.node("Mul", ["m0", graph.array("down", 1 / factor)], "m1")
    graph.conv("m1", "output", (4, 4, 1, 1))
    return graph.model({"output": ["N", 4, 16, 16]})


@pytest.mark.parametrize(("factor", "named"), [(6e4, {"n_m0", "n_m1"}), (1e6, {"n_m0", "n_m1"}), (10.0, set())])
def test_values_beyond_half_stay_float_and_are_named(factor, named, tmp_path):
    onnx.save(loud(factor), tmp_path / "m.onnx")
    report = to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32))
    assert set(report.kept) == named
    assert all("beyond 65504" in reason for reason in report.kept.values())
    assert report.relative_error["output"] < 2e-3
    assert report.casts == (4 if named else 2)


def test_values_below_half_stay_float_and_are_named(tmp_path):
    """1e-6 has four bits in FP16, and an epsilon of 1e-12 none."""
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Mul", ["c0", graph.array("down", 1e-7)], "m0")
    graph.node("Mul", ["m0", graph.array("up", 1e4)], "m1")
    graph.node("Mul", ["m1", "m1"], "square")
    graph.node("Add", ["square", graph.array("eps", 1e-12)], "a0")
    graph.node("Sqrt", ["a0"], "s0")
    graph.node("Mul", ["s0", graph.array("more", 100.0)], "output")
    onnx.save(graph.model({"output": ["N", 4, 16, 16]}), tmp_path / "m.onnx")
    report = to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32))
    assert {"n_m0", "n_m1", "n_a0"} <= set(report.kept)
    assert any("below FP16's 6.1e-5" in reason for reason in report.kept.values())
    assert report.relative_error["output"] < 2e-3


def test_a_tiny_bias_keeps_no_convolution_in_float(tmp_path):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    model = graph.model({"c0": ["N", 4, 16, 16]})
    bias = next(item for item in model.graph.initializer if item.name == "c0_b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 1e-6, np.float32), "c0_b"))
    onnx.save(model, tmp_path / "m.onnx")
    assert to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32)).kept == {}


def test_the_scales_of_a_resize_stay_float(tmp_path):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Resize", ["c0", "", graph.array("scales", [1, 1, 2, 2])], "output", mode="nearest")
    onnx.save(graph.model({"output": ["N", 4, 32, 32]}), tmp_path / "m.onnx")
    to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32))
    half = onnx.load(tmp_path / "h.onnx")
    assert kinds(half)["scales"] == TensorProto.FLOAT
    assert run(half, images(2)).shape == (2, 4, 32, 32)


def test_infinite_bounds_of_a_clip_are_narrowed_to_half(tmp_path):
    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    graph.node("Clip", ["c0", graph.array("low", 0.0), graph.array("high", 3.4e38)], "output")
    onnx.save(graph.model({"output": ["N", 4, 16, 16]}), tmp_path / "m.onnx")
    assert to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32)).kept == {}


def test_what_the_body_of_an_if_reads_stays_float():
    def branch(name, op):
        made = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["c0"], [f"{name}_out"])], name, [], [made])

    graph = Graph()
    graph.conv("input", "c0", (4, 3, 3, 3))
    condition = graph.array("yes", True, np.bool_)
    graph.node("If", [condition], "i0", then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg"))
    graph.conv("i0", "output", (4, 4, 1, 1))
    model = graph.model({"output": ["N", 4, 16, 16]})
    result = cast_graph(model)
    onnx.checker.check_model(result.model, full_check=True)
    assert set(result.kept) == {"n_c0", "n_i0"}
    fresh = images(2)
    assert np.allclose(run(result.model, fresh), run(model, fresh), atol=0.02)


def test_a_half_graph_that_answers_nan_is_refused(tmp_path):
    """A constant of which one value vanishes in FP16 and the others do not: 0 / 0."""
    graph = Graph()
    graph.array("scales", np.reshape([1, 1, 1e-9], (3, 1, 1)))
    graph.node("Mul", ["input", "scales"], "m0")
    graph.node("Div", ["m0", "scales"], "output")
    onnx.save(graph.model({"output": ["N", 3, 16, 16]}), tmp_path / "m.onnx")
    with pytest.raises(CheckFailed, match="output 'output' is NaN or infinite in FP16"):
        to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32))
    assert not (tmp_path / "h.onnx").exists()


def test_samples_are_needed(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    with pytest.raises(DataError, match="no samples to measure FP16 on"):
        to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", [])


def test_a_quantised_graph_becomes_half_around_its_integers(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches())
    half = cast_graph(onnx.load(tmp_path / "q.onnx")).model
    onnx.checker.check_model(half, full_check=True)
    assert set(kinds(half).values()) == {TensorProto.FLOAT16, TensorProto.INT8, TensorProto.INT64}
    fresh = images(16, seed=4)
    reference = run(tmp_path / "m.onnx", fresh)
    assert np.abs(run(half, fresh) - reference).max() < 0.1 * np.abs(reference).max()
