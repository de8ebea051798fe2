"""Shapes and types of every tensor, and the multiply-adds of a graph, without serialising its weights."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.numpy_helper
import onnx.shape_inference
import onnx_graphsurgeon as gs

from .graph import Graph, Shape
from .node import GraphTensor, Node
from .writer import node_proto, to_shell

# Constants up to this number of elements keep their values, because shapes may depend on them.
SMALL = 64


def infer(net: Graph) -> None:
    """Fill `net.kinds` by ONNX shape inference; if it fails, the kinds are unchanged."""
    net.inferred = True
    model, constants = to_shell(net)
    graph = model.graph
    del graph.value_info[:], graph.quantization_annotation[:]
    for constant in constants:
        shape = net.shape(constant) or ()
        if math.prod(shape) <= SMALL:
            graph.initializer.append(onnx.numpy_helper.from_array(net.array(constant), constant.name))
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(constant.name, net.dtype(constant), shape))
    for value in graph.output:  # declared shapes of outputs may be wrong; they are inferred
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    model.ir_version = max(model.ir_version, 4)
    _name_free_dimensions(graph)
    inferred = _inferred(model)
    if inferred is not None:
        net.inferences += 1
        for value in (*inferred.graph.value_info, *inferred.graph.output, *inferred.graph.input):
            net.value_types[value.name] = _of_this_inference(_kind(value), net.inferences)


def _of_this_inference(kind: tuple[int, Shape | None], number: int) -> tuple[int, Shape | None]:
    """Make the names that this inference generates different from those of earlier inferences."""
    element, shape = kind
    if shape is None:
        return kind
    return element, tuple(f"{dim} {number}" if str(dim).startswith("unk__") else dim for dim in shape)


def _name_free_dimensions(graph: onnx.GraphProto) -> None:
    """Give each unnamed dynamic axis of an input a name, so that inference can propagate it."""
    number = 0
    for value in graph.input:
        if value.type.HasField("tensor_type"):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_value <= 0 and not dim.dim_param:  # 0 and -1 are old notations of dynamic axes
                    number += 1
                    dim.dim_param = f"free dimension {number}"


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto | None:
    for data_propagation in (True, False):
        try:
            return onnx.shape_inference.infer_shapes(model, data_prop=data_propagation)
        except Exception:  # inference may raise any C++ exception; without shapes, passes refuse
            continue
    return None


def infer_one(net: Graph, node: Node) -> None:
    """Infer the unknown shapes of one node's outputs from those of its inputs."""
    if node.domain or all(_is_settled(net.shape(tensor)) for tensor in node.outputs if tensor.name):
        return
    inputs = {tensor.name: net.known(tensor) for tensor in node.inputs if tensor.name}
    if any(shape is None or not kind for kind, shape in inputs.values()):
        return
    names = {dim for _, shape in inputs.values() for dim in shape or () if isinstance(dim, str)}
    types = {name: onnx.helper.make_tensor_type_proto(kind, shape) for name, (kind, shape) in inputs.items()}
    small = [tensor for tensor in node.inputs if tensor.name and _is_small(net, tensor)]
    data = {tensor.name: onnx.numpy_helper.from_array(net.array(tensor), tensor.name) for tensor in small}
    proto = node_proto(net, node)
    try:
        schema = onnx.defs.get_schema(node.op, net.opset, "")
        output_types = onnx.shape_inference.infer_node_outputs(schema, proto, types, data)
    except Exception:  # as in `_inferred`: the shape stays unknown
        return
    for name, kind in output_types.items():
        better = _only_names(_kind(onnx.ValueInfoProto(name=name, type=kind)), names)
        old = net.value_types.get(name, (0, None))[1]
        if better[1] is not None and (old is None or _is_settled(better[1])):
            net.value_types[name] = better


def _only_names(kind: tuple[int, Shape | None], names: set[str]) -> tuple[int, Shape | None]:
    """Remove the axis names that inference generated for this node: they may mean another axis elsewhere."""
    shape = kind[1]
    if shape is None:
        return kind
    return kind[0], tuple(dim if isinstance(dim, int) or dim in names else None for dim in shape)


def _is_settled(shape: Shape | None) -> bool:
    """Return whether a shape is final: each axis is a number or a name from the model."""
    return shape is not None and not any(dim is None or str(dim).startswith("unk__") for dim in shape)


def _is_small(net: Graph, tensor: GraphTensor) -> bool:
    return isinstance(tensor, gs.Constant) and math.prod(net.shape(tensor) or ()) <= SMALL


def _kind(value: onnx.ValueInfoProto) -> tuple[int, Shape | None]:
    if value.type.WhichOneof("value") != "tensor_type":
        return 0, None
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return tensor.elem_type, None
    return tensor.elem_type, tuple(_dimension(dim) for dim in tensor.shape.dim)


def _dimension(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value)
    return dim.dim_param or None


def macs(net: Graph) -> int:
    """Return the multiply-adds of Conv, ConvTranspose, Gemm and MatMul; dynamic axes count as 1.

    What has too few inputs or axes to be one, as an operator of somebody's own may have, counts as 0.
    """
    return sum(_macs(net, node) for node in net.nodes("Conv", "ConvTranspose", "Gemm", "MatMul"))


def _macs(net: Graph, node: Node) -> int:
    if len(node.inputs) < 2 or not node.outputs:
        return 0
    output, first, second = (net.shape(tensor) for tensor in (node.outputs[0], node.inputs[0], node.inputs[1]))
    if output is None or first is None or second is None or len(first) < (2 if node.op == "Gemm" else 1):
        return 0
    if node.op == "Conv":
        return _volume(output) * _volume(second[1:])
    if node.op == "ConvTranspose":
        return _volume(first) * _volume(second[1:])
    inner = first[-2] if node.op == "Gemm" and node.attrs.get("transA") else first[-1]
    return _volume(output) * _volume([inner])


def _volume(shape: Iterable[Any]) -> int:
    return int(np.prod([dim if isinstance(dim, int) else 1 for dim in shape], dtype=np.int64))
