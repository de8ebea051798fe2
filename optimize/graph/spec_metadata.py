"""The ModelSpec inside an ONNX file: one entry of `metadata_props`, JSON, under the key `edgesmith.spec`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.common.files import existing_file
from ...runtime.errors import ModelError
from ...runtime.spec import SPEC_KEY, ModelSpec

if TYPE_CHECKING:
    import onnx

PASSED = {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Cast", "QuantizeLinear",
          "DequantizeLinear", "Dropout", "Resize", "GlobalAveragePool", "AveragePool", "ReduceMean"}  # fmt: skip
# The softmax of a log-softmax is the same softmax, so log-softmax counts as logits.
ENDS = {
    "probabilities": {"Softmax", "Sigmoid"},
    "logits": {"Gemm", "MatMul", "Conv", "ConvTranspose", "Add", "LogSoftmax", "BatchNormalization", "Relu"},
}


def write(model: onnx.ModelProto, spec: ModelSpec) -> None:
    """Write the spec to a model's metadata, and replace an earlier one."""
    kept = [entry for entry in model.metadata_props if entry.key != SPEC_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    model.metadata_props.add(key=SPEC_KEY, value=spec.to_json())


def embedded(model: onnx.ModelProto) -> ModelSpec | None:
    """Return the spec in a model's metadata, or None.

    Raises:
        ModelError: The spec cannot be read.
    """
    return ModelSpec.from_metadata({entry.key: entry.value for entry in model.metadata_props})


def read(path: str | Path) -> ModelSpec:
    """Read the spec of an ONNX file; external weights are not read.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an ONNX file, or has no spec.
    """
    model = _load(path)
    spec = embedded(model)
    if spec is not None:
        return spec
    raise ModelError(
        f"{path} has no ModelSpec",
        got=f"metadata {[entry.key for entry in model.metadata_props]}",
        expected=f"an entry {SPEC_KEY!r}",
        do="export it with edgesmith, or write one with edgesmith.optimize.graph.spec_metadata.write",
    )


def count_nodes(path: str | Path) -> int:
    """Count the nodes of an ONNX file's main graph, without constants.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an ONNX file.
    """
    return sum(node.op_type != "Constant" for node in _load(path).graph.node)


def ending(path: str | Path) -> dict[str, tuple[str, str]]:
    """Return for each output of an ONNX file its `scores` and the operator that determines them; see `scores`.

    Raises:
        UsageError: There is no such file.
        ModelError: It is not an ONNX file.
    """
    model = _load(path)
    return {value.name: model_scores(model, value.name) for value in model.graph.output}


def model_scores(model: onnx.ModelProto, output: str) -> tuple[str, str]:
    """Return the scores of a model's output, and the operator that determines them; see `scores`."""
    nodes = [(node.op_type, node.input[0], list(node.output)) for node in model.graph.node if node.input]
    return scores(output, nodes)


def fed_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs that are not initializers, which the caller must set."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def scores(output: str, nodes: Iterable[tuple[str, str, Sequence[str]]]) -> tuple[str, str]:
    """Return "logits", "probabilities" or "" (unknown) for an output, and the operator that determines it.

    Each operator is (type, first input, outputs). Operators that only move or average values are skipped.
    """
    producers = {name: (kind, source) for kind, source, outputs in nodes for name in outputs}
    for _ in range(len(producers)):
        kind, source = producers.get(output, ("", ""))
        if kind not in PASSED:
            meanings = [what for what, kinds in ENDS.items() if kind in kinds]
            return (meanings[0], kind) if meanings else ("", kind)
        output = source
    return "", ""


def _load(path: str | Path) -> onnx.ModelProto:
    import onnx

    path = existing_file(path, "model")
    try:
        return onnx.load(str(path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{path} is not an ONNX file", got=type(error).__name__, do="export it again") from error
