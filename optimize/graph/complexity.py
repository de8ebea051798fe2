"""The table of `runtime/common/complexity.py` for any ONNX file; weights in external files are not read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...runtime.common.complexity import Complexity, Op, summarise
from ...runtime.common.external_data import model_file
from ...runtime.common.packages import need
from ...runtime.common.sizes import settle_shape
from ...runtime.errors import ModelError
from .spec_metadata import embedded

if TYPE_CHECKING:
    import onnx

_KINDS = {
    "Conv": "conv", "ConvTranspose": "deconv", "Gemm": "linear", "MatMul": "matmul", "MaxPool": "pool",
    "AveragePool": "pool", "GlobalAveragePool": "global", "GlobalMaxPool": "global", "ReduceMean": "global",
    "BatchNormalization": "norm", "LayerNormalization": "norm", "InstanceNormalization": "norm", "Add": "add",
    "Concat": "concat", "Mul": "mul", "Dropout": "dropout",
    "Pad": "pad",
}  # fmt: skip
_ACTS = ("Relu", "Clip", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Elu", "LeakyRelu", "PRelu", "Softmax")
_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Split", "Slice", "Expand")
_KINDS |= dict.fromkeys(_ACTS, "act") | dict.fromkeys(_VIEWS, "view")

_REAL = (1, 2, 3, 10, 11, 16)  # TensorProto: FLOAT, UINT8, INT8 (quantised weights), FLOAT16, DOUBLE, BFLOAT16


def describe(path: str | Path, shape: str = "") -> Complexity:
    """Describe an ONNX file, at batch 1 if the batch is dynamic.

    Args:
        path: The file.
        shape: The shape of inputs with dynamic axes, as for `parse_sizes`; by default that of the file's spec.

    Raises:
        UsageError: There is no such file, or an input has a dynamic axis of unknown size.
        ModelError: It is not an ONNX file, or the shape of a value cannot be inferred.
    """
    onnx = need("onnx")
    path = model_file(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path} is not an ONNX file", got=type(error).__name__, do="export it again") from error
    _settle(model, shape)
    try:
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        return _Reader(model.graph, path.name).report()
    except (KeyError, IndexError, ValueError, onnx.shape_inference.InferenceError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{path} cannot be described", got=reason, do="check it with onnx.checker") from error


def _settle(model: onnx.ModelProto, shape: str) -> None:
    """Set the shape of every input, in place, and remove shapes that depend on the dynamic axes."""
    graph, constant = model.graph, {item.name for item in model.graph.initializer}
    fed = {item.name: item.type.tensor_type.shape.dim for item in graph.input if item.name not in constant}
    shapes = {name: [dim.dim_value if dim.dim_value > 0 else None for dim in dims] for name, dims in fed.items()}
    sizes = settle_shape(shapes, shape, embedded(model))
    if all(list(sizes[name]) == shapes[name] for name in fed):
        return
    for name, dims in fed.items():
        for dim, size in zip(dims, sizes[name], strict=True):
            dim.dim_value = size
    del graph.value_info[:]
    for item in graph.output:
        for dim in item.type.tensor_type.shape.dim:
            dim.Clear()


class _Reader:
    def __init__(self, graph: onnx.GraphProto, title: str) -> None:
        self.graph, self.title = graph, title
        self.tensors = tensors = [*graph.initializer, *_constants(graph)]
        self.weights = {item.name: tuple(item.dims) for item in tensors}
        # A value computed only from weights -> the stored weights, which are counted.
        self.stored = {item.name: item.name for item in tensors if item.data_type in _REAL}
        self.shapes = {
            item.name: shape
            for item in (*graph.input, *graph.value_info, *graph.output)
            if (shape := _known(item)) is not None
        }
        self.fed = {item.name: self.shapes[item.name][1:] for item in graph.input if item.name not in self.weights}
        self.counted: set[str] = set()

    def report(self) -> Complexity:
        """Record every node that computes activations."""
        known, ops = set(self.fed), []
        for node in self.graph.node:
            read = tuple(name for name in node.input if name in known)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not read:
                self.weights[node.output[0]] = self.weights.get(node.input[0], ())
                self._from(node)
                continue
            if not read:
                self._constant(node)
                continue
            known |= set(node.output)
            ops += [self._op(node, read, out) for out in node.output if out][: None if node.op_type == "Split" else 1]
        params = sum(op.params for op in ops)
        return summarise(f"{self.title}, input {' '.join(map(_x, self.fed.values()))}", ops, self.fed, params)

    def _constant(self, node: onnx.NodeProto) -> None:
        """Treat a value computed only from weights as these weights."""
        if node.output and node.op_type != "Constant":
            self.weights[node.output[0]] = self.shapes.get(node.output[0], ())
            self._from(node)

    def _from(self, node: onnx.NodeProto) -> None:
        """Record the stored weights (the largest ones) of a tensor that is computed only from weights."""
        sources = {self.stored[name] for name in node.input if name in self.stored}
        if sources:
            self.stored[node.output[0]] = max(sources, key=lambda name: math.prod(self.weights[name]))

    def _op(self, node: onnx.NodeProto, read: tuple[str, ...], output: str) -> Op:
        kind = _KINDS.get(node.op_type, node.op_type.lower())
        out = self._shape(output, node)
        weight = next((self.weights[name] for name in node.input[1:2] if name in self.weights), ())
        attributes = {item.name: item for item in node.attribute}
        facts: dict[str, Any] = {"params": self._params(node, kind), "view": kind == "view"}
        if kind in ("conv", "deconv"):
            facts |= _window(attributes, weight[2:]) | {"groups": attributes["group"].i if "group" in attributes else 1}
            places = self._shape(read[0], node) if kind == "deconv" else out
            facts["macs"] = math.prod(places[1:]) * math.prod(weight[1:])
        elif kind == "pool":
            facts |= _window(attributes, ())
        elif kind == "pad":
            facts |= self._padding(node, len(out) - 2)
        elif kind in ("linear", "matmul"):
            inner = self._shape(read[0], node)[-1]
            kind = "linear" if weight else "matmul"
            facts["macs"] = math.prod(out) * inner
        shapes = tuple(self._shape(name, node)[1:] for name in read)
        return Op(node.name or output, kind, read, output, shapes, out[1:], **facts)

    def _padding(self, node: onnx.NodeProto, dims: int) -> dict[str, Any]:
        """Record padding as a window of one pixel before the edge; nothing if it is not constant for all axes."""
        from onnx import numpy_helper

        pad_tensor = next((item for item in self.tensors if item.name in node.input[1:2]), None)
        pads = numpy_helper.to_array(pad_tensor).tolist() if pad_tensor is not None else []
        if len(pads) != 2 * dims + 4:
            return {}
        once = (1,) * dims
        return {"kernel": once, "stride": once, "pad": tuple(pads[2 : 2 + dims]), "dilation": once}

    def _params(self, node: onnx.NodeProto, kind: str) -> int:
        """Count weights at their first use; running mean and variance of batch norm are not parameters."""
        if kind in ("view", "pool", "concat", "act", "pad"):
            return 0
        names = node.input[1:3] if node.op_type == "BatchNormalization" else node.input
        names_of_weights = {self.stored[name] for name in names if self.weights.get(name) and name in self.stored}
        new_weights = names_of_weights - self.counted
        self.counted |= new_weights
        return sum(math.prod(self.weights[name]) for name in new_weights)

    def _shape(self, name: str, node: onnx.NodeProto) -> tuple[int, ...]:
        if name in self.shapes:
            return self.shapes[name]
        raise ModelError(
            f"the shape of {name!r} in {self.title} cannot be inferred",
            got=f"the output of {node.op_type} {node.name}",
            do="export it with fixed input shapes",
        )


def _constants(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Return the tensors of Constant nodes by the names of their outputs; they are weights too."""
    tensors = []
    for node in graph.node:
        value = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            tensor = type(value)()
            tensor.CopyFrom(value)
            tensor.name = node.output[0]
            tensors.append(tensor)
    return tensors


def _known(item: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """Return a shape, with a dynamic first axis as 1; None if another axis is unknown."""
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in item.type.tensor_type.shape.dim]
    sizes = [1 if at == 0 and size is None else size for at, size in enumerate(dims)]
    return None if None in sizes else tuple(sizes)  # type: ignore[arg-type]


def _window(attributes: dict[str, Any], kernel: tuple[int, ...]) -> dict[str, Any]:
    kernel = kernel or tuple(attributes["kernel_shape"].ints)

    def each(name: str, default: int) -> tuple[int, ...]:
        return tuple(attributes[name].ints) if name in attributes else (default,) * len(kernel)

    pads = each("pads", 0)[: len(kernel)]
    return {"kernel": kernel, "stride": each("strides", 1), "dilation": each("dilations", 1), "pad": pads}


def _x(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
