"""Helpers for protobuf messages: attributes that GraphSurgeon supports, and copies without the weights."""

from __future__ import annotations

from typing import Any, TypeVar

import onnx

MessageT = TypeVar("MessageT")

PLAIN_ATTRIBUTES = {"FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS"}

# Replaces the domain of a node that calls a local function with the name of a standard operator.
LOCAL = "local function"

EXOTIC = ("UNDEFINED", "STRING", "FLOAT8", "FLOAT6", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2")
PLAIN_TYPES = {kind for name, kind in onnx.TensorProto.DataType.items() if not name.startswith(EXOTIC)}


def captured(node: onnx.NodeProto) -> list[str]:
    """Return the outer names that a node's bodies read, in order."""
    names: dict[str, None] = {}
    for attribute in node.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            own = {value.name for value in body.input} | {tensor.name for tensor in body.initializer} | {""}
            own |= {tensor.values.name for tensor in body.sparse_initializer}
            own |= {output for inner in body.node for output in inner.output}
            reads = [item for inner in body.node for item in (*inner.input, *captured(inner))]
            names |= dict.fromkeys(item for item in [*reads, *(value.name for value in body.output)] if item not in own)
    return list(names)


def is_plain(attribute: onnx.AttributeProto) -> bool:
    """Return whether GraphSurgeon preserves an attribute."""
    kind = onnx.AttributeProto.AttributeType.Name(attribute.type)
    if attribute.ref_attr_name or kind not in PLAIN_ATTRIBUTES:
        return False
    if kind == "TENSOR":
        return attribute.t.data_type in PLAIN_TYPES
    try:
        [text.decode() for text in (attribute.s, *attribute.strings)]
    except UnicodeDecodeError:
        return False
    return True


def copied(message: MessageT) -> MessageT:
    """Return a copy of a protobuf message."""
    copy = type(message)()
    copy.CopyFrom(message)  # type: ignore[attr-defined]  # protobuf has no types here
    return copy


def copy_fields(source: Any, target: Any, *without: str) -> None:
    """Copy the fields of a protobuf message, except some."""
    for descriptor, value in source.ListFields():
        if descriptor.name in without:
            continue
        if descriptor.is_repeated:
            getattr(target, descriptor.name).extend(value)
        elif descriptor.message_type:
            getattr(target, descriptor.name).CopyFrom(value)
        else:
            setattr(target, descriptor.name, value)
