"""What a graph must be before it is quantised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.errors import ModelError
from ..graph.upgrade import OLDEST, standard_opset

if TYPE_CHECKING:
    import onnx


def check_model(model: onnx.ModelProto, source: str | Path) -> onnx.ModelProto:
    """Return a graph; refuse one that is quantised, too old, or has operators that ONNX Runtime does not have.

    A BatchNormalization that could be folded is refused too.
    A BatchNormalization before an activation, as in DenseNet, folds into nothing: it stays, in float.

    Raises:
        ModelError: With what to do.
    """
    from ..graph.schema_check import require_known_operators
    from .placement import is_quantised

    if (opset := standard_opset(model)) < OLDEST:
        raise ModelError(f"{source} is of opset {opset}", expected=f"opset {OLDEST} or later", do="export it again")
    require_known_operators(model, str(source))
    if is_quantised(model):
        raise ModelError(
            f"{source} is quantised already", expected="a float32 graph", do="quantise the float file it came from"
        )
    if norms := _foldable_norms(model):
        raise ModelError(
            f"{source} still has BatchNormalization after convolutions",
            got=f"{len(norms)} nodes, first {norms[0]!r}",
            expected="BatchNormalization folded into the convolutions",
            do="run `edgesmith optimize` on it first",
        )
    return model


def _foldable_norms(model: onnx.ModelProto) -> list[str]:
    """Name each BatchNormalization that alone reads what a linear layer makes."""
    from ..graph.proto_graph import ProtoIndex

    net, outputs = ProtoIndex(model), {item.name for item in model.graph.output}
    linear = {
        name for name, node in net.producer.items() if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")
    }
    return [
        node.name
        for node in net.nodes
        if node.op_type == "BatchNormalization"
        and node.input[0] in linear - outputs
        and len(net.readers[node.input[0]]) == 1
    ]
