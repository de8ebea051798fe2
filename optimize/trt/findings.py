"""The graph queries and the findings of preflight rules."""

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
    """One finding: severity "error" or "warning", a short code, the node, the problem and the advice."""

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
        except Exception:  # if inference fails, the graph still has its declared types
            values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
        self.types = {value.name: value.type.tensor_type for value in values}

    def elem_type(self, name: str) -> int:
        """Return the TensorProto data type of a tensor, 0 if it is unknown."""
        if name in self.constants:
            return int(self.constants[name].data_type)
        return int(self.types[name].elem_type) if name in self.types else 0

    def dims(self, name: str) -> list[int | None] | None:
        """Return the shape of a tensor, None for a dynamic axis; None if the rank is unknown."""
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
        """Return a constant as an array; None if it is computed or its external data is missing."""
        if name not in self.constants:
            return None
        try:
            return numpy_helper.to_array(self.constants[name], base_dir=str(self.path.parent))
        except (OSError, ValueError, TypeError, KeyError):
            return None


def label(node: onnx.NodeProto) -> str:
    """Return a node's name as in TensorRT: its name, or that of its output."""
    return node.name or f"{node.op_type} that produces {node.output[0] if node.output else '?'}"


Rule = Callable[[PreflightGraph, str, Sequence[str]], Iterator[Finding]]
