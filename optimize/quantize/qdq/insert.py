"""Write a plan into a graph as explicit QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from ...graph.proto_graph import ProtoGraph, sort_nodes
from ..layer_guard import LayerGuard, guarded
from ..layer_queries import as_output_first
from ..placement import QuantPlan
from ..quant_params import QuantParams
from ..targets import Target
from ..weights.quantize_weights import (
    Quantised,
    quantise,
    stored_weights,
    weight_scales,
)


def insert_qdq(
    net: ProtoGraph,
    plan: QuantPlan,
    grids: dict[str, QuantParams],
    form: Target,
    limits: dict[str, np.ndarray],
    *,
    per_tensor: bool = False,
    guard: LayerGuard | None = None,
) -> dict[str, np.ndarray]:
    """Insert the Q/DQ pairs and store weights as INT8; biases stay float.

    Args:
        net: The graph; it is changed in place and sorted.
        plan: What is quantised.
        grids: Tensor -> its grid.
        form: The target's form.
        limits: Node name -> the largest integer of each output channel's weights; absent: 127.
        per_tensor: One scale for each weight instead of one for each output channel.
        guard: Takes the layers whose weights cannot be stored; the graph is then of no use.

    Returns:
        Node name -> its float weights, output channels first.
    """
    weights = {}
    for node in plan.layers:
        with guarded(guard, node.name, "quantise its weights"):
            weights[node.name] = _weights(net, node, grids[node.input[0]], form, limits.get(node.name), per_tensor)
    for name in sorted(plan.quantized_reads):
        _activation(net, plan, name, grids[name])
    sort_nodes(net.graph)
    net.index()
    net.prune()
    return weights


def _activation(net: ProtoGraph, plan: QuantPlan, name: str, at: QuantParams) -> None:
    scale = net.add_array(f"{name}_scale", np.array(at.scale, np.float32))
    zero = net.add_array(f"{name}_zero", np.array(at.zero, at.dtype))
    readers = plan.readers(net, name)
    is_output = name in net.outputs
    if not readers and not is_output:
        return
    source = net.fresh(f"{name}_float") if is_output else name
    value = name if is_output else net.fresh(f"{name}_dq")
    if is_output:
        _rename_output(net.producer[name], name, source)
    for node in readers:
        _rename_input(node, name, value)
    integers = net.fresh(f"{name}_q")
    net.graph.node.append(helper.make_node("QuantizeLinear", [source, scale, zero], [integers], f"{name}/Q"))
    net.graph.node.append(helper.make_node("DequantizeLinear", [integers, scale, zero], [value], f"{name}/DQ"))


def _rename_input(node: NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.input):
        if name == old:
            node.input[index] = new


def _rename_output(node: NodeProto, old: str, new: str) -> None:
    for index, name in enumerate(node.output):
        if name == old:
            node.output[index] = new


def _weights(
    net: ProtoGraph, node: NodeProto, read: QuantParams, form: Target, limit: np.ndarray | None, per_tensor: bool
) -> np.ndarray:
    weight, axis = stored_weights(net, node)
    axis = None if per_tensor else axis
    bias = net.arrays.get(node.input[2]) if len(node.input) > 2 else None
    scale = weight_scales(weight, axis, form, limit, bias, read.scale)
    node.input[1] = _dequantise(net, f"{node.name}/weight", quantise(weight, scale, axis))
    return as_output_first(node, weight)


def integer_biases(net: ProtoGraph, plan: QuantPlan) -> None:
    """Turn the float biases of quantised layers into INT32 ones with the scale s_x s_w, zero point 0.

    The last step: it reads the scales that stand in the graph, and rounds by at most half of the smallest product.
    """
    names = {node.name for node in plan.layers}
    for node in [item for item in net.nodes if item.name in names]:
        if len(node.input) < 3 or not node.input[2]:
            continue
        bias = net.arrays[node.input[2]]
        product = _scale(net, node.input[0]) * _scale(net, node.input[1])
        integers = np.clip(np.rint(bias / product), -(2.0**31) + 1, 2.0**31 - 1).astype(np.int32)
        product = np.broadcast_to(product, bias.shape).astype(np.float32)
        node.input[2] = _dequantise(net, f"{node.name}/bias", Quantised(integers, product, 0))
    sort_nodes(net.graph)
    net.index()
    net.prune()


def _scale(net: ProtoGraph, name: str) -> np.ndarray:
    """Return the scale of the DequantizeLinear that makes a tensor, in float64."""
    return net.arrays[net.producer[name].input[1]].astype(np.float64)


def _dequantise(net: ProtoGraph, name: str, packed: Quantised) -> str:
    """Add a DequantizeLinear; one scale is a scalar, as TensorRT runs a layer with scales of shape (1,) in float."""
    if packed.scale.size == 1:
        packed = Quantised(packed.integers, packed.scale.reshape(()), None)
    integers = net.add_array(f"{name}_q", packed.integers)
    scale = net.add_array(f"{name}_scale", packed.scale)
    zero = net.add_array(f"{name}_zero", np.zeros(packed.scale.shape, packed.integers.dtype))
    value = net.fresh(f"{name}_dq")
    node = helper.make_node("DequantizeLinear", [integers, scale, zero], [value], f"{name}/DQ")
    if packed.axis is not None:
        node.attribute.append(helper.make_attribute("axis", packed.axis))
    net.graph.node.append(node)
    return value
