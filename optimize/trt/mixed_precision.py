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

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.common.external_data import model_file
from ...runtime.common.files import atomic_file
from ...runtime.errors import ModelError

if TYPE_CHECKING:
    import onnx

    from ..graph.graph_file import GraphFile

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
    import onnx

    from ..graph.graph_file import GraphFile

    source, model = (GraphFile(onnx.load(str(model_file(path, "ONNX file"))), path) for path in (float_path, int8_path))
    restore_in_graph(source, model, floats, target_path, per_tensor=per_tensor, half=half)


def restore_in_graph(
    float_graph: GraphFile, int8_graph: GraphFile, floats: Collection[str], target_path: str | Path, *,
    per_tensor: bool = False, half: bool = True,
) -> GraphFile:  # fmt: skip
    """Do what `restore_float_nodes` does for graphs in memory; return the new graph."""
    import onnx

    from ..fp16.cast_graph import cast_graph
    from ..graph.graph_file import GraphFile
    from ..graph.proto_graph import ProtoGraph
    from ..graph.protobuf import copied
    from ..quantize.qdq.zero_points_to_biases import move_zero_points_to_biases, restore_zero_points

    source, model = float_graph.model, copied(int8_graph.model)
    moved = restore_zero_points(ProtoGraph(model))
    graph = _Graph(model, source)
    for name in floats:
        if name not in graph.original or name not in graph.named:
            raise ModelError(
                f"node {name!r} is not in both {float_graph.path} and {int8_graph.path}", do="quantise that file again"
            )
        graph.restore(graph.named[name])
    for node in model.graph.node:
        if node.op_type == "Add" and node.name in graph.original:
            graph.restore(node)
    if per_tensor:
        graph.widen()
    _drop_dead(model)
    move_zero_points_to_biases(ProtoGraph(model), moved)
    mixed = cast_graph(model).model if half else model
    with atomic_file(target_path) as temporary:
        onnx.save(mixed, str(temporary))
    return GraphFile(mixed, target_path)


class _Graph:
    """The quantised graph beside the float one that it came from."""

    def __init__(self, model: onnx.ModelProto, source: onnx.ModelProto) -> None:
        self.model = model
        self.named = {node.name: node for node in model.graph.node}
        self.original = {node.name: node for node in source.graph.node}
        self.made_by = {name: node for node in model.graph.node for name in node.output}
        self.held = {tensor.name: tensor for tensor in model.graph.initializer}
        self.floats = {tensor.name: tensor for tensor in source.graph.initializer}

    def restore(self, node: onnx.NodeProto) -> None:
        """Let a node read what stands before its quantisers, and its weights in float."""
        for index, name in enumerate(node.input):
            pair = self.made_by.get(name)
            if pair is None or pair.op_type != "DequantizeLinear":
                continue
            before = self.made_by.get(pair.input[0])
            if pair.input[0] in self.held:
                self._float_weight(node, index, pair)
            elif before is not None and before.op_type == "QuantizeLinear":
                node.input[index] = before.input[0]

    def _float_weight(self, node: onnx.NodeProto, index: int, pair: Any) -> None:
        from onnx import numpy_helper

        values, step = self._dequantised(pair)
        original = self.original[node.name].input
        held = numpy_helper.to_array(self.floats[original[index]]) if original[index] in self.floats else values
        if held.shape == values.shape and bool((np.abs(held - values) <= 0.51 * step).all()):
            values = held
            if len(original) > 2 and original[2] in self.floats and len(node.input) > 2:
                node.input[2] = self._add(f"{node.name}/bias_float", numpy_helper.to_array(self.floats[original[2]]))
        node.input[index] = self._add(f"{node.name}/weight_float", values)

    def _dequantised(self, pair: Any) -> tuple[Array, Array]:
        """Return the values of quantised weights, and the step between two integers, spread over their shape."""
        from onnx import helper, numpy_helper

        integers, scale = (numpy_helper.to_array(self.held[name]) for name in pair.input[:2])
        axis = next((helper.get_attribute_value(item) for item in pair.attribute if item.name == "axis"), 1)
        step = scale.reshape([-1 if at == axis else 1 for at in range(integers.ndim)]) if scale.ndim else scale
        return np.asarray(integers * step, np.float32), np.broadcast_to(step, integers.shape)

    def _add(self, name: str, array: Array) -> str:
        from onnx import numpy_helper

        if name not in self.held:
            self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
            self.held[name] = self.model.graph.initializer[-1]
        return name

    def widen(self) -> None:
        """Requantise the weights of the convolutions that are still INT8 with one scale per tensor."""
        from onnx import numpy_helper

        for node in self.model.graph.node:
            pair = self.made_by.get(node.input[1]) if node.op_type == "Conv" else None
            if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in self.held:
                continue
            values, _ = self._dequantised(pair)
            scale = np.float32(max(float(np.abs(values).max()), 1e-20) / 127)
            integers = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
            for name, array in zip(pair.input, (integers, np.asarray(scale), np.zeros((), np.int8)), strict=True):
                self.held[name].CopyFrom(numpy_helper.from_array(np.asarray(array), name))
            kept = [item for item in pair.attribute if item.name != "axis"]
            del pair.attribute[:]
            pair.attribute.extend(kept)


def _drop_dead(model: onnx.ModelProto) -> None:
    """Remove the Q/DQ nodes that nobody reads any more, and the initializers that they leave."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | outputs
        dead = [node for node in graph.node if node.op_type in PAIRS and not read & set(node.output)]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    unread = [tensor for tensor in graph.initializer if tensor.name not in read]
    for tensor in unread:
        graph.initializer.remove(tensor)
