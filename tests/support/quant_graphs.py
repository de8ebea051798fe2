"""Small float graphs and smooth images for the tests of quantisation and FP16."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def images(count=64, seed=0, size=16):
    """Return smooth fields, float32 (count, 3, size, size): neighbouring pixels alike, as in photographs."""
    draw = np.random.default_rng(seed)
    coarse = draw.standard_normal((count, 3, size // 4, size // 4), dtype=np.float32)
    return np.ascontiguousarray(coarse.repeat(4, 2).repeat(4, 3))


def batches(count=64, size=16, batch=16):
    field = images(count, size=size)
    return [field[at : at + batch] for at in range(0, count, batch)]


class Graph:
    """Write a graph node by node; weights are drawn from one seed, scaled to keep the variance."""

    def __init__(self, seed=0):
        self.draw = np.random.default_rng(seed)
        self.nodes, self.arrays = [], []

    def array(self, name, value, dtype=np.float32):
        self.arrays.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op, inputs, output, **attributes):
        outputs = [output] if isinstance(output, str) else output
        self.nodes.append(helper.make_node(op, inputs, outputs, f"n_{outputs[0]}", **attributes))
        return output

    def conv(self, source, output, shape, group=1, stride=1):
        weight = self.draw.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        names = [
            source,
            self.array(f"{output}_w", weight),
            self.array(f"{output}_b", self.draw.normal(0, 0.1, shape[0])),
        ]
        pad = [shape[2] // 2] * 4
        return self.node("Conv", names, output, group=group, strides=[stride] * 2, pads=pad)

    def relu6(self, source, output):
        return self.node("Clip", [source, "zero", "six"], output)

    def classifier(self, source, channels):
        """Global pooling and a layer for ten classes, as the output."""
        self.node("GlobalAveragePool", [source], "g0")
        self.node("Flatten", ["g0"], "f0")
        weight = self.array("fc_w", self.draw.standard_normal((10, channels)) / 4)
        self.node("Gemm", ["f0", weight, self.array("fc_b", self.draw.normal(0, 0.1, 10))], "output", transB=1)

    def model(self, outputs, shape=("N", 3, 16, 16), opset=18, metadata=None):
        given = helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)
        made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()]
        graph = helper.make_graph(self.nodes, "small", [given], made, self.arrays)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        helper.set_model_props(model, metadata or {})
        onnx.checker.check_model(model, full_check=True)
        return model


def small_cnn(batch="N", opset=18, metadata=None):
    """Stem, pooling, a depthwise residual block with ReLU6, a shuffled concatenation, global pooling, a classifier."""
    graph = Graph()
    graph.array("zero", 0.0), graph.array("six", 6.0)
    graph.conv("input", "c0", (16, 3, 3, 3), stride=2)
    graph.node("Relu", ["c0"], "r0")
    graph.node("MaxPool", ["r0"], "p0", kernel_shape=[2, 2], strides=[2, 2])
    graph.conv("p0", "c1", (24, 16, 1, 1))
    graph.relu6("c1", "r1")
    graph.conv("r1", "c2", (24, 1, 3, 3), group=24)
    graph.relu6("c2", "r2")
    graph.conv("r2", "c3", (16, 24, 1, 1))
    graph.node("Add", ["p0", "c3"], "a0")
    graph.conv("a0", "c4", (16, 16, 3, 3))
    graph.node("Relu", ["c4"], "r4")
    graph.node("Concat", ["a0", "r4"], "k0", axis=1)
    graph.node("Reshape", ["k0", graph.array("split", [0, 2, 16, 4, 4], np.int64)], "s0")
    graph.node("Transpose", ["s0"], "s1", perm=[0, 2, 1, 3, 4])
    graph.node("Reshape", ["s1", graph.array("join", [0, 32, 4, 4], np.int64)], "s2")
    graph.conv("s2", "c5", (32, 32, 1, 1))
    graph.node("Relu", ["c5"], "r5")
    graph.classifier("r5", 32)
    return graph.model({"output": [batch, 10]}, (batch, 3, 16, 16), opset, metadata)


def relu_paths(batch="N"):
    """Relus whose values a 3x3, a 1x1 and an addition read, a pool between, a gate, a linear layer."""
    graph = Graph(7)
    graph.array("zero", 0.0), graph.array("six", 6.0)
    graph.conv("input", "c0", (8, 3, 3, 3))
    graph.relu6("c0", "r0")
    graph.conv("r0", "c1", (8, 8, 3, 3))
    graph.node("Add", ["r0", "c1"], "a1")
    graph.node("Relu", ["a1"], "r1")
    graph.conv("r1", "c2", (8, 8, 3, 3), stride=2)
    graph.conv("r1", "c3", (8, 8, 1, 1), stride=2)
    graph.node("Add", ["c2", "c3"], "a2")
    graph.node("HardSwish", ["a2"], "h2")
    graph.conv("h2", "c4", (8, 1, 5, 5), group=8)
    graph.node("Relu", ["c4"], "r4")
    graph.node("AveragePool", ["r4"], "p4", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph.conv("p4", "c5", (12, 8, 1, 1))
    graph.node("Relu", ["c5"], "r5")
    graph.node("Split", ["r5"], ["left", "right"], axis=1, num_outputs=2)
    graph.conv("left", "c6", (6, 6, 3, 3))
    graph.conv("right", "c7", (6, 6, 1, 1))
    graph.node("Concat", ["c6", "c7"], "k0", axis=1)
    graph.node("GlobalAveragePool", ["k0"], "g0")
    graph.node("Relu", ["g0"], "r8")
    graph.node("Flatten", ["r8"], "f0")
    weight = graph.array("fc_w", graph.draw.standard_normal((10, 12)) / 4)
    graph.node("Gemm", ["f0", weight, graph.array("fc_b", graph.draw.normal(0, 0.1, 10))], "output", transB=1)
    return graph.model({"output": [batch, 10]}, (batch, 3, 16, 16))


def run(model, values, optimise=False):
    """Run a model (or file) in ONNX Runtime and return its first output."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: values})[0]
