"""ONNX operators in torch: what convolutional networks use, in any opset.

Each entry of the tables takes a node's attributes and gives a function of its inputs. Shapes that an operator reads
from a tensor are read when it runs, on the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ModelError
from ..packages import need
from . import _torch_layers, _torch_shapes
from ._torch_common import Attributes, Function

TABLE = _torch_layers.TABLE | _torch_shapes.TABLE


def tensor(array: Any, device: str) -> Any:
    """Return a constant: shapes and axes (int64) stay on the host, where they are read."""
    torch = need("torch")
    return torch.from_numpy(np.array(array)).to("cpu" if array.dtype == np.int64 else device)


def step(onnx: Any, node: Any, opset: int, device: str) -> tuple[Function, list[str], list[str], str]:
    """Return what a node computes, the names it reads and writes, and how to call it in an error.

    Raises:
        ModelError: The operator is not known here.
    """
    where = f"{node.op_type} {node.name or node.output[0]}"
    known = node.domain in ("", "ai.onnx") and node.op_type in (*TABLE, "Constant")
    if not known:
        domain = f" of {node.domain}" if node.domain else ""
        raise ModelError(f"the torch backend has no {node.op_type}{domain}", got=where, do="use the backend ort")
    attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    if node.op_type == "Constant":
        made = tensor(_constant(onnx, attributes), device)
        return lambda: made, [], list(node.output), where
    attributes |= {"opset": opset, "outputs": len(node.output)}
    return TABLE[node.op_type](attributes), list(node.input), list(node.output), where


def _constant(onnx: Any, attributes: Attributes) -> Any:
    ((name, value),) = attributes.items()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    return onnx.numpy_helper.to_array(value) if name == "value" else np.asarray(value, kinds[name])
