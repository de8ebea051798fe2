"""How operators look on ONNX Runtime's blocked layout: a tensor (N, C, H, W) that lies as (N, C/b, H, W, b).

ONNX Runtime declares a blocked tensor with the shape (N, C', H, W), C' being C rounded up to whole blocks. Three things
follow from how it lies:

- an operator on single elements computes the same on it;
- channels from c to d lie together if c is a multiple of b, so Concat and Split on axis 1 cut it at such places;
- (N, C', H, W) is also (1, N C', H, W), so a factor per image and channel is a depthwise 1x1 Conv of one image.

The channels from C to C' are padding. They may hold any finite number: every blocked Conv has zero weights for them,
ReorderOutput leaves them out, and here no operator mixes channels. They stay finite because they start as zeros and
come through operators that are finite for every finite input; the others are kept out where there is padding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ..runtime.nchwc import DOMAIN
from .graph import Net, is_a

# Of ("", MICROSOFT): finite for every finite input.
MICROSOFT = "com.microsoft"
TAME = {
    *(("", op) for op in (
        "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh",
        "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Clip", "Abs", "Neg", "Floor", "Ceil", "Round",
        "Add", "Sub", "Mul", "Min", "Max", "Sum", "Mean",
    )),
    (MICROSOFT, "QuickGelu"), (MICROSOFT, "Gelu"), (MICROSOFT, "FastGelu"),
}  # fmt: skip
# Not finite at zero, or beyond bounds that padding may reach.
WILD = {("", op) for op in ("Div", "Exp", "Log", "Sqrt", "Reciprocal", "Pow")}
POOLS = ("GlobalAveragePool", "GlobalMaxPool")
Dims = tuple[int, ...]
Shapes = dict[str, Dims]
# Given what each input is when blocked, makes the blocked outputs.
Build = Callable[[dict[str, Any]], list[Any]]


def is_blocked(node: Any, *ops: str) -> bool:
    """Say whether a node is one of these operators of the blocked layout."""
    return node is not None and node.domain == DOMAIN and node.op in ops


def shapes(net: Net) -> Shapes:
    """Return the shapes that ONNX Runtime wrote down for tensors in plain order, those without free dimensions."""
    graph, found = net.shell.graph, {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = value.type.tensor_type.shape.dim if value.type.tensor_type.HasField("shape") else ()
        if dims and all(dim.dim_value > 0 for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found


def whole(net: Net, channels: int) -> int:
    """Round a number of channels up to whole blocks."""
    return -(-channels // net.block) * net.block


def reordered(net: Net, tensor: Any, known: Shapes) -> Any:
    """Return the ReorderOutput that makes a tensor of known shape (N, C, H, W) from a blocked one, or None."""
    node, dims = net.producer(tensor), known.get(tensor.name, ())
    fits = is_blocked(node, "ReorderOutput") and not node.attrs.get("channels_last", 0) and len(dims) == 4
    return node if fits and node.attrs.get("channels") == dims[1] else None


def make(net: Net, op: str, inputs: list[Any], outputs: list[Any], near: Any, attrs: dict[str, Any]) -> Any:
    """Put a node of the blocked domain into the graph."""
    node = net.add(op, inputs, outputs, near, attrs)
    node.domain = DOMAIN
    return node


def is_kind(node: Any) -> bool:
    """Say whether a node is of a type that may have a blocked form."""
    return (node.domain or "", node.op) in TAME | WILD or is_a(node, "Concat", "Split", *POOLS)


def data(net: Net, node: Any) -> list[Any]:
    """Return the inputs that are activations: neither left out nor constant."""
    return [tensor for tensor in node.inputs if tensor.name and net.value(tensor) is None]


def form(net: Net, node: Any, known: Shapes) -> Build | str:
    """Return how to build a node on blocked inputs, or why it cannot be.

    Args:
        net: The graph.
        node: Of a type that `is_kind`; each of its activations is blocked.
        known: Shapes of the tensors in plain order.
    """
    dims = [known.get(tensor.name, ()) for tensor in (*data(net, node), *node.outputs)]
    if any(len(shape) != 4 for shape in dims):
        return "its shapes are not known"
    if is_a(node, *POOLS):
        return lambda of: _copy(net, node, of, DOMAIN)
    if is_a(node, "Concat"):
        return _concat(net, node, dims[:-1])
    if is_a(node, "Split"):
        return _split(net, node, dims[1:])
    if is_a(node, "Mul") and len(node.inputs) == 2 and (scale := _scale(net, node, known)):
        return scale
    return _elementwise(net, node, dims)


def _copy(net: Net, node: Any, of: dict[str, Any], domain: str | None = None) -> list[Any]:
    made = [net.blank(f"{tensor.name}_blocked") for tensor in node.outputs]
    inputs = [of.get(tensor.name, tensor) for tensor in node.inputs]
    net.add(node.op, inputs, made, node, node.attrs).domain = domain or node.domain
    return made


def _elementwise(net: Net, node: Any, dims: list[Dims]) -> Build | str:
    if any(shape != dims[-1] for shape in dims):
        return "its inputs are of different shapes"
    constants = [tensor for tensor in node.inputs if tensor.name and net.value(tensor) is not None]
    if any(net.array(tensor).size != 1 or net.array(tensor).ndim > 4 for tensor in constants):
        return "it has a constant that is not one number"
    padded = dims[-1][1] % net.block != 0
    if padded and not all(np.isfinite(net.array(tensor)).all() for tensor in constants):
        return "its channels are no whole blocks, and its constant is not finite"
    if padded and (node.domain or "", node.op) in WILD:
        return "its channels are no whole blocks, and it is not finite everywhere"
    return lambda of: _copy(net, node, of)


def _concat(net: Net, node: Any, parts: list[Dims]) -> Build | str:
    if node.attrs.get("axis") not in (1, -3):
        return "it joins another axis than the channels"
    if len(parts) != len(node.inputs):
        return "a part is constant"
    if any(shape[1] % net.block for shape in parts[:-1]):
        return "a part before the last is no whole blocks"
    return lambda of: _copy(net, node, of)


def _split(net: Net, node: Any, parts: list[Dims]) -> Build | str:
    if node.attrs.get("axis", 0) not in (1, -3):
        return "it cuts another axis than the channels"
    if any(shape[1] % net.block for shape in parts[:-1]):
        return "it cuts within a block"

    def build(of: dict[str, Any]) -> list[Any]:
        sizes = np.array([whole(net, shape[1]) for shape in parts], np.int64)
        made = [net.blank(f"{tensor.name}_blocked") for tensor in node.outputs]
        inputs, attrs = [of[node.inputs[0].name]], {"axis": 1}
        if net.opset >= 13:
            inputs.append(net.constant(f"{node.name}_sizes", sizes))
        else:
            attrs["split"] = sizes.tolist()
        net.add("Split", inputs, made, node, attrs)
        return made

    return build


def _scale(net: Net, node: Any, known: Shapes) -> Build | None:
    """Mul(x (N, C, H, W), s (N, C, 1, 1)) as a depthwise 1x1 Conv of the one image (1, N C', H, W) with weights s."""
    dims = known[node.outputs[0].name]
    wanted = (*dims[:2], 1, 1)
    pairs = [(one, other) for one, other in (node.inputs, node.inputs[::-1]) if known.get(one.name) == dims]
    found = next(((one, other) for one, other in pairs if known.get(other.name) == wanted != dims), None)
    if found is None or any(isinstance(tensor, gs.Constant) for tensor in found):
        return None
    batch, channels = dims[0], whole(net, dims[1])
    source, scale = found

    def build(of: dict[str, Any]) -> list[Any]:
        factors = _view(net, of[scale.name], (batch * channels, 1, 1, 1), node)
        image = of[source.name] if batch == 1 else _view(net, of[source.name], (1, batch * channels, *dims[2:]), node)
        attrs = {"group": batch * channels, "kernel_shape": [1, 1], "strides": [1, 1], "pads": [0, 0, 0, 0],
                 "dilations": [1, 1], "auto_pad": "NOTSET"}  # fmt: skip
        made = net.blank(f"{node.outputs[0].name}_blocked")
        make(net, "Conv", [image, factors], [made], node, attrs)
        return [made if batch == 1 else _view(net, made, (batch, channels, *dims[2:]), node)]

    return build


def _view(net: Net, tensor: Any, dims: Dims, near: Any) -> Any:
    made = net.blank(f"{tensor.name}_view")
    net.add("Reshape", [tensor, net.constant(f"{tensor.name}_dims", np.array(dims, np.int64))], [made], near)
    return made
