"""ONNX's reference evaluator as an ONNX Runtime session, for operators without kernels there (float64 Conv).

It is written in Python, so it runs only small models.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

MOST_NODES, MOST_BYTES = 300, 20_000_000
TYPES = {1: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string"}
TYPES |= {9: "bool", 10: "float16", 11: "double", 12: "uint32", 13: "uint64"}


@dataclass(frozen=True)
class Value:
    """Name, type and shape of an input or output, as ONNX Runtime gives them."""

    name: str
    type: str
    shape: list[Any]


class Evaluator:
    """Runs a model like an `onnxruntime.InferenceSession`.

    Raises:
        ValueError: The model is too large.
    """

    def __init__(self, path: Path) -> None:
        from onnx.reference import ReferenceEvaluator

        if path.stat().st_size > MOST_BYTES:
            raise ValueError("too large for the reference evaluator")
        self.model = onnx.load(str(path))
        if len(self.model.graph.node) > MOST_NODES:
            raise ValueError("too many nodes for the reference evaluator")
        self.evaluator = ReferenceEvaluator(self.model)

    def get_inputs(self) -> list[Value]:
        """Return the inputs that have no default."""
        defaults = {tensor.name for tensor in self.model.graph.initializer}
        return [_value(item) for item in self.model.graph.input if item.name not in defaults]

    def get_outputs(self) -> list[Value]:
        """Return the outputs."""
        return [_value(item) for item in self.model.graph.output]

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[Any]:
        """Compute the named outputs."""
        return list(self.evaluator.run(names, feeds))


def _value(value: onnx.ValueInfoProto) -> Value:
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or None for dim in tensor.shape.dim]
    return Value(value.name, f"tensor({TYPES.get(tensor.elem_type, '?')})", shape)
