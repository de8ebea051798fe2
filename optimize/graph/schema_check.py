"""Check of nodes against their operators' schemas: number of inputs and outputs, omitted inputs, attribute types.

Passes can then rely on the schemas; they accept operators without a schema (custom ones, newer opsets), which what
computes a graph refuses.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx.defs

from ...runtime.errors import ModelError
from .graph import STANDARD
from .proto_graph import all_nodes

# The domains of the operators that are part of ONNX Runtime.
RUNTIME_DOMAINS = (*STANDARD, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


def require_known_operators(model: onnx.ModelProto, name: str) -> None:
    """Refuse operators that ONNX Runtime does not have and that the file does not define as functions.

    Raises:
        ModelError: There are some; the message names operators and nodes.
    """
    opset = max((entry.version for entry in model.opset_import if entry.domain in STANDARD), default=1)
    own = {(function.domain, function.name) for function in model.functions}
    every = [one for node in model.graph.node for one in (node, *all_nodes(node))]
    custom: dict[str, list[str]] = {}
    for node in every:
        known = onnx.defs.has(node.op_type, opset) if node.domain in STANDARD else node.domain in RUNTIME_DOMAINS
        if not known and (node.domain, node.op_type) not in own:
            domain = f"{node.domain}:" if node.domain else ""
            outputs = (output for output in node.output if output)
            custom.setdefault(f"{domain}{node.op_type}", []).append(node.name or f"of {next(outputs, 'no output')}")
    if not custom:
        return
    shown = [
        f"{kind} ({', '.join(nodes[:3])}{f' and {len(nodes) - 3} more' if len(nodes) > 3 else ''})"
        for kind, nodes in custom.items()
    ]
    raise ModelError(
        f"{name} has operators that ONNX Runtime does not have", got="; ".join(shown)[:400],
        expected=f"standard operators of opset {opset}",
        do="export it without them, or define them in the file as functions (ModelProto.functions)",
    )  # fmt: skip


def check_nodes(model: onnx.ModelProto, name: str) -> None:
    """Compare every node of the main graph with its schema.

    Raises:
        ModelError: A node does not match, or a name is not UTF-8 (protobuf then returns bytes); the message names it.
    """
    graph = model.graph
    parts = (*graph.input, *graph.output, *graph.initializer, *graph.node)
    texts = (item.name for item in parts)
    words = (word for node in graph.node for word in (node.op_type, node.domain, *node.input, *node.output))
    if bad := next((text for text in (*texts, *words) if isinstance(text, bytes)), None):
        raise ModelError(f"{name} is damaged", got=f"the name {bad[:100]!r}", expected="UTF-8", do="export it again")
    versions = {entry.domain: entry.version for entry in model.opset_import}
    own = {(function.domain, function.name) for function in model.functions}
    for node in graph.node:
        if (node.domain, node.op_type) not in own and (problem := _problem(node, versions)):
            raise ModelError(
                f"{name} is not a valid graph", got=f"{node.op_type} node {node.name[:100]!r} {problem}",
                expected="nodes as their operators are defined", do="export it again",
            )  # fmt: skip


def _problem(node: onnx.NodeProto, versions: dict[str, int]) -> str:
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, versions.get(domain, versions.get("ai.onnx", 1)), domain)
    except (onnx.defs.SchemaError, TypeError, OverflowError):
        return ""
    if not schema.min_input <= len(node.input) <= schema.max_input:
        return f"with {len(node.input)} inputs"
    if not schema.min_output <= len(node.output) <= schema.max_output:
        return f"with {len(node.output)} outputs"
    for formal, name in zip(schema.inputs, node.input, strict=False):
        if not name and formal.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            return f"without its input {formal.name!r}"
    return next((problem for item in node.attribute if (problem := _wrong_type(item, schema))), "")


def _wrong_type(item: onnx.AttributeProto, schema: Any) -> str:
    formal = schema.attributes.get(item.name)
    if formal is None or item.ref_attr_name or int(formal.type) == item.type:
        return ""
    return f"with attribute {item.name!r} of type {item.type}"
