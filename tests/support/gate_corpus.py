"""Networks with a known slowdown: a chain of equal convolutions, and the same with some more of them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def chain(path, layers, *, channels=32, size=28, seed=0):
    """Write `layers` equal 1x1 convolutions with ReLU, (1, channels, size, size) in and out, all finite and normal."""
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((channels, channels, 1, 1)) * np.sqrt(2 / channels)).astype(np.float32)
    nodes, value = [], "input"
    for index in range(layers):
        nodes.append(helper.make_node("Conv", [value, "w"], [f"c{index}"], kernel_shape=[1, 1]))
        value = "output" if index == layers - 1 else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"c{index}"], [value]))
    shape = [1, channels, size, size]
    graph = helper.make_graph(
        nodes, "chain",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
