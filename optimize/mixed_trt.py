"""One file with INT8 and FP16 side by side: a quantised graph whose chosen nodes go back to float, cast to FP16.

Before    x ─Q─DQ─▶ Conv(DQ(w8)) ─▶ Add(DQ(Q(s)), ·)
After     x ──────▶ Conv(w16)    ─▶ Add(s, ·)              for the nodes that `placement_trt.place` leaves in float
When      The float file and the quantised file name their nodes and tensors alike, as `quantize` leaves them.
Why       Calibration runs once; each mix of one network is then a rewrite of seconds, so that real builds can judge it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runtime.errors import ModelError
from ..runtime.files import atomic_file, existing_file

if TYPE_CHECKING:
    import onnx

PAIRS = ("QuantizeLinear", "DequantizeLinear")


def mix(
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

    from .half import cast_graph

    source, model = (onnx.load(str(existing_file(path, "ONNX file"))) for path in (float_path, int8_path))
    original = {node.name: node for node in source.graph.node}
    named = {node.name: node for node in model.graph.node}
    for name in floats:
        if name not in original or name not in named:
            raise ModelError(
                f"node {name!r} is not in both {float_path} and {int8_path}", do="quantise that file again"
            )
        _restore(model, source, named[name], original[name])
    for node in model.graph.node:
        if node.op_type == "Add" and node.name in original:
            _restore(model, source, node, original[node.name])
    if per_tensor:
        _widen(model, source, original)
    _drop_dead(model)
    made = cast_graph(model).model if half else model
    with atomic_file(target_path) as temporary:
        onnx.save(made, str(temporary))


def _restore(model: onnx.ModelProto, source: onnx.ModelProto, node: Any, original: Any) -> None:
    """Give a node the inputs that it has in the float file."""
    held = {tensor.name for tensor in model.graph.initializer}
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    del node.input[:]
    node.input.extend(original.input)
    missing = [name for name in original.input if name in weights and name not in held]
    model.graph.initializer.extend(weights[name] for name in missing)


def _widen(model: onnx.ModelProto, source: onnx.ModelProto, original: dict[str, Any]) -> None:
    """Requantise the weights of the convolutions that are still INT8 with one scale per tensor."""
    from onnx import numpy_helper

    made_by = {name: node for node in model.graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    for node in model.graph.node:
        pair = made_by.get(node.input[1]) if node.op_type == "Conv" else None
        if pair is None or pair.op_type != "DequantizeLinear" or node.name not in original:
            continue
        floats = numpy_helper.to_array(weights[original[node.name].input[1]])
        scale = np.float32(max(float(np.abs(floats).max()), 1e-20) / 127)
        integers = np.clip(np.rint(floats / scale), -127, 127).astype(np.int8)
        arrays = (integers, np.asarray(scale, np.float32), np.asarray(0, np.int8))
        for name, array in zip(pair.input, arrays, strict=True):
            held[name].CopyFrom(numpy_helper.from_array(np.asarray(array), name))
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
