"""A graph in memory with the file that it stands in: what stages hand on, so that none parses or infers it again."""

from __future__ import annotations

import functools
from pathlib import Path

import onnx

from .proto_graph import read_upgraded, tensor_types, write_model


class GraphFile:
    """A graph and its file.

    Attributes:
        model: The graph; whoever changes it copies it first.
        path: The file, which holds the same but for `notes`.
        notes: What was changed when it was read: see `upgrade.upgraded`.
    """

    def __init__(self, model: onnx.ModelProto, path: str | Path, notes: tuple[str, ...] = ()) -> None:
        self.model, self.path, self.notes = model, Path(path), notes

    @classmethod
    def read(cls, path: str | Path) -> GraphFile:
        """Read and check a file, with functions inlined and an old opset raised.

        Raises:
            UsageError: No such file.
            ModelError: Not an ONNX file, or one that onnx.checker refuses.
        """
        model, notes = read_upgraded(path)
        return cls(model, path, tuple(notes))

    @classmethod
    def write(cls, model: onnx.ModelProto, path: str | Path) -> GraphFile:
        """Check a model, and write it whole or not at all.

        Raises:
            ModelError: onnx.checker refuses the model; nothing is written.
        """
        write_model(model, path)
        return cls(model, path)

    @functools.cached_property
    def types(self) -> list[onnx.ValueInfoProto]:
        """Type and shape of each tensor, as far as shape inference finds them."""
        return tensor_types(self.model)

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size

    @property
    def nodes(self) -> int:
        """How many nodes the main graph has, constants left out."""
        return sum(node.op_type != "Constant" for node in self.model.graph.node)
