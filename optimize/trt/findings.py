"""What a rule of the preflight asks a graph, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import numpy_helper

from ..graph.proto_graph import ProtoIndex, constant_tensors, tensor_types


@dataclass(frozen=True)
class Finding:
    """One thing found: severity "error" or "warning", a short code, the node, what it is and what to do."""

    severity: str
    code: str
    node: str
    what: str
    do: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return plain data."""
        return asdict(self)

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{where}{self.what}" + (f"; do: {self.do}" if self.do else "")


class PreflightGraph(ProtoIndex):
    """The main graph with what the rules ask of it besides: constants by name, shapes and types.

    `batches` are the sizes of a free batch that the engine has to take, `flavour` is the TensorRT that builds it.
    """

    def __init__(
        self, model: onnx.ModelProto, path: Path, types: list[Any] | None = None, batches: Sequence[int] = (1, 2),
        flavour: str = "rtx",
    ) -> None:  # fmt: skip
        super().__init__(model)
        self.path, self.constants = path, constant_tensors(model.graph)
        self.batches, self.flavour = batches, flavour
        try:
            values = tensor_types(model) if types is None else types
        except Exception:  # a graph that cannot be inferred still has its declared types
            values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        self.types = {value.name: value.type.tensor_type for value in values}

    def elem_type(self, name: str) -> int:
        """Return the TensorProto data type of a tensor, 0 where it is unknown."""
        if name in self.constants:
            return int(self.constants[name].data_type)
        return int(self.types[name].elem_type) if name in self.types else 0

    def dims(self, name: str) -> list[int | None] | None:
        """Return the shape of a tensor, None for a dynamic dimension; None where the rank is unknown."""
        if name in self.constants:
            return list(self.constants[name].dims)
        if name not in self.types or not self.types[name].HasField("shape"):
            return None
        return [
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None
            for dim in self.types[name].shape.dim
        ]

    def is_free_batch(self, name: str) -> bool:
        """Return whether the first axis of a tensor is an input's free batch: it is that input, or has its name."""
        inputs = {value.name: value.type.tensor_type.shape.dim for value in self.graph.input}
        firsts = {dims[0].dim_param for dims in inputs.values() if dims and dims[0].dim_value <= 0} - {""}
        if name in inputs or name not in self.types:
            return name in inputs and (self.dims(name) or [1])[0] is None
        dims = self.types[name].shape.dim
        return bool(dims) and dims[0].dim_param in firsts

    def value(self, name: str) -> Any:
        """Return a constant as an array; None where it is computed or its external data is not there."""
        if name not in self.constants:
            return None
        try:
            return numpy_helper.to_array(self.constants[name], base_dir=str(self.path.parent))
        except (OSError, ValueError, TypeError, KeyError):
            return None


def label(node: onnx.NodeProto) -> str:
    """Name a node as TensorRT does: its name, or the output it makes."""
    return node.name or f"{node.op_type} that makes {node.output[0] if node.output else '?'}"


Rule = Callable[[PreflightGraph, str, Sequence[str]], Iterator[Finding]]
