"""A graph in memory with its file, passed between stages, so that none parses it or infers its shapes again."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx

from .proto_graph import read_upgraded, tensor_types, write_model


class GraphFile:
    """A graph and its file.

    Attributes:
        model: The graph; copy it before changing it.
        path: The file, with the same graph except for the changes in `notes`.
        notes: The changes made while reading: see `upgrade.upgraded`.
    """

    def __init__(self, model: onnx.ModelProto, path: str | Path, notes: tuple[str, ...] = ()) -> None:
        self.model, self.path, self.notes = model, Path(path), notes

    @classmethod
    def read(cls, path: str | Path) -> GraphFile:
        """Read and check a file, inline its functions and convert an old opset.

        Raises:
            UsageError: No such file.
            ModelError: Not an ONNX file, or onnx.checker refuses it.
        """
        model, notes = read_upgraded(path)
        return cls(model, path, tuple(notes))

    @classmethod
    def write(cls, model: onnx.ModelProto, path: str | Path) -> GraphFile:
        """Check a model, and write it completely or not at all.

        Raises:
            ModelError: onnx.checker refuses the model; nothing is written.
        """
        write_model(model, path)
        return cls(model, path)

    @functools.cached_property
    def types(self) -> list[onnx.ValueInfoProto]:
        """Type and shape of each tensor, as far as shape inference knows them."""
        return tensor_types(self.model)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    @property
    def nodes(self) -> int:
        """The number of nodes of the main graph, without constants."""
        return sum(node.op_type != "Constant" for node in self.model.graph.node)
