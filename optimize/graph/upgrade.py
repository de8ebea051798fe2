"""Corrections of foreign files for all stages: a recent opset, and declared outputs that match the graph.

Each change is reported. A file that ONNX's converter cannot convert is refused with the reason.
"""

from __future__ import annotations

import onnx
from onnx import version_converter

from ...runtime.errors import ModelError
from ...runtime.spec import SPEC_KEY
from .graph import STANDARD
from .protobuf import copied

OLDEST = 13  # from this opset QuantizeLinear has an axis, which per-channel scales need
NO_NAMES = ("?", "-1", "None")
TO = 17  # from this opset LayerNormalization is an operator; and devices' parsers support it


def upgraded(model: onnx.ModelProto, must: bool = True) -> tuple[onnx.ModelProto, list[str]]:
    """Return a model of opset 13 or later whose declared outputs match its graph, and the changes.

    Args:
        model: The model; it is not changed.
        must: Refuse an older opset that the converter cannot convert; otherwise it is unchanged, which is reported.

    Raises:
        ModelError: Its opset is older, and the converter cannot convert it.
    """
    notes: list[str] = []
    if 0 < (opset := standard_opset(model)) < OLDEST:
        try:
            model = raised(model, TO)
            notes.append(f"opset {opset} was converted to {standard_opset(model)}")
        except ModelError as error:
            if must:
                raise
            notes.append(f"opset {opset} is unchanged: {error.got}")
    if any(entry.key == SPEC_KEY for entry in model.metadata_props):  # our own exporter wrote it, or our optimizer
        return model, notes
    model, corrected = _with_true_outputs(model)
    return model, notes + corrected


def with_free_sizes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every free size written in one way: without a value, and without a name that is none.

    Exporters write -1, "?" and "-1" for a size that is free; 0 may also be a size of nothing, and stays. Two sizes that
    are called "?" need not be equal.
    """
    sizes = [dim for value in _values(model) for dim in _tensor_dims(value)]
    if not any(dim.dim_param in NO_NAMES or dim.dim_value < 0 for dim in sizes):
        return model
    model = copied(model)
    for dim in (dim for value in _values(model) for dim in _tensor_dims(value)):
        if dim.dim_param in NO_NAMES or dim.dim_value < 0:
            dim.Clear()
    return model


def _values(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [*model.graph.input, *model.graph.output, *model.graph.value_info]


def _tensor_dims(value: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(value.type.tensor_type.shape.dim) if value.type.HasField("tensor_type") else []


def standard_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators; 0 if the model has none."""
    return max((int(entry.version) for entry in model.opset_import if entry.domain in STANDARD), default=0)


def raised(model: onnx.ModelProto, to: int) -> onnx.ModelProto:
    """Return a model of another opset, by ONNX's converter.

    Raises:
        ModelError: It cannot; the message has its reason.
    """
    opset = standard_opset(model)
    try:
        converted = version_converter.convert_version(model, to)
    except Exception as error:
        kinds = {node.op_type for node in model.graph.node if node.domain in STANDARD}
        unknown = sorted(kind for kind in kinds if not onnx.defs.has(kind, to))
        reason = " ".join(str(error).split()).rpartition(": ")[2][:200] or type(error).__name__
        reason = f"operators that opset {to} does not have: {', '.join(unknown)}" if unknown else reason
        raise ModelError(
            f"the graph has opset {opset} and cannot be converted", got=reason, expected=f"opset {OLDEST} or later",
            do="export it again with a newer opset",
        ) from error  # fmt: skip
    _lift_constants(converted.graph)
    del converted.metadata_props[:]  # the converter leaves them out, or not: by version
    converted.metadata_props.extend(model.metadata_props)
    return converted


def _lift_constants(graph: onnx.GraphProto) -> None:
    """Replace the Constant nodes that the converter writes by initializers."""
    outputs = {value.name for value in graph.output}
    for node in [one for one in graph.node if one.op_type == "Constant" and one.output[0] not in outputs]:
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if tensor is not None:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            graph.node.remove(node)


def _with_true_outputs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """Correct declared output shapes that contradict shape inference; ONNX Runtime only warns about them."""
    bare = copied(model)
    for value in bare.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except Exception:  # the checker raises it again, with more detail
        return model, []
    inferred = {value.name: value for value in graph.output}
    notes: list[str] = []
    for value in model.graph.output:
        stated, true = _dims(value), _dims(inferred.get(value.name))
        if stated is None or true is None or _agree(stated, true):
            continue
        if not notes:
            model = copied(model)
        target = next(one for one in model.graph.output if one.name == value.name)
        target.type.tensor_type.shape.CopyFrom(inferred[value.name].type.tensor_type.shape)
        notes.append(f"output {value.name!r} was declared {_text(stated)}; the graph gives {_text(true)}")
    return model, notes


def _dims(value: onnx.ValueInfoProto | None) -> list[int | None] | None:
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    return [dim.dim_value if dim.dim_value > 0 else None for dim in value.type.tensor_type.shape.dim]


def _agree(stated: list[int | None], true: list[int | None]) -> bool:
    pairs = zip(stated, true, strict=False)
    return len(stated) == len(true) and all(None in pair or pair[0] == pair[1] for pair in pairs)


def _text(dims: list[int | None]) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "a scalar"
