"""One file with INT8 and FP16 side by side: a quantised graph whose chosen nodes go back to float, cast to FP16.

Before    x ─Q─DQ─▶ Conv(DQ(w8)) ─▶ Add(DQ(Q(s)), ·)
After     x ──────▶ Conv(w16)    ─▶ Add(s, ·)              for the nodes that `int8_placement` leaves in float
When      The float file and the quantised file name their nodes alike, as `quantize` leaves them.
Why       Calibration runs once; each mix of one network is then a rewrite of seconds, so that real builds can judge it.

Weights go back to those of the float file where the integers are its rounding; where quantisation changed them
(equalisation scales one layer up and the next one down) the integers' own values are kept, so that layers still fit.
Zero points that stand in biases are put back first, and moved again where INT8 is left (`zero_points_to_biases`).
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
    """Write the quantised graph with some nodes back in float, everything that is not INT8 cast to FP16.

    Args:
        float_path: The float32 file that was quantised.
        int8_path: What `quantize(..., target="trt")` made of it.
        floats: Names of the Conv and Gemm nodes that go back to float.
        target_path: The file to write; whole or not there.
        per_tensor: Give the INT8 weights one scale each, which lets TensorRT-RTX fuse bias, ReLU and residual Add.
        half: Cast the rest to FP16; inputs and outputs stay float32.

    Raises:
        UsageError: A file is not there.
        ModelError: The two files are not of one network, or `floats` names a node that neither has.
    """
    source, model = (GraphFile(onnx.load(str(model_file(path, "ONNX file"))), path) for path in (float_path, int8_path))
    restore_in_graph(source, model, floats, target_path, per_tensor=per_tensor, half=half)


def restore_in_graph(
    float_graph: GraphFile, int8_graph: GraphFile, floats: Collection[str], target_path: str | Path, *,
    per_tensor: bool = False, half: bool = True,
) -> GraphFile:  # fmt: skip
    """Do what `restore_float_nodes` does for graphs in memory; return the new graph."""
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
    move_zero_points_to_biases(ProtoGraph(model), moved)  # a new one: names of what went are free again
    mixed = cast_graph(model).model if half else model
    with atomic_file(target_path) as temporary:
        onnx.save(mixed, str(temporary))
    return GraphFile(mixed, target_path)


def _restore(net: ProtoGraph, node: NodeProto, original: NodeProto, constants: Mapping[str, TensorProto]) -> None:
    """Let a node read what stands before its quantisers, and its weights in float."""
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
    """Return the values of quantised weights, and the step between two integers, spread over their shape."""
    integers, scale = (net.arrays[name] for name in pair.input[:2])
    axis = attributes(pair).get("axis", 1)
    step = scale.reshape([-1 if at == axis else 1 for at in range(integers.ndim)]) if scale.ndim else scale
    return np.asarray(integers * step, np.float32), np.broadcast_to(step, integers.shape)


def _requantise_per_tensor(net: ProtoGraph) -> None:
    """Give the weights of the convolutions that are still INT8 one scale per tensor."""
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
    """Remove the Q/DQ nodes that nobody reads any more, and the initializers that they leave."""
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
