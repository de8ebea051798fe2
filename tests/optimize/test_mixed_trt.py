"""Mixing INT8 and float: nodes go back to exactly what they were, and only those."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edgesmith.optimize.trt.mixed_precision import restore_float_nodes
from edgesmith.runtime.errors import ModelError, UsageError
from support.engine_graphs import saved, small_net

POWERS = {"depthwise_ws": 1, "depthwise_b": 1, "pointwise_in_scale": 1, "pointwise_ws": -1}
WEIGHTED = ["stem", "depthwise", "pointwise", "dense"]


@pytest.fixture
def pair(tmp_path):
    return [saved(small_net(kind), tmp_path / f"{kind}.onnx") for kind in ("fp32", "int8")]


def run(path):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(5).normal(size=(1, 3, 32, 32)).astype(np.float32)})[0]


def kinds(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def test_all_back_in_float_is_the_float_file(pair, tmp_path):
    restore_float_nodes(*pair, WEIGHTED, tmp_path / "m.onnx", half=False)
    assert "QuantizeLinear" not in kinds(tmp_path / "m.onnx")
    np.testing.assert_array_equal(run(tmp_path / "m.onnx"), run(pair[0]))
    assert len(onnx.load(tmp_path / "m.onnx").graph.initializer) == len(onnx.load(pair[0]).graph.initializer)


def test_none_back_in_float_keeps_every_convolution(pair, tmp_path):
    restore_float_nodes(*pair, [], tmp_path / "m.onnx", half=False)
    assert kinds(tmp_path / "m.onnx").count("QuantizeLinear") == 4
    assert not np.array_equal(run(tmp_path / "m.onnx"), run(pair[0]))


def equalised(path, target, factor=4.0):
    """Scale what `depthwise` makes up and what `pointwise` reads down, as equalisation does: the same function."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if power := POWERS.get(tensor.name, 0):
            array = numpy_helper.to_array(tensor) * np.float32(factor) ** power
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return saved(model, target)


def test_a_float_layer_fits_its_equalised_neighbours(pair, tmp_path):
    scaled = equalised(pair[1], tmp_path / "e.onnx")
    np.testing.assert_allclose(run(scaled), run(pair[1]), atol=1e-4)
    expected = run(pair[0])
    for floats in (["depthwise"], ["pointwise"], WEIGHTED):
        restore_float_nodes(pair[0], scaled, floats, tmp_path / "m.onnx", half=False)
        assert np.abs(run(tmp_path / "m.onnx") - expected).max() < 0.1 * np.abs(expected).max()


def test_only_the_named_go_back(pair, tmp_path):
    restore_float_nodes(*pair, ["stem", "dense"], tmp_path / "m.onnx", half=False)
    graph = onnx.load(tmp_path / "m.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    found = {node.name: [made_by.get(name) for name in node.input[:2]] for node in graph.node if node.op_type == "Conv"}
    assert {name for name, makers in found.items() if makers == ["DequantizeLinear"] * 2} == {"depthwise", "pointwise"}
    assert {name for name, makers in found.items() if "DequantizeLinear" not in makers} == {"stem", "dense"}


def test_one_scale_per_tensor(pair, tmp_path):
    restore_float_nodes(*pair, ["stem"], tmp_path / "m.onnx", half=False, per_tensor=True)
    model = onnx.load(tmp_path / "m.onnx")
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in held]
    assert len(weights) == 3
    assert all(held[node.input[1]].shape == () and not node.attribute for node in weights)
    source = {t.name: numpy_helper.to_array(t) for t in onnx.load(pair[0]).graph.initializer}
    for node, name in zip(weights, WEIGHTED[1:], strict=True):
        restored = held[node.input[0]] * held[node.input[1]]
        np.testing.assert_allclose(restored, source[f"{name}_w"], atol=float(held[node.input[1]]) * 1.01)


def test_the_rest_is_fp16_with_float32_ends(pair, tmp_path):
    restore_float_nodes(*pair, ["depthwise"], tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    held = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    depthwise = next(node for node in model.graph.node if node.name == "depthwise")
    assert held[depthwise.input[1]] == onnx.TensorProto.FLOAT16
    assert {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)} == {1}


def test_wrong_use(pair, tmp_path):
    with pytest.raises(ModelError, match="node 'none' is not in both"):
        restore_float_nodes(*pair, ["none"], tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="no such file"):
        restore_float_nodes(tmp_path / "gone.onnx", pair[1], [], tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
