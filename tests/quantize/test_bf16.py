"""BF16: strongly typed graphs of opset 22, each value rounded as BF16 is, and engines that compute in it."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgesmith.optimize.calibration.ort_runs import session
from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.fp16.formats import BF16
from edgesmith.optimize.fp16.simulate import simulate_half
from edgesmith.runtime.errors import ModelError
from support.graphs import model
from support.quant_graphs import batches, small_cnn


def bf16(array):
    """Round to BF16 by another implementation than the one that is tested."""
    return np.asarray(array, np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)


@pytest.fixture
def cast(tmp_path):
    onnx.save(small_cnn(1), tmp_path / "m.onnx")
    report = to_fp16(tmp_path / "m.onnx", tmp_path / "b.onnx", batches(32, batch=1), kind=BF16)
    return tmp_path / "b.onnx", report


def test_weights_are_rounded_and_inputs_and_outputs_stay_float(cast):
    made, before = onnx.load(cast[0]), small_cnn(1)
    onnx.checker.check_model(made, full_check=True)
    assert {item.type.tensor_type.elem_type for item in (*made.graph.input, *made.graph.output)} == {1}
    assert made.opset_import[0].version == 22
    stored = {tensor.name: tensor for tensor in made.graph.initializer}
    convs = [node for node in before.graph.node if node.op_type == "Conv"]
    for name, tensor in ((tensor.name, tensor) for tensor in before.graph.initializer):
        if any(name == node.input[1] for node in convs):
            ours = numpy_helper.to_array(stored[f"{name}_bf16"])
            assert stored[f"{name}_bf16"].data_type == onnx.TensorProto.BFLOAT16
            assert np.array_equal(ours.astype(np.float32), bf16(numpy_helper.to_array(tensor)))
    report = cast[1]
    assert report.kind == "BF16"
    assert report.bytes_after < 0.75 * report.bytes_before
    # Eight bits of precision: more than FP16 loses, less than a wrong graph would.
    assert 1e-3 < max(report.relative_error.values()) < 5e-2


def test_each_value_is_rounded_where_the_graph_holds_it():
    weights = {"a": np.float32(1.2345), "b": np.float32(0.7654)}
    made = model("(float[64] x) => (float[64] y) { m = Mul (x, a) s = Add (m, b) y = Exp (s) }", weights)
    x = np.random.default_rng(0).standard_normal(64, dtype=np.float32)
    found = session(simulate_half(cast_graph(made, kind=BF16).model), optimise=True).run(None, {"x": x})[0]
    expected = bf16(np.exp(bf16(bf16(bf16(x) * bf16(weights["a"])) + bf16(weights["b"]))))
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, np.exp(x * weights["a"] + weights["b"]))


def test_values_beyond_fp16_are_no_reason_to_stay_in_float(tmp_path):
    graph = small_cnn(1)
    weight = next(tensor for tensor in graph.graph.initializer if len(tensor.dims) == 4)
    weight.CopyFrom(numpy_helper.from_array(1e6 * numpy_helper.to_array(weight), weight.name))
    onnx.save(graph, tmp_path / "m.onnx")
    kept = [
        to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", batches(32, batch=1), **options).kept
        for options in ({}, {"kind": BF16})
    ]
    assert any("65504" in reason for reason in kept[0].values())
    assert kept[1] == {}


def test_what_tensorrt_does_not_read_stays_in_float():
    made = cast_graph(model("(float[64] x) => (float[64] y) { m = Mul (x, x) y = HardSwish (m) }"), kind=BF16)
    assert made.kept == {"HardSwish1": "TensorRT reads no HardSwish in BF16"}
    assert made.half == 1


def test_an_old_opset_is_refused(tmp_path):
    made = small_cnn(1)
    made.opset_import[0].version = 17
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"is of opset 17; .*18 or later for BF16"):
        to_fp16(tmp_path / "m.onnx", tmp_path / "b.onnx", batches(32, batch=1), kind=BF16)
    assert not (tmp_path / "b.onnx").exists()


def test_an_engine_computes_in_it(cast, tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from edgesmith.runtime.engines.build import build_engine
    from edgesmith.runtime.errors import CheckFailed

    attestation = build_engine(cast[0], tmp_path / "b.engine", sm="8.6", precision="bf16").attestation
    assert set(attestation.counts) == {"bf16"}
    with pytest.raises(CheckFailed, match="do not run in FP16"):
        build_engine(cast[0], tmp_path / "h.engine", sm="8.6", precision="fp16")
