"""Tensors that only an activation function reads which is flat somewhere: what lies there need not be told apart.

    HardSwish(x) = x HardSigmoid(x)    0 for x <= -3, whatever x is: a range that starts at -3 loses nothing
    HardSigmoid(x)                     0 or 1 beyond -beta/alpha and (1 - beta)/alpha
    SiLU(x) = x Sigmoid(x), Sigmoid    nearly flat: the range starts where the function's error is least

A convolution before a SiLU may answer -20 to 10 where all that matters is -6 to 10: cut there, the step is half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ..graph.proto_graph import ProtoGraph, attributes
from .placement import QuantPlan
from .quant_params import QuantParams, quant_params

Function = Callable[[np.ndarray], np.ndarray]
# Where a nearly flat function may be cut: Sigmoid is 3.4e-4 and SiLU -2.7e-3 at -8.
CUTS = (8.0, 7.0, 6.0, 5.0, 4.0)


@dataclass(frozen=True)
class SaturatingActivation:
    """A function, and ranges outside of which its argument hardly matters; the first is the widest.

    With `gain`, (C,), the tensor holds the argument times the gain of its channel, and so do the limits.
    """

    function: Function
    limits: tuple[tuple[float, float], ...]
    gain: np.ndarray | None = None

    def at(self, channels: np.ndarray) -> Function:
        """Return the function for values that stand in these channels, both of one shape."""
        if self.gain is None:
            return self.function
        gain, function = self.gain[channels].astype(np.float64), self.function
        return lambda x: function(x / gain)

    def cut(self, low: float, high: float) -> tuple[float, float]:
        """Return a range without what lies beyond the widest limits."""
        return max(low, self.limits[0][0]), min(high, self.limits[0][1])

    def tried(self, at: QuantParams) -> list[QuantParams]:
        """Return a grid cut at each of the limits."""
        return [quant_params(max(at.low, low), min(at.high, high), at.kind) for low, high in self.limits]


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def silu(x: np.ndarray) -> np.ndarray:
    """Return x sigmoid(x)."""
    return np.asarray(x * sigmoid(x))


def saturating_activations(net: ProtoGraph, plan: QuantPlan) -> dict[str, SaturatingActivation]:
    """Return what is known of each quantised tensor that one activation function alone reads, before Q/DQ stand."""
    activations = {}
    for name in plan.quantized_reads:
        alone = name not in plan.shared_scale and name not in plan.shared_scale.values() and name not in net.outputs
        bend = _bend(net.readers.get(name, []), net) if alone else None
        if bend is not None:
            activations[name] = bend
    return activations


def _bend(readers: list[NodeProto], net: ProtoGraph) -> SaturatingActivation | None:
    kinds = sorted({node.op_type for node in readers})
    gates = [node for node in readers if node.op_type in {"Sigmoid", "HardSigmoid"}]
    if kinds == ["HardSwish"]:
        return SaturatingActivation(lambda x: np.asarray(x * np.clip(x / 6 + 0.5, 0, 1)), ((-3.0, np.inf),))
    if not gates or len({node.op_type for node in gates}) > 1:
        return None
    products = [node for node in readers if node not in gates]
    if any(node.op_type != "Mul" or not {gate.output[0] for gate in gates} & set(node.input) for node in products):
        return None
    if any(net.readers.get(gate.output[0]) != products for gate in gates) and products:
        return None
    if gates[0].op_type == "Sigmoid":
        if products:
            return SaturatingActivation(silu, tuple((-cut, np.inf) for cut in CUTS))
        return SaturatingActivation(sigmoid, tuple((-cut, cut) for cut in CUTS))
    values = attributes(gates[0])
    alpha, beta = float(values.get("alpha", 0.2)), float(values.get("beta", 0.5))
    if alpha <= 0:
        return None
    low, high = -beta / alpha, (1 - beta) / alpha
    hard: Function = lambda x: np.asarray(np.clip(alpha * x + beta, 0, 1))  # noqa: E731
    return (
        SaturatingActivation(lambda x: x * hard(x), ((low, np.inf),))
        if products
        else SaturatingActivation(hard, ((low, high),))
    )
