"""Replace activations written as arithmetic by their operator.

Before: Clip(x + 3, 0, 6) / 6;  x * HardSigmoid(x, 1/6, 1/2);  x * Clip(x + 3, 0, 6) / 6;  x * (1 + Erf(x / sqrt 2)) / 2
After:  HardSigmoid(x, 1/6, 1/2);  HardSwish(x) from opset 14;  HardSwish(x);  Gelu(x) from opset 20
When:   the constants are these scalars, and the tensors between have no other consumer. Not in float64, for which ONNX
        Runtime has none of these operators.
Why:    one pass over the activation instead of three to five: written with Clip, HardSwish takes 15 to 30 % of a
        MobileNet v3's time in ONNX Runtime.
"""

from __future__ import annotations

import math

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node
from ._base import Outcome, Pass, Rewritten

FLOATS = (1, 10)
LONGEST = 4


def rewrite(net: Graph, node: Node) -> Outcome | None:
    """Recognise the activation that ends at one Mul or Div."""
    if net.dtype(node.outputs[0]) not in FLOATS:
        return None
    product = _factors(net, node)
    if product is None:
        return None
    scale, tensors = product
    if len(tensors) == 1:
        return _hard_sigmoid(net, node, scale, tensors[0])
    return _swish(net, node, scale, tensors) or _gelu(net, node, scale, tensors) if len(tensors) == 2 else None


def _factors(net: Graph, node: Node, depth: int = LONGEST) -> tuple[float, list[GraphTensor]] | None:
    """Return the constant factor and the variable factors of a product, through products without other consumers."""
    if depth == 0:
        return None
    scale: float = 1.0
    tensors: list[GraphTensor] = []
    for index, tensor in enumerate(node.inputs):
        value, before = net.scalar(tensor), net.producer_of_type(tensor, "Mul", "Div")
        if value is not None:
            if node.op == "Div" and (index == 0 or value == 0):
                return None
            scale *= 1 / value if node.op == "Div" else value
        elif node.op == "Div" and index == 1:
            return None
        elif before is not None and net.only_user(tensor) is node and (inner := _factors(net, before, depth - 1)):
            scale, tensors = scale * inner[0], [*tensors, *inner[1]]
        else:
            tensors.append(tensor)
    return scale, tensors


def _clipped(net: Graph, tensor: GraphTensor, top: float) -> tuple[GraphTensor, float] | None:
    """Return x and b if a tensor is Clip(x + b, 0, top) that only one node reads."""
    clip = net.producer_of_type(tensor, "Clip")
    if clip is None or net.only_user(tensor) is None:
        return None
    ends = (("min", net.input(clip, 1)), ("max", net.input(clip, 2)))
    bounds = [clip.attrs.get(name) if end is None else net.scalar(end) for name, end in ends]
    shifted = net.producer_of_type(clip.inputs[0], "Add")
    if bounds[0] != 0 or bounds[1] is None or not _near(bounds[1], top) or shifted is None:
        return None
    side = next((index for index in (0, 1) if net.scalar(shifted.inputs[index]) is not None), None)
    if side is None or net.only_user(clip.inputs[0]) is None or not net.same_shape(shifted.inputs[1 - side], tensor):
        return None
    return shifted.inputs[1 - side], float(net.scalar(shifted.inputs[side]) or 0.0)


def _hard_sigmoid(net: Graph, node: Node, scale: float, tensor: GraphTensor) -> Outcome | None:
    clip = _clipped(net, tensor, 1 / scale) if scale > 0 else None
    if clip is None or not net.same_shape(clip[0], node.outputs[0]):
        return None
    return _emit(net, node, "HardSigmoid", clip[0], {"alpha": scale, "beta": clip[1] * scale})


def _swish(net: Graph, node: Node, scale: float, tensors: list[GraphTensor]) -> Outcome | None:
    if net.opset < 14:
        return None
    for x, gate in (tensors, tensors[::-1]):
        hard_sigmoid = net.producer_of_type(gate, "HardSigmoid")
        if (
            hard_sigmoid is not None
            and hard_sigmoid.inputs[0] is x
            and net.only_user(gate) is not None
            and _near(scale, 1.0)
        ):
            slope, middle = hard_sigmoid.attrs.get("alpha", 0.2), hard_sigmoid.attrs.get("beta", 0.5)
            if _near(slope, 1 / 6) and _near(middle, 0.5):
                return _emit(net, node, "HardSwish", x, {})
        clip = _clipped(net, gate, 6.0) if _near(scale, 1 / 6) else None
        if clip is not None and clip[0] is x and _near(clip[1], 3.0):
            return _emit(net, node, "HardSwish", x, {})
    return None


def _gelu(net: Graph, node: Node, scale: float, tensors: list[GraphTensor]) -> Outcome | None:
    if net.opset < 20 or not _near(scale, 0.5):
        return None
    for x, gate in (tensors, tensors[::-1]):
        addition = net.producer_of_type(gate, "Add")
        if addition is None or net.only_user(gate) is None:
            continue
        side = next((index for index in (0, 1) if net.scalar(addition.inputs[index]) == 1), None)
        erf = net.producer_of_type(addition.inputs[1 - side], "Erf") if side is not None else None
        inner = net.producer_of_type(erf.inputs[0], "Mul", "Div") if erf is not None else None
        product = _factors(net, inner) if inner is not None else None
        alone = (
            erf is not None and net.only_user(erf.outputs[0]) is not None and net.only_user(erf.inputs[0]) is not None
        )
        if (
            alone
            and product is not None
            and len(product[1]) == 1
            and product[1][0] is x
            and _near(product[0], math.sqrt(0.5))
        ):
            return _emit(net, node, "Gelu", x, {})
    return None


def _near(value: float, wanted: float) -> bool:
    return abs(value - wanted) <= 1e-6 * abs(wanted)


def _emit(net: Graph, node: Node, kind: str, source: GraphTensor, attrs: dict[str, float]) -> Outcome | None:
    output = node.outputs[0]
    if not net.same_shape(source, output):
        return None
    net.drop(node)
    net.add(kind, [source], [output], node, attrs)
    return Rewritten(node.name, kind)


PASS = Pass(rewrite, ("Mul", "Div"), "HardSigmoid, HardSwish and Gelu recognised in arithmetic")
