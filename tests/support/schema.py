"""The part of JSON Schema 2020-12 that the manifest's schema uses, to check documents without another package."""

import re
from typing import Any

TYPES = {
    "object": dict, "array": list, "string": str, "null": type(None), "boolean": bool,
}  # fmt: skip
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "type", "const", "enum", "anyOf", "required", "properties",
    "additionalProperties", "propertyNames", "items", "minItems", "maxItems", "pattern", "minLength", "minimum",
    "exclusiveMaximum",
}  # fmt: skip


def problems(value: Any, schema: Any, root: Any = None, at: str = "$") -> list[str]:
    """Return where a value breaks a schema, as paths with a reason; empty where it fits."""
    root = schema if root is None else root
    if schema in (True, False):
        return [] if schema else [f"{at} is not allowed"]
    assert set(schema) <= KNOWN, f"this checker does not know {set(schema) - KNOWN}"
    if "$ref" in schema:
        return problems(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
    if "anyOf" in schema:
        found = [problems(value, one, root, at) for one in schema["anyOf"]]
        return [] if [] in found else [f"{at} fits none of several"]
    return [
        *_plain(value, schema, at),
        *(_object(value, schema, root, at) if isinstance(value, dict) else []),
        *(_array(value, schema, root, at) if isinstance(value, list) else []),
    ]


def _plain(value: Any, schema: Any, at: str) -> list[str]:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    integer = number and float(value).is_integer()
    kind = schema.get("type")
    right = {"number": number, "integer": integer}.get(kind, kind is None or isinstance(value, TYPES.get(kind, ())))
    found = [] if right else [f"{at} is no {kind}"]
    found += [f"{at} is not {schema['const']}"] if "const" in schema and value != schema["const"] else []
    found += [f"{at} is none of {schema['enum']}"] if "enum" in schema and value not in schema["enum"] else []
    if isinstance(value, str):
        found += [f"{at} has another form"] if "pattern" in schema and not re.search(schema["pattern"], value) else []
        found += [f"{at} is too short"] if len(value) < schema.get("minLength", 0) else []
    if number:
        found += [f"{at} is too small"] if value < schema.get("minimum", value) else []
        found += [f"{at} is too large"] if "exclusiveMaximum" in schema and value >= schema["exclusiveMaximum"] else []
    return found


def _object(value: dict[str, Any], schema: Any, root: Any, at: str) -> list[str]:
    known = schema.get("properties", {})
    found = [f"{at} lacks {name}" for name in schema.get("required", []) if name not in value]
    for name, member in value.items():
        found += problems(name, schema.get("propertyNames", True), root, f"{at}.{name}")
        found += problems(member, known.get(name, schema.get("additionalProperties", True)), root, f"{at}.{name}")
    return found


def _array(value: list[Any], schema: Any, root: Any, at: str) -> list[str]:
    found = [f"{at} has too few"] if len(value) < schema.get("minItems", 0) else []
    found += [f"{at} has too many"] if len(value) > schema.get("maxItems", len(value)) else []
    return found + [
        p for i, one in enumerate(value) for p in problems(one, schema.get("items", True), root, f"{at}[{i}]")
    ]
