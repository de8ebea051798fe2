"""Small networks for the engine tests, in the three precisions that TensorRT takes."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser


class Net:
    """Collect nodes and initializers; each method returns the name of what it made."""

    def __init__(self, precision: str, seed: int = 0) -> None:
        self.precision, self.random = precision, np.random.default_rng(seed)
        self.float = np.float16 if precision == "fp16" else np.float32
        self.nodes, self.weights = [], []

    def const(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, kind, inputs, name, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def quantised(self, x, name, scale=0.05):
        if self.precision != "int8":
            return x
        pair = [self.const(f"{name}_scale", np.float32(scale)), self.const(f"{name}_zero", np.int8(0))]
        self.node("QuantizeLinear", [x, *pair], f"{name}_q")
        return self.node("DequantizeLinear", [f"{name}_q", *pair], f"{name}_dq")

    def weight(self, shape, name):
        values = self.random.normal(size=shape).astype(self.float) * self.float(0.1)
        if self.precision != "int8":
            return self.const(f"{name}_w", values)
        scale = np.float32(np.abs(values).max(axis=(1, 2, 3)) / 127)  # equal ones TensorRT would treat as one
        integers = np.round(values / scale[:, None, None, None]).astype(np.int8)
        zero = np.zeros(shape[0], np.int8)
        parts = [self.const(f"{name}_w{key}", value) for key, value in zip("qsz", (integers, scale, zero), strict=True)]
        return self.node("DequantizeLinear", parts, f"{name}_wdq", axis=0)

    def conv(self, x, channels, kernel, name, group=1, relu=True):
        into, out = channels
        inputs = [self.quantised(x, f"{name}_in"), self.weight((out, into // group, kernel, kernel), name),
                  self.const(f"{name}_b", self.random.normal(size=out).astype(self.float))]  # fmt: skip
        self.node("Conv", inputs, name, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4, group=group)
        return self.node("Relu", [name], f"{name}_relu") if relu else name


def small_net(precision="fp32", batch=1, head="Gemm") -> ModelProto:
    """Four convolutions (one depthwise, one under a residual Add), a pool and a linear layer; 3x32x32 to 10."""
    net = Net(precision)
    x = net.node("Cast", ["x"], "x_half", to=TensorProto.FLOAT16) if precision == "fp16" else "x"
    first = net.conv(x, (3, 16), 3, "stem")
    inner = net.conv(net.conv(first, (16, 16), 3, "depthwise", group=16), (16, 16), 1, "pointwise", relu=False)
    total = net.node("Add", [net.quantised(first, "residual"), inner], "sum")
    pooled = net.node("GlobalAveragePool", [net.conv(total, (16, 32), 1, "dense")], "pool")
    last = _gemm(net, pooled) if head == "Gemm" else pooled
    cast = [last] if precision != "fp16" else [net.node("Cast", [last], "as_float", to=TensorProto.FLOAT)]
    net.node("Identity", cast, "y")
    made = helper.make_tensor_value_info
    out = [batch, 10] if head == "Gemm" else [batch, 32, 1, 1]
    graph = helper.make_graph(net.nodes, "small", [made("x", TensorProto.FLOAT, [batch, 3, 32, 32])],
                              [made("y", TensorProto.FLOAT, out)], net.weights)  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _gemm(net, pooled):
    net.node("Flatten", [pooled], "flat")
    weights = [net.const(f"fc_{key}", net.random.normal(size=shape).astype(net.float))
               for key, shape in {"w": (10, 32), "b": (10,)}.items()]  # fmt: skip
    return net.node("Gemm", ["flat", *weights], "fc", transB=1)


def text_model(body, opset=17, inputs="float[1,4,8,8] x", outputs="float[1,4,8,8] y", weights="") -> ModelProto:
    """Parse a graph written as text."""
    held = f"<{weights}>" if weights else ""
    text = (
        f'<ir_version: 10, opset_import: ["" : {opset}, "custom" : 1]> g ({inputs}) => ({outputs}) {held} {{ {body} }}'
    )
    return parser.parse_model(text)


def saved(model, path):
    path.write_bytes(model.SerializeToString())
    return path
