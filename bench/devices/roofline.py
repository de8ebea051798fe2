"""Modelled latency of a network that is known by its layers: they become kernels of the one cost model.

A kernel is a convolution, matrix product, pooling or copy; normalisation, activation and addition are fused into the
one before, which then reads an addition's other operand too. So the roofline of ResNet-50's 56 layers is that of its
engine's 57 kernels to within 2 % on each published device. ShuffleNet v2's 91 are 76 in an engine: Concat and shuffle
count as two here. Formula and constants stand in `runtime/engines/cost.py`, their fit in `fit.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ...runtime.common.complexity import HEAVY, Complexity, Layer
from ...runtime.engines.cost import BYTES, COEFFICIENTS, Work, constants_cached, estimate_s, limits_s
from .catalogue import Device

PRECISIONS = ("fp32", "fp16", "int8")
FUSED = ("act", "norm", "add", "view", "dropout")
# Each device predicted from the others: two in three of the 19 points within the first factor, the worst (T4) within
# the second; see docs/engines.md.
SPREAD, WORST = 1.26, 1.51


@dataclass(frozen=True)
class Estimate:
    """Seconds for a batch: the bound no implementation can beat, what to expect, and the range of two in three."""

    bound_s: float
    expected_s: float
    low_s: float
    high_s: float
    kernels: int
    limit: str


def network_works(network: Complexity, precision: str) -> list[Work]:
    """Return what each kernel of a network does at batch 1, everything computed in one precision."""
    works: list[Work] = []
    for layer in network.layers:
        if layer.kind not in FUSED:
            works.append(_work(layer, precision))
        elif layer.kind == "add" and works:
            other = math.prod(layer.output) * BYTES[precision]
            works[-1] = replace(works[-1], activation_bytes=works[-1].activation_bytes + other)
    return works


def _work(layer: Layer, precision: str) -> Work:
    depthwise = layer.kind in ("conv", "deconv") and layer.groups > 1 and layer.groups == layer.input[0]
    width, moved = BYTES[precision], math.prod(layer.input) + math.prod(layer.output)
    dense = layer.kind in HEAVY and not depthwise
    return Work(layer.name, layer.kind, precision, 2 * layer.macs, moved * width, layer.params * width, dense)


def estimate_latency(network: Complexity, device: Device, precision: str, batch: int = 1) -> Estimate:
    """Return bound, expectation and range; for a device without a GPU the bound alone is known, and the range open."""
    works, gpu = network_works(network, precision), device.gpu
    cached = constants_cached(works, gpu)
    limits = [limits_s(work.times(batch), gpu, cached) for work in works]
    least, memory = sum(map(max, limits)), sum(memory_s for compute_s, memory_s in limits if memory_s > compute_s)
    limit = "memory" if memory > least / 2 else "arithmetic"
    if gpu.family not in COEFFICIENTS:
        return Estimate(least, math.inf, least, math.inf, len(works), limit)
    likely = estimate_s(works, gpu, batch)
    launches = COEFFICIENTS[gpu.family][1] * gpu.slowdown * len(works)
    limit = "kernel launches" if launches > likely / 2 else limit
    return Estimate(least, likely, max(least, likely / SPREAD), likely * SPREAD, len(works), limit)


def fits_memory(network: Complexity, device: Device, precision: str, batch: int = 1, reserved_gb: float = 1.0) -> bool:
    """Say whether weights and activations fit beside what the system and the runtime reserve (1 GB)."""
    need = BYTES[precision] * (network.params + batch * network.peak_bytes / network.bytes_per_value)
    return need <= (device.memory_gb - reserved_gb) * 1e9
