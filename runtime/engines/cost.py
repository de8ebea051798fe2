"""How long a network takes on a GPU that is not here: roofline plus launches, fitted on published latencies.

    t = a * sum over kernels of max(operations / peak, bytes / bandwidth) + b * kernels

At batch 1 small networks are bound by the second term: INT8 with twice the kernels of FP16 can lose.
`a` (how far kernels stay from the roofline) and `b` (what one launch costs) belong to a family of GPUs; `bench/devices`
fits them on `published.csv`, and docs/engines.md has the points and the errors. The kernels are those of an engine
(`kernel_works`) or those that a network's layers become (`bench/devices/roofline.py`). It ranks; it measures nothing.

Roofline: Williams et al., 2009, doi:10.1145/1498765.1498785.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

from ..common.plugins import did_you_mean, normalise
from ..errors import UsageError
from .kernels import CONVOLVING, SYNCHRONISING, Kernel, KernelTensor

DEVICES = Path(__file__).with_name("devices.csv")
BYTES = {"int8": 1, "fp8": 1, "uint8": 1, "bool": 1, "fp16": 2, "bf16": 2, "fp32": 4, "int32": 4, "int64": 8}
# family -> (a, b in seconds); a test recomputes them from the published points.
COEFFICIENTS = {
    "early": (1.362, 23.78e-6), "orin": (1.344, 5.27e-6), "turing": (1.314, 15.28e-6), "discrete": (1.104, 6.21e-6),
    "cpu core": (1.0, 2e-6),  # not fitted: it orders the layers of one network
}  # fmt: skip
L2_SPEED = 4  # times the bandwidth of the memory; of 2, 3, 4 and 6 the values from 4 on fit the points equally well


@dataclass(frozen=True)
class Work:
    """What one kernel has to do: operations (2 per multiply-add), bytes of activations and of constants it moves.

    `dense` is False where tensor cores do not help: depthwise convolutions and everything pointwise.
    """

    name: str
    kind: str
    precision: str
    operations: int
    activation_bytes: int
    constant_bytes: int
    dense: bool

    def times(self, batch: int) -> Work:
        """Return the work of a larger batch; the constants are read once."""
        return Work(self.name, self.kind, self.precision, self.operations * batch, self.activation_bytes * batch,
                    self.constant_bytes, self.dense)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """A GPU's rates: 10^12 operations per second without sparsity (0 where it lacks a type), 10^9 bytes per second.

    `l2_mb` is the cache that holds activations between kernels, and all weights where they fit; 0 where the model is
    better without (Orin's is small). `slowdown` is the full clock over the one it runs at: launches go with the clock.
    """

    name: str
    sm: str
    family: str
    fp32_tflops: float
    fp16_tflops: float
    int8_tops: float
    bandwidth_gbs: float
    l2_mb: float
    slowdown: float = 1.0

    def peak(self, precision: str, dense: bool) -> float:
        """Return operations per second; off the tensor cores FP16 runs at twice and INT8 at four times FP32's rate.

        A type that the GPU lacks is computed in the next wider one.
        """
        if precision in ("int8", "fp8") and not self.int8_tops:
            precision = "fp16"
        if precision in ("fp16", "bf16") and not self.fp16_tflops:
            precision = "fp32"
        if not dense or precision == "fp32":
            return self.fp32_tflops * 1e12 * {"fp16": 2, "bf16": 2, "int8": 4}.get(precision, 1)
        return {"int8": self.int8_tops, "fp8": self.int8_tops}.get(precision, self.fp16_tflops) * 1e12


def kernel_work(kernel: Kernel) -> Work:
    """Count what one kernel does, from the tensors in its record."""
    weight = _weight(kernel)
    out = _elements(kernel.outputs[:1])
    channels = kernel.outputs[0].dims[1] if kernel.outputs and len(kernel.outputs[0].dims) > 1 else 1
    per_output = 2 * prod(weight.dims) // max(channels, 1) if weight else 1
    return Work(kernel.name, kernel.kind, kernel.precision, out * per_output, _bytes((*kernel.inputs, *kernel.outputs)),
                _bytes(kernel.constants), weight is not None and not _grouped(kernel, weight))  # fmt: skip


def _grouped(kernel: Kernel, weight: KernelTensor) -> bool:
    """Whether each output reads few of many input channels (depthwise; TensorRT pads INT8 groups to 4)."""
    channels = kernel.inputs[0].dims[1] if kernel.inputs and len(kernel.inputs[0].dims) == 4 else 0
    return len(weight.dims) == 4 and weight.dims[1] <= 4 < channels


def _weight(kernel: Kernel) -> KernelTensor | None:
    if kernel.kind not in CONVOLVING:
        return None
    for candidates in (kernel.constants, kernel.inputs[1:]):  # dequantised at run time, a weight is an input
        if matrices := [tensor for tensor in candidates if sum(dim > 1 for dim in tensor.dims) > 1]:
            return max(matrices, key=lambda tensor: prod(tensor.dims))
    return None


def _elements(tensors: Iterable[KernelTensor]) -> int:
    return sum(prod(abs(dim) for dim in tensor.dims) for tensor in tensors)


def _bytes(tensors: Iterable[KernelTensor]) -> int:
    return sum(_elements([tensor]) * BYTES.get(tensor.dtype, 4) for tensor in tensors)


def kernel_works(kernels: Iterable[Kernel]) -> list[Work]:
    """Count what each kernel does; entries that only order streams do nothing and are left out."""
    return [kernel_work(kernel) for kernel in kernels if kernel.kind not in SYNCHRONISING]


def limits_s(item: Work, gpu: Gpu, constants_cached: bool = False) -> tuple[float, float]:
    """Return the seconds of a kernel's arithmetic and of its memory; `constants_cached`: they stay in the L2 cache."""
    cache = gpu.l2_mb * 1e6
    activations = item.activation_bytes / (L2_SPEED if item.activation_bytes < cache else 1)
    constants = item.constant_bytes / (L2_SPEED if constants_cached else 1)
    moved = (activations + constants) / (gpu.bandwidth_gbs * 1e9)
    return item.operations / gpu.peak(item.precision, item.dense), moved


def roofline_s(item: Work, gpu: Gpu, constants_cached: bool = False) -> float:
    """Return the least time one kernel can take, in seconds."""
    return max(limits_s(item, gpu, constants_cached))


def kernel_s(item: Work, gpu: Gpu, constants_cached: bool = False) -> float:
    """Return the time that one kernel and its launch are estimated to take, in seconds."""
    a, b = COEFFICIENTS[gpu.family]
    return a * roofline_s(item, gpu, constants_cached) + b * gpu.slowdown


def rooflines_s(items: Iterable[Work], gpu: Gpu, batch: int = 1) -> list[float]:
    """Return the least time of each kernel, in seconds."""
    items = list(items)
    cached = constants_cached(items, gpu)
    return [roofline_s(item.times(batch), gpu, cached) for item in items]


def constants_cached(items: Iterable[Work], gpu: Gpu) -> bool:
    """Return whether the weights of an engine stay in the L2 cache from one inference to the next."""
    return sum(item.constant_bytes for item in items) < 0.7 * gpu.l2_mb * 1e6


def estimate_s(items: Iterable[Work], gpu: Gpu, batch: int = 1) -> float:
    """Return the time that one inference is estimated to take, in seconds; see the module's formula."""
    items = list(items)
    cached = constants_cached(items, gpu)
    return sum(kernel_s(item.times(batch), gpu, cached) for item in items)


@lru_cache
def gpus() -> dict[str, Gpu]:
    """Return the GPUs of devices.csv whose L2 cache is known, by name without «Jetson»; sources stand there."""
    with DEVICES.open(encoding="utf-8", newline="") as file:
        known = [gpu_of_row(row) for row in csv.DictReader(file) if row["l2_mb"]]
    return {gpu.name: gpu for gpu in known}


def gpu_of_row(row: Mapping[str, Any]) -> Gpu:
    """Return the GPU of one row of devices.csv; what is not known there counts as 0."""
    keys = ("fp32_tflops", "fp16_tflops", "int8_tops", "memory_gb_s", "l2_mb")
    fp32, fp16, int8, memory, cache = (float(row[key] or 0) for key in keys)
    name, slowdown = row["device"].removeprefix("Jetson "), float(row.get("slowdown", 1))
    return Gpu(name, row["sm"], _family(row), fp32, fp16, int8, memory, cache, slowdown)


def _family(row: Mapping[str, Any]) -> str:
    """Return the group of GPUs whose kernels cost alike, "" for a CPU: "early" are Jetsons up to Volta."""
    if not row["sm"]:
        return ""
    if row["architecture"] in ("Maxwell", "Pascal", "Volta"):
        return "early"
    if row["architecture"] == "Turing":
        return "turing"
    return "orin" if row["device"].startswith("Jetson ") else "discrete"


def find_gpu(name: str) -> Gpu:
    """Return one GPU by its name, without regard to case, blanks, `_` and `-`.

    Raises:
        UsageError: It is not in the table.
    """
    known_gpu = {normalise(known): item for known, item in gpus().items()}.get(normalise(name))
    if known_gpu is None:
        raise UsageError(f"unknown GPU {name!r}", expected=", ".join(gpus()), do=did_you_mean(name, gpus()))
    return known_gpu


def of_sm(sm: str) -> Gpu | None:
    """Return the GPU of the table that stands for a compute capability, the first one listed; None where none does."""
    return next((gpu for gpu in gpus().values() if gpu.sm == sm), None)


def sidecar_s(kernels: Iterable[Mapping[str, Any]], gpu: Gpu) -> float:
    """Return the estimate for the kernels of an engine's sidecar, in seconds; see `estimate_s`."""
    return estimate_s(kernel_works(map(Kernel.from_dict, kernels)), gpu)
