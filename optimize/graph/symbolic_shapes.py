"""Symbolic values of shape arithmetic: each element is a number, the name of a dynamic axis, or None.

The value of Concat(Gather(Shape(x), 0), 2, 58) is ["batch", 2, 58]: this shows that a Reshape splits
channels, and allows to write its shape as a constant.
"""

from __future__ import annotations

from typing import Any

from .graph import Graph
from .node import GraphTensor, Node

Values = list[Any]
Memo = dict[str, Values | None]
LONGEST = 64


def values(net: Graph, tensor: GraphTensor, memo: Memo) -> Values | None:
    """Return the elements of an integer tensor of rank 0 or 1, or None if it is not shape arithmetic.

    Args:
        net: The graph.
        tensor: The tensor.
        memo: Cached results by tensor name.
    """
    if tensor.name in memo:
        return memo[tensor.name]
    array = net.value(tensor)
    if array is not None:
        plain = array.dtype.kind == "i" and array.ndim <= 1 and array.size <= LONGEST
        return [int(item) for item in array.reshape(-1)] if plain else None
    memo[tensor.name] = None
    node = net.producer(tensor)
    if node is not None and not node.domain and node.op in RULES:
        memo[tensor.name] = RULES[node.op](net, node, memo)
    return memo[tensor.name]


def _shape(net: Graph, node: Node, memo: Memo) -> Values | None:
    shape = net.shape(node.inputs[0])
    return None if shape is None else list(shape)[slice(node.attrs.get("start", 0), node.attrs.get("end"))]


def _through(net: Graph, node: Node, memo: Memo) -> Values | None:
    return values(net, node.inputs[0], memo)


def _cast(net: Graph, node: Node, memo: Memo) -> Values | None:
    return _through(net, node, memo) if net.dtype(node.outputs[0]) in (6, 7) else None


def _reshape(net: Graph, node: Node, memo: Memo) -> Values | None:
    rank = net.rank(node.outputs[0])
    return _through(net, node, memo) if rank is not None and rank <= 1 else None


def _gather(net: Graph, node: Node, memo: Memo) -> Values | None:
    data, places = _through(net, node, memo), values(net, node.inputs[1], memo)
    if data is None or places is None or net.rank(node.inputs[0]) != 1:
        return None
    if any(not isinstance(place, int) or not -len(data) <= place < len(data) for place in places):
        return None
    return [data[place] for place in places]


def _concat(net: Graph, node: Node, memo: Memo) -> Values | None:
    parts = [values(net, tensor, memo) for tensor in node.inputs]
    return None if any(part is None for part in parts) else [item for part in parts if part for item in part]


def _slice(net: Graph, node: Node, memo: Memo) -> Values | None:
    data, starts, ends = _through(net, node, memo), net.ints(node, "starts", 1), net.ints(node, "ends", 2)
    steps = net.ints(node, "steps", 4) if net.input(node, 4) is not None else [1]
    if data is None or starts is None or ends is None or steps is None or len(starts) != 1:
        return None
    return data[starts[0] : ends[0] : steps[0]] if steps[0] > 0 else None


def _arithmetic(net: Graph, node: Node, memo: Memo) -> Values | None:
    one, other = values(net, node.inputs[0], memo), values(net, node.inputs[1], memo)
    if not one or not other or 1 != min(len(one), len(other)) != max(len(one), len(other)):
        return None
    size = max(len(one), len(other))
    pairs = zip(one * (size // len(one)), other * (size // len(other)), strict=True)
    return [_combine(node.op, first, second) for first, second in pairs]


def _combine(op: str, one: Any, other: Any) -> Any:
    if isinstance(one, int) and isinstance(other, int):
        if op == "Div":
            return None if other == 0 else abs(one) // abs(other) * (1 if (one < 0) == (other < 0) else -1)
        return {"Add": one + other, "Sub": one - other, "Mul": one * other}[op]
    if other == (1 if op in ("Mul", "Div") else 0):
        return one
    return other if one == (1 if op == "Mul" else 0) and op in ("Mul", "Add") else None


RULES = {
    "Shape": _shape, "Identity": _through, "Cast": _cast, "Unsqueeze": _reshape, "Squeeze": _reshape,
    "Reshape": _reshape, "Gather": _gather, "Concat": _concat, "Slice": _slice,
    "Add": _arithmetic, "Sub": _arithmetic, "Mul": _arithmetic, "Div": _arithmetic,
}  # fmt: skip
