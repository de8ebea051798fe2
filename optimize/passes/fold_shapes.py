"""Fold shape arithmetic with some unknown dimensions, for example a dynamic batch.

Before: Reshape(x, Concat(Gather(Shape(x), 0), 2, Div(Gather(Shape(x), 1), 2), -1))      x (batch, 116, 28, 28)
After:  Reshape(x, (0, 2, 58, -1))
When:   every element is a number, except: one that equals x's dimension at its position (0: copy it), and one other
        unknown element if no element is -1 (-1: infer it). If all elements are numbers, the result is a constant.
Why:    in a TorchScript export two of three nodes are shape arithmetic; with a dynamic batch it is not constant.
"""

from __future__ import annotations

import math

import numpy as np

from ..graph import shape_inference, symbolic_shapes
from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, RewriteFilter, Rewritten

ARITHMETIC = ("Gather", "Concat", "Slice", "Add", "Sub", "Mul", "Div", "Squeeze", "Unsqueeze", "Cast")
INTEGERS = {6: np.int32, 7: np.int64}


class FoldShapes(Pass):
    """The pass; it caches the values of each tensor during one traversal."""

    def call(self, net: Graph, name: str, permit: RewriteFilter) -> list[Outcome]:
        """Traverse the graph once."""
        memo: symbolic_shapes.Memo = {}
        net.sort()
        walk = Pass(lambda graph, node: _at(graph, node, memo), self.ops, self.summary, self.lowest_opset)
        return walk.call(net, name, permit)


def _at(net: Graph, node: Node, memo: symbolic_shapes.Memo) -> Outcome | None:
    shape_inference.infer_one(net, node)
    if node.op not in (*ARITHMETIC, "Reshape"):
        return None
    return _reshape(net, node, memo) if node.op == "Reshape" else _number(net, node, memo)


def _number(net: Graph, node: Node, memo: symbolic_shapes.Memo) -> Outcome | None:
    output = node.outputs[0]
    if output.name in net.protected_names or net.dtype(output) not in INTEGERS:
        return None
    values, shape = symbolic_shapes.values(net, output, memo), net.static(output)
    if values is None or shape is None or not all(isinstance(item, int) for item in values):
        return None
    if len(shape) > 1 or int(np.prod(shape, dtype=np.int64)) != len(values):
        return None
    constant = net.constant(output.name, np.array(values, INTEGERS[net.dtype(output)]).reshape(shape))
    net.substitute(output, constant)
    net.drop(node)
    return Rewritten(node.name, f"{node.op} is {values if len(values) != 1 else values[0]}")


def _reshape(net: Graph, node: Node, memo: symbolic_shapes.Memo) -> Outcome | None:
    if len(node.inputs) < 2 or net.value(node.inputs[1]) is not None:
        return _keep_first(net, node) if len(node.inputs) > 1 else None
    values = symbolic_shapes.values(net, node.inputs[1], memo)
    if values is None or 0 in values:
        return None
    own = net.shape(node.inputs[0]) or ()
    wanted = [
        item if isinstance(item, int) else 0 if item is not None and own[axis : axis + 1] == (item,) else None
        for axis, item in enumerate(values)
    ]
    if wanted.count(None) + wanted.count(-1) > 1:
        return None
    sizes = [-1 if size is None else size for size in wanted]
    node.attrs.pop("allowzero", None)
    node.inputs[1] = net.constant(f"{node.name}_shape", np.array(sizes, np.int64))
    net.value_types.pop(node.outputs[0].name, None)
    shape_inference.infer_one(net, node)
    return Rewritten(node.name, f"Reshape to {sizes}")


def _keep_first(net: Graph, node: Node) -> Outcome | None:
    """Replace a first -1 that equals the input's first dimension by 0, so that inference keeps its name."""
    own, wanted = net.shape(node.inputs[0]), [int(size) for size in net.array(node.inputs[1]).reshape(-1)]
    rest = own[1:] if own else (None,)
    if wanted[:1] != [-1] or min(wanted[1:], default=0) < 1 or not all(isinstance(dim, int) for dim in rest):
        return None
    if own is None or isinstance(own[0], int) or own[0] is None or math.prod(rest) != math.prod(wanted[1:]):
        return None
    node.attrs.pop("allowzero", None)
    node.inputs[1] = net.constant(f"{node.name}_shape", np.array([0, *wanted[1:]], np.int64))
    net.value_types.pop(node.outputs[0].name, None)
    shape_inference.infer_one(net, node)
    return Rewritten(node.name, f"Reshape to {[0, *wanted[1:]]}")


PASS = FoldShapes(lambda net, node: None, (), "shape arithmetic with dynamic axes folded")
