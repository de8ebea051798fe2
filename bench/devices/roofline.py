"""Modelled latency: a roofline, plus a cost for each kernel launch.

    bound     Σ over the kernels of max(operations / peak, bytes / bandwidth)         Williams et al., 2009
    expected  efficiency · bound + overhead · kernels

A kernel is a convolution, matrix product, pooling or copy; normalisation, activation and addition are fused into the
one before. Depthwise convolutions run on the plain cores, not on tensor cores. `overhead` is of a device's generation:
small networks on a GPU are bound by the number of kernels, not by arithmetic. The constants are fitted on
`published.csv`, batch 1 and more, in log space; the error is that of predicting each device from all others. The bound
counts every byte as read from memory: a large L2 cache (48 MB on an L4) can beat it by some per cent.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from ...runtime.common.complexity import HEAVY, Complexity, Layer
from . import catalogue
from .catalogue import Device

WIDTH = {"fp32": 4, "fp16": 2, "int8": 1}
FUSED = ("act", "norm", "add", "view", "dropout")
GENERATIONS = {"Maxwell": "early", "Pascal": "early", "Volta": "early", "Turing": "discrete", "Ada": "discrete",
               "Hopper": "discrete", "Blackwell": "discrete"}  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """The two constants: a factor on the bound, and seconds for each kernel by generation."""

    efficiency: float
    overhead_s: Mapping[str, float]


# `fit(published(), …)`; tests/bench/test_roofline.py does it again.
FITTED = Fit(1.37, {"early": 24.7e-6, "orin": 6.4e-6, "discrete": 6.7e-6})
# Each device predicted from the others: half of the 19 points within a factor of 1.14, two in three within 1.25, the
# worst (L4) 2.03.
SPREAD, WORST = 1.25, 2.03


@dataclass(frozen=True)
class Point:
    """One published latency, in seconds for the whole batch."""

    device: str
    precision: str
    network: str
    batch: int
    seconds: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Seconds for a batch: the bound no implementation can beat, what to expect, and the range of two in three."""

    bound_s: float
    expected_s: float
    low_s: float
    high_s: float
    kernels: int
    limit: str


def generation(device: Device) -> str:
    """Return the group whose kernels cost alike: "early", "orin" or "discrete"; "none" for a CPU."""
    if not device.is_gpu:
        return "none"
    if device.device.startswith("Jetson") and device.architecture in ("Ampere", "Blackwell"):
        return "orin"
    return GENERATIONS.get(device.architecture, "discrete")


def fused_layers(network: Complexity) -> list[Layer]:
    """Return the layers that are a kernel of their own."""
    return [layer for layer in network.layers if layer.kind not in FUSED]


def times(network: Complexity, device: Device, precision: str, batch: int = 1) -> list[tuple[float, float]]:
    """Return (arithmetic, memory) seconds of each kernel."""
    width, bounds = WIDTH[precision], []
    for layer in fused_layers(network):
        depthwise = layer.kind in ("conv", "deconv") and layer.groups > 1 and layer.groups == layer.input[0]
        plain = depthwise or layer.kind not in HEAVY
        peak = device.core_flops(precision) if plain else device.peak_flops(precision)
        moved = batch * (math.prod(layer.input) + math.prod(layer.output)) + layer.params
        bounds.append((2 * layer.macs * batch / peak, moved * width / (device.memory_gb_s * 1e9)))
    return bounds


def latency_bound(network: Complexity, device: Device, precision: str, batch: int = 1) -> float:
    """Return the seconds that no implementation with these kernels can beat."""
    return sum(max(pair) for pair in times(network, device, precision, batch))


def estimate_latency(network: Complexity, device: Device, precision: str, batch: int = 1) -> Estimate:
    """Return bound, expectation and range; for a device without a GPU the bound alone is known, and the range open."""
    pairs = times(network, device, precision, batch)
    least, count = sum(max(pair) for pair in pairs), len(pairs)
    memory = sum(slow for fast, slow in pairs if slow > fast)
    group = generation(device)
    if group == "none":
        return Estimate(least, math.inf, least, math.inf, count, "memory" if memory > least / 2 else "arithmetic")
    cost = FITTED.overhead_s[group] * count * device.slowdown  # launching is clocked as computing is
    likely = FITTED.efficiency * least + cost
    limit = "kernel launches" if cost > likely / 2 else ("memory" if memory > least / 2 else "arithmetic")
    return Estimate(least, likely, max(least, likely / SPREAD), likely * SPREAD, count, limit)


def fits_memory(network: Complexity, device: Device, precision: str, batch: int = 1, reserved_gb: float = 1.0) -> bool:
    """Say whether weights and activations fit beside what the system and the runtime reserve (1 GB)."""
    need = WIDTH[precision] * (network.params + batch * network.peak_bytes / network.bytes_per_value)
    return need <= (device.memory_gb - reserved_gb) * 1e9


def published_points() -> list[Point]:
    """Return the published latencies."""
    text = files(__package__).joinpath("published.csv").read_text(encoding="utf-8")
    return [
        Point(
            row["device"], row["precision"], row["network"], int(row["batch"]), float(row["ms"]) * 1e-3, row["source"]
        )
        for row in csv.DictReader(text.splitlines())
    ]


def fit_prices(points: Sequence[Point], networks: Mapping[str, Complexity]) -> Fit:
    """Fit the constants on points: least squares of log(expected / published), over a grid of 2 % steps."""
    import numpy as np

    known = catalogue.catalogue()
    bounds = np.array([latency_bound(networks[p.network], known[p.device], p.precision, p.batch) for p in points])
    counts = np.array([len(fused_layers(networks[p.network])) for p in points])
    groups = [generation(known[p.device]) for p in points]
    seconds = np.array([p.seconds for p in points])
    grid = 1e-6 * 1.02 ** np.arange(250)
    best: tuple[float, Fit] = (math.inf, Fit(1.0, {}))
    for efficiency in 1.02 ** np.arange(70):
        error, overhead = 0.0, {}
        for group in sorted(set(groups)):
            mine = np.array([name == group for name in groups])
            likely = efficiency * bounds[mine] + grid[:, None] * counts[mine]
            errors = np.square(np.log(likely / seconds[mine])).sum(axis=1)
            overhead[group] = float(grid[errors.argmin()])
            error += float(errors.min())
        if error < best[0]:
            best = error, Fit(float(efficiency), overhead)
    return best[1]


def validate(points: Sequence[Point], networks: Mapping[str, Complexity]) -> list[tuple[Point, float]]:
    """Predict the points of each device from those of all others; return (point, predicted / published).

    A device that is the only one of its generation borrows the mean overhead of the others.
    """
    import numpy as np

    known, ratios = catalogue.catalogue(), []
    for name, mine in itertools.groupby(sorted(points, key=lambda p: p.device), key=lambda p: p.device):
        fitted = fit_prices([p for p in points if p.device != name], networks)
        spare = float(np.exp(np.mean(np.log(list(fitted.overhead_s.values())))))
        for p in mine:
            cost = fitted.overhead_s.get(generation(known[name]), spare) * len(fused_layers(networks[p.network]))
            likely = fitted.efficiency * latency_bound(networks[p.network], known[name], p.precision, p.batch) + cost
            ratios.append((p, likely / p.seconds))
    return ratios
