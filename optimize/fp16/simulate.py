"""A half graph computed in float, with every half value rounded where the graph holds it: what FP16 hardware answers.

ONNX Runtime has no FP16 kernels for most operators on a CPU: it computes in float, and leaves out the Casts that it put
in itself, so that activations keep all their digits there. The graph made here rounds each of them by Casts of its own,
which it keeps. Sums are in float, as on tensor cores; what a GPU fuses, it rounds less often.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..graph.proto_graph import tensor_types
from ..graph.protobuf import copied

HALF, FLOAT = (TensorProto.FLOAT16, TensorProto.BFLOAT16), TensorProto.FLOAT
# Operators that change no value, and those that stand for what they say. A Transpose would be one too, but ONNX Runtime
# 1.31 crashes as it opens a graph with a Transpose, a Cast and a MatMul one behind the other.
EXACT = frozenset(
    {"Cast", "Concat", "Constant", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Unsqueeze"}
)


def simulate_half(model: onnx.ModelProto, kinds: Mapping[str, int] | None = None) -> onnx.ModelProto:
    """Return a graph of the same inputs and outputs, in float, that rounds what `model` holds in FP16 or BF16.

    Args:
        model: A graph whose types are inferable, half ones among them.
        kinds: The data type of each tensor, where they are known (`CastResult.kinds`).
    """
    copy = copied(model)
    graph = copy.graph
    if kinds is None:
        kinds = {item.name: item.type.tensor_type.elem_type for item in tensor_types(model)}
    kinds = {**kinds} | {tensor.name: tensor.data_type for tensor in graph.initializer}
    outputs = {item.name for item in graph.output}
    half = {name: kind for name, kind in kinds.items() if kind in HALF and name not in outputs}
    nodes: list[NodeProto] = []
    wide: dict[str, str] = {}
    for node in graph.node:
        if node.op_type not in EXACT and half.keys() & {*node.input, *node.output}:
            nodes += [*_widened(node, half, wide), *_narrowed(node, half)]
        else:
            nodes.append(node)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return copy


def _widened(node: NodeProto, half: dict[str, int], wide: dict[str, str]) -> list[NodeProto]:
    """Return a node that reads floats, behind the Casts that it needs and nobody has made yet."""
    casts = []
    for index, name in enumerate(node.input):
        if name not in half:
            continue
        if name not in wide:
            wide[name] = f"{name}/wide"
            casts.append(helper.make_node("Cast", [name], [wide[name]], f"{name}/wide", to=FLOAT))
        node.input[index] = wide[name]
    for item in node.attribute:
        if item.type == onnx.AttributeProto.TENSOR and item.t.data_type in HALF:
            value = numpy_helper.to_array(item.t).astype("float32")
            item.t.CopyFrom(numpy_helper.from_array(value, item.t.name))
    return [*casts, node]


def _narrowed(node: NodeProto, half: dict[str, int]) -> list[NodeProto]:
    """Let a node write floats under other names; return the Casts that round these."""
    casts = []
    for index, name in enumerate(node.output):
        if name in half:
            node.output[index] = f"{name}/exact"
            casts.append(helper.make_node("Cast", [f"{name}/exact"], [name], f"{name}/rounded", to=half[name]))
    return casts
