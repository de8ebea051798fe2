"""Fold y = a * x + c per channel into the node that produces x, or read such a map from a node.

For a Conv with weights W of shape (M, C/group, ...) and bias b: a * (W * x + b) + c = (a W) * x + (a b + c).
A ConvTranspose keeps its weights as (C, M/group, ...), so that output channel g * M/group + j is W[i, j] for the input
channels i of group g. Gemm scales the columns (rows with transB) of B. All computations are in float64 and rounded
once.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ..graph.graph import Graph
from ..graph.node import Node

Array = np.ndarray[Any, Any]
# FLOAT, FLOAT16, DOUBLE, BFLOAT16
FLOATS = (1, 10, 11, 16)
ABSORBERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def refusal(net: Graph, node: Node) -> str:
    """Return why a map of a node's output cannot be folded into the node, or an empty string."""
    if node.op == "BatchNormalization":
        affine = batchnorm(net, node)
        elsewhere = f"the output of {node.name!r} is also read elsewhere or is an output of the graph"
        return affine if isinstance(affine, str) else "" if net.only_user(node.outputs[0]) else elsewhere
    if node.op not in ABSORBERS:
        return f"{node.op} has no weights to fold into"
    if net.only_user(node.outputs[0]) is None:
        return f"the output of {node.name!r} is also read elsewhere or is an output of the graph"
    if net.value(node.inputs[1]) is None:
        return f"the weights of {node.name!r} are not constant"
    if net.dtype(node.inputs[1]) not in FLOATS:
        return f"the weights of {node.name!r} are integers"
    if why := shared(net, node):
        return why
    bias = net.input(node, 2)
    if bias is not None and net.value(bias) is None:
        return f"the bias of {node.name!r} is not constant"
    if node.op == "MatMul" and (net.rank(node.inputs[0]), net.rank(node.inputs[1])) != (2, 2):
        return f"{node.name!r} is not a product of two matrices"
    return ""


def channels(net: Graph, node: Node) -> int:
    """Return the number of output channels of a node that `refusal` accepts."""
    shape = net.shape(node.inputs[1]) or ()
    if node.op == "ConvTranspose":
        return int(shape[1]) * int(node.attrs.get("group", 1))
    if node.op == "Conv" or node.attrs.get("transB"):
        return int(shape[0])
    return int(shape[1])


def fits(net: Graph, node: Node, scale: Array, shift: Array) -> bool:
    """Return whether `fold_into_layer` would succeed."""
    return all(array is not None for array in _scaled(net, node, scale, shift))


def _scaled(net: Graph, node: Node, scale: Array, shift: Array) -> tuple[Array | None, Array | None]:
    """Return weights and bias of `scale * node + shift` in the weights' type; None if they exceed its range."""
    weights = net.array(node.inputs[1])
    scaled_weights = scale_weights(weights, _spread(node, weights, scale))
    return scaled_weights, rounded(bias_of(net, node) * scale + shift, weights.dtype)


def fold_into_layer(net: Graph, node: Node, scale: Array, shift: Array) -> str:
    """Fold y = scale * x + shift, per output channel, into a node that `refusal` accepts.

    Args:
        net: The graph.
        node: The Conv, ConvTranspose, Gemm or MatMul (which becomes a Gemm).
        scale: float64, shape (channels,).
        shift: float64, shape (channels,).

    Returns:
        Why the node is unchanged, or an empty string.
    """
    if node.op == "BatchNormalization":
        return _absorb_in_batchnorm(net, node, scale, shift)
    weights, bias = _scaled(net, node, scale, shift)
    if weights is None or bias is None:
        return f"the folded weights do not fit {net.array(node.inputs[1]).dtype}"
    unscaled = bool(np.all(scale == 1))
    first = node.inputs[0]
    if not unscaled:
        note_copy(net, node)
    kept = node.inputs[1] if unscaled else net.constant(f"{node.inputs[1].name}_folded", weights)
    node.inputs = [first, kept, net.constant(f"{node.name or node.op}_bias", bias)]
    if node.op == "MatMul":
        node.op = "Gemm"
    node.attrs.pop("beta", None)
    return ""


def shared(net: Graph, node: Node) -> str:
    """Return why the weights of a layer must not be changed: another layer has them too, and they are not copied."""
    if net.keep_shared and len(node.inputs[1].outputs) > 1:
        return f"the weights of {node.name!r} are shared with another layer, and stay so on request"
    return ""


def note_copy(net: Graph, node: Node) -> None:
    """Remember the layers that share the weights of a layer, which is about to get weights of its own."""
    if len(node.inputs[1].outputs) > 1:
        net.sharers.setdefault(node.inputs[1].name, net.users(node.inputs[1]))


def copied_weights(net: Graph) -> list[str]:
    """Return a line for each tensor of weights that several layers shared and that the file now has more than once."""
    lines = []
    for name, layers in net.sharers.items():
        weights = {layer.inputs[1].name: layer.inputs[1] for layer in layers if len(layer.inputs) > 1}
        sizes = [net.array(tensor).nbytes for tensor in weights.values()]
        more = sum(sizes) - max(sizes, default=0)
        if more:
            lines.append(
                f"the weights {name!r} of {len(layers)} layers were copied, because what is folded into these differs: "
                f"{more / 1e6:.2f} MB more; --keep-shared leaves them"
            )
    return lines


def _absorb_in_batchnorm(net: Graph, node: Node, scale: Array, shift: Array) -> str:
    gain, bias = net.array(node.inputs[1]), net.array(node.inputs[2])
    new_gain = rounded(gain.astype(np.float64) * scale, gain.dtype)
    new_bias = rounded(bias.astype(np.float64) * scale + shift, bias.dtype)
    if new_gain is None or new_bias is None:
        return f"the folded parameters do not fit {gain.dtype}"
    node.inputs[1] = net.constant(f"{node.inputs[1].name}_folded", new_gain)
    node.inputs[2] = net.constant(f"{node.inputs[2].name}_folded", new_bias)
    return ""


def bias_of(net: Graph, node: Node) -> Array:
    """Return the bias of a node in float64, in a shape that broadcasts with (channels,)."""
    tensor = net.input(node, 2)
    array = None if tensor is None else net.value(tensor)
    if array is None:
        return np.zeros(channels(net, node))
    beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
    return array.astype(np.float64) * beta if beta else np.zeros(channels(net, node))


def _spread(node: Node, weights: Array, scale: Array) -> Array:
    """Reshape a scale per output channel so that it broadcasts with the weights."""
    tail = (1,) * (weights.ndim - 2)
    if node.op == "Conv":
        return scale.reshape(-1, 1, *tail)
    if node.op == "ConvTranspose":
        groups = int(node.attrs.get("group", 1))
        each = np.repeat(scale.reshape(groups, -1), weights.shape[0] // groups, axis=0)
        return each.reshape(*each.shape, *tail)
    return scale.reshape(-1, 1) if node.attrs.get("transB") else scale.reshape(1, -1)


def scale_weights(weights: Array, spread: Array) -> Array | None:
    """Return weights * spread in the weights' type, computed in float64 and rounded once.

    None if a value overflows, or may become so small that a channel loses precision, which a later layer may amplify.
    There is no float64 copy of all weights, because networks are large.
    """
    product = np.empty(weights.shape, weights.dtype)
    with np.errstate(all="ignore"):
        np.multiply(weights, spread, out=product, casting="unsafe")
        largest = max(float(weights.max(initial=0)), -float(weights.min(initial=0)))
        smallest = np.abs(spread[spread != 0]).min(initial=np.inf)
    if not np.isfinite(product).all():
        return None
    lost = float(ml_dtypes.finfo(weights.dtype).smallest_subnormal) / 2  # type: ignore[no-untyped-call]
    return product if largest == 0 or lost <= _digits(product) * largest * smallest else None


def rounded(exact: Array, dtype: np.dtype[Any]) -> Array | None:
    """Round float64 to a data type; None if a value overflows, or becomes so small that it loses precision."""
    with np.errstate(all="ignore"):
        array = exact.astype(dtype)
        back = array.astype(np.float64)
    lost, largest = np.abs(back - exact).max(initial=0.0), np.abs(exact).max(initial=0.0)
    return array if np.isfinite(back).all() and lost <= _digits(array) * largest else None


def _digits(array: Array) -> float:
    return 2.0**-6 if array.dtype.kind == "V" else 2.0**-9 if array.itemsize == 2 else 2.0**-20


def batchnorm(net: Graph, node: Node) -> tuple[Array, Array] | str:
    """Return scale and shift, float64 of shape (C,), of a BatchNormalization in inference mode, or why it has none."""
    if node.attrs.get("training_mode", 0) or not node.attrs.get("spatial", 1):
        return "it is in training mode" if node.attrs.get("training_mode", 0) else "it has statistics per position"
    if any(tensor.name for tensor in node.outputs[1:]):
        return "it is in training mode: it has running statistics as outputs"
    names = ("scale", "bias", "mean", "variance")
    parameters = [net.value(tensor) for tensor in node.inputs[1:5]]
    for name, array in zip(names, parameters, strict=True):
        if array is None:
            return f"its {name} is not constant"
    gain, bias, mean, variance = (array.astype(np.float64) for array in parameters if array is not None)
    with np.errstate(all="ignore"):
        scale = gain / np.sqrt(variance + float(node.attrs.get("epsilon", 1e-5)))
        shift = bias - mean * scale
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "its parameters give NaN or infinity"
    return scale, shift


def read_channel_affine(net: Graph, node: Node, side: int, rank: int, size: int) -> tuple[Array, Array] | str:
    """Return scale and shift, float64 of shape (size,), of a Mul, Add, Sub or Div by a constant, or why it has none.

    Args:
        net: The graph.
        node: The operator.
        side: The index of the constant input.
        rank: The rank of the other input, channels on axis 1.
        size: Its number of channels.
    """
    constant = net.array(node.inputs[side])
    if constant.ndim > rank or rank < 2:
        return "its constant has more dimensions than what it is combined with"
    shape = (1,) * (rank - constant.ndim) + constant.shape
    if any(dim != 1 for axis, dim in enumerate(shape) if axis != 1) or shape[1] not in (1, size):
        return f"its constant of shape {list(constant.shape)} is not one value per channel"
    values = np.broadcast_to(constant.astype(np.float64).reshape(-1), (size,))
    ones, zeros = np.ones(size), np.zeros(size)
    with np.errstate(all="ignore"):
        scale = {"Mul": values, "Div": 1 / values}.get(node.op, -ones if node.op == "Sub" and side == 0 else ones)
    shift = {"Add": values, "Sub": values if side == 0 else -values}.get(node.op, zeros)
    if node.op == "Div" and side == 0:
        return "it divides a constant by the activation"
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return "its constant gives NaN or infinity"
    return scale, shift
