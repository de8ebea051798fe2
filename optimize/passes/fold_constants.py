"""Constant folding: compute operators that depend only on constants or on fixed shapes.

Before: Constant, Expand(CastLike(c, x), shape), Concat(Gather(Shape(x), 2), ...), any operator on constants
After:  an initialiser
When:   the operator is deterministic and of the standard domain, and its result is at most 1 MiB or no larger than its
        inputs; the weights of a layer may take up to 512 MiB. Shape(x) is folded if x's shape is fixed, CastLike(c, x)
        if x's type is known. Quantised weights stay quantised.
Why:    exporters write shape arithmetic as nodes; and a computed weight cannot be fused.
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from ..graph import evaluate_node
from ..graph.graph import Graph
from ..graph.node import Node
from ._base import Outcome, Pass, Rewritten
from .eliminate_common_subexpressions import RANDOM, mergeable

FREELY_BYTES, WEIGHT_BYTES = 1 << 20, 1 << 29
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "PRelu", "InstanceNormalization")
VIEWS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity", "Flatten")
KEPT = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "If", "Loop", "Scan"}
OF_SHAPE = ("Shape", "Size")


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Compute one node."""
    if node.op in RANDOM or node.op in KEPT or not mergeable(net, node):
        return None
    if any(tensor.name in net.protected_names for tensor in node.outputs) or not _is_constant(net, node):
        return None
    if not _fits(net, node):
        return None
    results = evaluate_node.node(net, node)
    if results is None or any(array.dtype == object for array in results):
        return None
    for tensor, array in zip(node.outputs, results, strict=True):
        if tensor.name:
            net.substitute(tensor, net.constant(tensor.name, array))
    net.drop(node)
    return Rewritten(node.name, node.op)


def _is_constant(net: Graph, node: Node) -> bool:
    if node.op in OF_SHAPE:
        return net.static(node.inputs[0]) is not None
    tensors = [tensor for tensor in node.inputs if tensor.name]
    if node.op == "CastLike":
        return isinstance(tensors[0], gs.Constant) and bool(net.dtype(tensors[1]))
    return (bool(tensors) or node.op == "Constant") and all(isinstance(tensor, gs.Constant) for tensor in tensors)


def _fits(net: Graph, node: Node) -> bool:
    """Return whether the result is small enough; an operator with a result of unknown size is not computed."""
    if node.op in ("Constant", *OF_SHAPE):
        return True
    input_bytes = sum(tensor._values.nbytes for tensor in node.inputs if isinstance(tensor, gs.Constant))
    weights = _only_weights(net, node)
    return bool(
        evaluate_node.result_bytes(net, node) <= max(FREELY_BYTES, 2 * input_bytes, WEIGHT_BYTES if weights else 0)
    )


def _only_weights(net: Graph, node: Node) -> bool:
    """Return whether only layers read a node's output, directly or through a view."""
    users = [user for tensor in node.outputs for user in net.users(tensor)]
    return bool(users) and all(user.op in LAYERS or (user.op in VIEWS and _only_weights(net, user)) for user in users)


PASS = Pass(rewrite, (), "operators on constants and on fixed shapes computed", lowest_opset=7)
