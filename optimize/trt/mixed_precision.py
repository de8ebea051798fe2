"""Mixed INT8 and FP16: restore selected nodes of a quantised graph to float and cast the remainder to FP16.

Before    x ─Q─DQ─▶ Conv(DQ(w8)) ─▶ Add(DQ(Q(s)), ·)
After     x ──────▶ Conv(w16)    ─▶ Add(s, ·)              for the nodes that `int8_placement` keeps in float
When      The float file and the quantised file have the same node names, as from `quantize`.
Why       Calibration runs once; each mix of a network is then a rewrite that takes seconds, and real builds compare
          them.

A restored node gets the float file's weights if the integers are their rounding. If quantisation changed the weights
(cross-layer equalization scales one layer up and the next one down), it gets the dequantised integers, so that the
layers still match. Zero points in biases are restored first, and folded again for the remaining INT8
(`zero_points_to_biases`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from ...runtime.common.external_data import model_file
from ...runtime.common.files import atomic_file
from ...runtime.errors import ModelError
from ..fp16.cast_graph import cast_graph
from ..graph.graph_file import GraphFile
from ..graph.proto_graph import ProtoGraph, attributes, constant_tensors, set_attributes
from ..graph.protobuf import copied
from ..quantize.qdq.zero_points_to_biases import move_zero_points_to_biases, restore_zero_points

Array = np.ndarray[Any, Any]
PAIRS = ("QuantizeLinear", "DequantizeLinear")


def restore_float_nodes(
    float_path: str | Path, int8_path: str | Path, floats: Collection[str], target_path: str | Path, *,
    per_tensor: bool = False, half: bool = True,
) -> None:  # fmt: skip
    """Write the quantised graph with some nodes restored to float, and everything except INT8 cast to FP16.

    Args:
        float_path: The float32 file that was quantised.
        int8_path: The result of `quantize(..., target="trt")`.
        floats: Names of the Conv and Gemm nodes to restore to float.
        target_path: The file, written completely or not at all.
        per_tensor: Use per-tensor scales for INT8 weights, so that TensorRT-RTX fuses bias, ReLU and residual Add.
        half: Cast the remainder to FP16; inputs and outputs stay float32.

    Raises:
        UsageError: A file does not exist.
        ModelError: The files are of different networks, or `floats` names an unknown node.
    """
    source, model = (GraphFile(onnx.load(str(model_file(path, "ONNX file"))), path) for path in (float_path, int8_path))
    restore_in_graph(source, model, floats, target_path, per_tensor=per_tensor, half=half)


def restore_in_graph(
    float_graph: GraphFile, int8_graph: GraphFile, floats: Collection[str], target_path: str | Path, *,
    per_tensor: bool = False, half: bool = True,
) -> GraphFile:  # fmt: skip
    """Like `restore_float_nodes`, for graphs in memory; return the new graph."""
    source, model = float_graph.model, copied(int8_graph.model)
    moved = restore_zero_points(ProtoGraph(model))
    net = ProtoGraph(model)
    original = {node.name: node for node in source.graph.node}
    by_name = {node.name: node for node in net.nodes}
    for name in floats:
        if name not in original or name not in by_name:
            raise ModelError(
                f"node {name!r} is not in both {float_graph.path} and {int8_graph.path}", do="quantise that file again"
            )
    constants = constant_tensors(source.graph)
    for node in [by_name[name] for name in floats] + [node for node in net.nodes if node.op_type == "Add"]:
        if node.name in original:
            _restore(net, node, original[node.name], constants)
    if per_tensor:
        _requantise_per_tensor(net)
    _drop_unread(net)
    move_zero_points_to_biases(ProtoGraph(model), moved)  # a new graph: removed names are free again
    mixed = cast_graph(model).model if half else model
    with atomic_file(target_path) as temporary:
        onnx.save(mixed, str(temporary))
    return GraphFile(mixed, target_path)


def _restore(net: ProtoGraph, node: NodeProto, original: NodeProto, constants: Mapping[str, TensorProto]) -> None:
    """Connect a node to the inputs of its quantisers and to its weights in float."""
    for index, name in enumerate(node.input):
        pair = net.producer.get(name)
        if pair is None or pair.op_type != "DequantizeLinear":
            continue
        before = net.producer.get(pair.input[0])
        if pair.input[0] in net.arrays:
            _restore_weight(net, node, index, original, constants)
        elif before is not None and before.op_type == "QuantizeLinear":
            node.input[index] = before.input[0]


def _restore_weight(
    net: ProtoGraph, node: NodeProto, index: int, original: NodeProto, constants: Mapping[str, TensorProto]
) -> None:
    values, step = _dequantised(net, net.producer[node.input[index]])
    name, bias = original.input[index], original.input[2] if len(original.input) > 2 else ""
    floats = numpy_helper.to_array(constants[name]) if name in constants else values
    if floats.shape == values.shape and bool((np.abs(floats - values) <= 0.51 * step).all()):
        values = floats
        if bias in constants and len(node.input) > 2:
            node.input[2] = net.add_array(f"{node.name}/bias_float", numpy_helper.to_array(constants[bias]))
    node.input[index] = net.add_array(f"{node.name}/weight_float", values)


def _dequantised(net: ProtoGraph, pair: NodeProto) -> tuple[Array, Array]:
    """Return the values of quantised weights, and their scale, broadcast to their shape."""
    integers, scale = (net.arrays[name] for name in pair.input[:2])
    axis = attributes(pair).get("axis", 1)
    step = scale.reshape([-1 if at == axis else 1 for at in range(integers.ndim)]) if scale.ndim else scale
    return np.asarray(integers * step, np.float32), np.broadcast_to(step, integers.shape)


def _requantise_per_tensor(net: ProtoGraph) -> None:
    """Quantise the weights of the remaining INT8 convolutions again with per-tensor scales."""
    for node in net.nodes:
        pair = net.producer.get(node.input[1]) if node.op_type == "Conv" else None
        if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in net.arrays:
            continue
        values, _ = _dequantised(net, pair)
        scale = np.float32(max(float(np.abs(values).max()), 1e-20) / 127)
        integers = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
        arrays: list[Array] = [integers, np.asarray(scale), np.zeros((), np.int8)]
        for name, array in zip(pair.input, arrays, strict=True):
            net.set_array(name, array)
        set_attributes(pair, axis=None)


def _drop_unread(net: ProtoGraph) -> None:
    """Remove unused Q/DQ nodes and their initializers."""
    net.index()
    while unread := [
        node
        for node in net.nodes
        if node.op_type in PAIRS and not any(name in net.readers or name in net.outputs for name in node.output)
    ]:
        for node in unread:
            net.graph.node.remove(node)
        net.index()
    net.prune()
