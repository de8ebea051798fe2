"""Evaluation of one node on constants: NumPy for shape arithmetic, ONNX Runtime for other operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from ...runtime.common.ort_session import ort_session
from .graph import Graph
from .node import GraphTensor, Node

Array = np.ndarray[Any, Any]
# Operators whose result may be much larger than their inputs.
GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "Upsample", "OneHot", "EyeLike", "MatMul"}


def result_bytes(net: Graph, node: Node) -> float:
    """Return the approximate size in bytes of a node's outputs on constants; infinity if it is unknown."""
    if node.op in ("ConstantOfShape", "Expand", "Tile"):
        item = _item_bytes(net, node.outputs[0])
        sizes = net.ints(node, "shape", 0 if node.op == "ConstantOfShape" else 1)
        if sizes is None:
            return math.inf
        if node.op == "Expand":
            own = getattr(node.inputs[0], "shape", None) or ()
            pairs = zip_longest(reversed(sizes), reversed(own), fillvalue=1)
            return item * math.prod(float(max(pair)) for pair in pairs)
        return (item if node.op == "ConstantOfShape" else _bytes(net, node.inputs[0])) * math.prod(map(float, sizes))
    total = 0.0
    for tensor in node.outputs:
        shape = net.static(tensor)
        total += math.inf if shape is None else _item_bytes(net, tensor) * math.prod(shape)
    if math.isfinite(total):
        return total
    input_bytes = sum(_bytes(net, tensor) for tensor in node.inputs)
    return math.inf if node.op in GROWING else max(input_bytes, input_bytes * input_bytes / 64)


def _item_bytes(net: Graph, tensor: GraphTensor) -> float:
    kind = net.dtype(tensor)
    return float(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind)).itemsize) if kind else 8.0


def _bytes(net: Graph, tensor: GraphTensor) -> float:
    return float(tensor._values.nbytes) if hasattr(tensor, "_values") else 0.0


def node(net: Graph, node: Node) -> list[Array] | None:
    """Compute a node's outputs, or return None if they cannot be computed exactly.

    Args:
        net: The graph.
        node: A node of the standard domain whose inputs are constants (Shape, Size, CastLike: see fold_constants).
    """
    try:
        with np.errstate(all="ignore"):
            if node.op in TABLE:
                outputs = TABLE[node.op](net, node)
                return None if outputs is None else [np.asarray(array) for array in outputs]
            return _by_runtime(net, node)
    except (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError, OverflowError, MemoryError):
        return None


def _values(net: Graph, node: Node) -> list[Array | None]:
    return [net.value(tensor) if tensor.name else None for tensor in node.inputs]


def _constant(net: Graph, node: Node) -> list[Array] | None:
    for key, value in node.attrs.items():
        if key == "value":
            array = value._values if isinstance(value._values, np.ndarray) else None
            return [net.load(value._values.tensor) if array is None else array]
        if key in ("value_float", "value_floats"):
            return [np.array(value, np.float32)]
        if key in ("value_int", "value_ints"):
            return [np.array(value, np.int64)]
    return None


def _shape(net: Graph, node: Node) -> list[Array]:
    shape = net.static(node.inputs[0]) or ()
    if node.op == "Size":
        return [np.array(math.prod(shape), np.int64)]
    return [np.array(shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))], np.int64)]


def _cast(net: Graph, node: Node) -> list[Array] | None:
    kind = node.attrs.get("to") if node.op == "Cast" else net.dtype(node.inputs[1])
    kind = kind if isinstance(kind, int) else onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    array, dtype = net.value(node.inputs[0]), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind))
    if array is None or dtype.kind not in "fiub" or array.dtype.kind not in "fiub":
        return None
    if dtype.kind in "iu" and array.dtype.kind == "f":
        bounds = np.iinfo(dtype)
        if not (np.isfinite(array).all() and np.all(array >= bounds.min) and np.all(array < float(bounds.max) + 1)):
            return None
    return [array.astype(dtype)]


def _elementwise(function: Callable[..., Array]) -> Callable[[Graph, Node], list[Array] | None]:
    def compute(net: Graph, node: Node) -> list[Array] | None:
        arrays = _values(net, node)
        output = function(*arrays)
        return [output.astype(arrays[0].dtype)] if arrays[0] is not None else None

    return compute


def _divide(one: Array, other: Array) -> Array:
    if one.dtype.kind in "iu":
        if not np.all(other):
            raise ZeroDivisionError
        quotient = one // other  # rounds down; ONNX rounds towards zero
        towards_zero: Array = quotient + ((quotient * other != one) & ((one < 0) != (other < 0)))
        return towards_zero
    return one / other


def _gather(net: Graph, node: Node) -> list[Array]:
    data, indices = _values(net, node)
    return [np.take(data, indices.astype(np.int64), axis=node.attrs.get("axis", 0))]  # type: ignore[union-attr, arg-type]


def _concat(net: Graph, node: Node) -> list[Array]:
    return [np.concatenate(_values(net, node), axis=node.attrs["axis"])]  # type: ignore[arg-type]


def _unsqueeze(net: Graph, node: Node) -> list[Array] | None:
    array, axes = net.value(node.inputs[0]), net.ints(node, "axes", 1)
    return None if axes is None or array is None else [np.expand_dims(array, tuple(axes))]


def _squeeze(net: Graph, node: Node) -> list[Array] | None:
    array, axes = net.value(node.inputs[0]), net.ints(node, "axes", 1)
    return None if array is None else [np.squeeze(array, None if axes is None else tuple(axes))]


def _reshape(net: Graph, node: Node) -> list[Array] | None:
    array, wanted = net.value(node.inputs[0]), net.ints(node, "shape", 1)
    if array is None or wanted is None:
        return None
    if not node.attrs.get("allowzero", 0):
        wanted = [array.shape[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    return [array.reshape(wanted)]


def _transpose(net: Graph, node: Node) -> list[Array] | None:
    array = net.value(node.inputs[0])
    return None if array is None else [np.ascontiguousarray(array.transpose(node.attrs.get("perm")))]


def _expand(net: Graph, node: Node) -> list[Array] | None:
    array, wanted = net.value(node.inputs[0]), net.ints(node, "shape", 1)
    if array is None or wanted is None:
        return None
    return [np.broadcast_to(array, np.broadcast_shapes(array.shape, tuple(wanted))).copy()]


def _fill(net: Graph, node: Node) -> list[Array] | None:
    wanted, value = net.ints(node, "shape", 0), node.attrs.get("value")
    filler = np.zeros(1, np.float32) if value is None else np.asarray(value.values)
    # A view of one element: equal weights take no memory, for any number of elements.
    return None if wanted is None else [np.broadcast_to(filler.reshape(-1)[0], wanted)]


TABLE: dict[str, Callable[[Graph, Node], list[Array] | None]] = {
    "Constant": _constant, "Shape": _shape, "Size": _shape, "Cast": _cast, "CastLike": _cast, "Gather": _gather,
    "Concat": _concat, "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Reshape": _reshape, "Transpose": _transpose,
    "Expand": _expand, "ConstantOfShape": _fill, "Identity": lambda net, node: [net.array(node.inputs[0])],
    "Add": _elementwise(np.add), "Sub": _elementwise(np.subtract), "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divide), "Neg": _elementwise(np.negative), "Sqrt": _elementwise(np.sqrt),
    "Reciprocal": _elementwise(np.reciprocal), "Floor": _elementwise(np.floor), "Ceil": _elementwise(np.ceil),
}  # fmt: skip


def _by_runtime(net: Graph, node: Node) -> list[Array] | None:
    """Run the node alone in ONNX Runtime."""
    from .writer import node_proto

    proto = node_proto(net, node)
    arrays = {tensor.name: net.array(tensor) for tensor in node.inputs if tensor.name}
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    inits = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph([proto], "one", [], outputs, inits)
    model = onnx.helper.make_model(
        graph, opset_imports=net.skeleton.opset_import, ir_version=max(4, net.skeleton.ir_version)
    )
    try:
        values = iter(ort_session(model.SerializeToString(), threads=1).run(None, {}))
    except Exception:  # a node that it cannot run is not folded
        return None
    results = [next(values) if name else np.zeros(0) for name in proto.output]
    return results if all(isinstance(array, np.ndarray) for array in results) else None
