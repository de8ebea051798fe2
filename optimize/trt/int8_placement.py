"""Selection of INT8 or FP16 for each node: the mix with the lowest estimate of the cost model on one GPU.

Measured on TensorRT-RTX's kernel lists, per weighted node:

    FP16                  conv(fp16 -> fp16: bias, ReLU and the residual Add inside)                       1 kernel
    INT8, per tensor      requantise(fp16 -> int8), conv(int8 -> fp16: bias, ReLU and the Add inside)      2 kernels
    INT8, per channel     [requantise,] conv(int8 -> fp32), scale-bias-ReLU-Add-requantise(fp32 -> int8)   2 or 3

A requantisation is free if only a pointwise kernel writes the tensor, and it serves all INT8 consumers of the tensor.
So INT8 is faster if a convolution saves more than a launch and the extra traffic: large weights, many operations, large
batches; never for a depthwise convolution. `place` is a local search from all float and from all INT8: it flips nodes
and runs of nodes while the estimate falls, and keeps the better result: an upper bound on the optimum, and never worse
than either start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from ...runtime.engines.cost import Gpu, Work, constants_cached, kernel_s, kernel_work
from ...runtime.engines.kernels import SYNCHRONISING, Kernel

LONGEST_RUN = 6


@dataclass(frozen=True)
class Placement:
    """The weighted nodes to quantise for one GPU and batch, and the cost model's estimates.

    `estimates_s` and `kernels` are of "fp16", "int8" (every dense node) and "mixed"; they are predictions, to be
    confirmed on the kernel list of the built engine. `int8` is empty if INT8 is slower than FP16.
    """

    gpu: str
    batch: int
    int8: tuple[str, ...]
    floats: tuple[str, ...]
    estimates_s: dict[str, float]
    kernels: dict[str, int]

    @property
    def verdict(self) -> str:
        """Return a sentence that names the fastest of the three estimates."""
        times = {name: f"{seconds * 1e3:.3f} ms" for name, seconds in self.estimates_s.items()}
        sentence = f"fp16 {times['fp16']}, all INT8 {times['int8']}, mixed {times['mixed']}"
        if not self.int8:
            return f"INT8 is slower than FP16 on {self.gpu} at batch {self.batch}: {sentence} (estimated)"
        count = len(self.int8) + len(self.floats)
        return f"{len(self.int8)} of {count} nodes in INT8 on {self.gpu}: {sentence} (estimated)"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "verdict": self.verdict}


class Chain:
    """The kernels of an FP16 engine as a graph, with the cost of each for a selection of INT8 kernels."""

    def __init__(self, kernels: Sequence[Kernel], gpu: Gpu, batch: int, per_tensor: bool) -> None:
        self.kernels, self.gpu, self.batch, self.per_tensor = kernels, gpu, batch, per_tensor
        self.works = [kernel_work(kernel) for kernel in kernels]
        self.cached = constants_cached(self.works, gpu)
        maker = {tensor.name: at for at, kernel in enumerate(kernels) for tensor in kernel.outputs}
        self.readers: list[set[int]] = [set() for _ in kernels]
        self.makers: list[set[int]] = [set() for _ in kernels]
        for at, kernel in enumerate(kernels):
            first = kernel.inputs[:1]  # a convolution quantises its first input; the second is the residual
            for tensor in kernel.inputs:
                if tensor.name in maker:
                    self.makers[at].add(maker[tensor.name])
            for tensor in first if first and first[0].name in maker else ():
                self.readers[maker[tensor.name]].add(at)
        self.dense = [at for at, item in enumerate(self.works) if item.dense and item.precision == "fp16"]

    def parts(self, at: int, chosen: frozenset[int] | set[int]) -> list[Work]:
        """Return the kernels that replace one FP16 kernel if those in `chosen` run in INT8."""
        item, out = self.works[at], self.works[at]
        elements = sum(prod(abs(dim) for dim in tensor.dims) for tensor in self.kernels[at].outputs)
        wanted = bool(self.readers[at] & chosen)
        if at not in chosen:
            if not wanted:
                return [item]
            if item.kind == "kgen" and len(self.kernels[at].outputs) == 1 and self.readers[at] <= chosen:
                return [replace(item, activation_bytes=item.activation_bytes + elements)]
            return [item, _pointwise(3 * elements)]
        first = prod(abs(dim) for dim in self.kernels[at].inputs[0].dims)
        small = replace(out, precision="int8", constant_bytes=item.constant_bytes // 2)
        if self.per_tensor:
            conv = replace(small, activation_bytes=item.activation_bytes - first)
            return [conv, _pointwise(3 * elements)] if wanted else [conv]
        if self.into_pointwise(at):
            return [replace(small, activation_bytes=first + 6 * elements)]
        residual = item.activation_bytes - 2 * first - 2 * elements
        conv = replace(small, activation_bytes=first + 4 * elements)
        both = not wanted or bool(self.readers[at] - chosen) or len(self.readers[at]) == 0
        return [conv, _pointwise(4 * elements + residual + elements * wanted + 2 * elements * both)]

    def into_pointwise(self, at: int) -> bool:
        """Whether the only consumer is a pointwise kernel, which then also computes scale, bias and ReLU."""
        users = [other for other, makers in enumerate(self.makers) if at in makers]
        return len(users) == 1 and self.kernels[users[0]].kind == "kgen"

    def local_s(self, at: int, chosen: set[int]) -> tuple[float, int]:
        """Return the estimated seconds and the number of kernels that replace one FP16 kernel."""
        parts = self.parts(at, chosen)
        return sum(kernel_s(item.times(self.batch), self.gpu, self.cached) for item in parts), len(parts)

    def total(self, chosen: set[int]) -> tuple[float, int]:
        """Return the estimated seconds and the number of kernels of the whole engine."""
        each = [self.local_s(at, chosen) for at in range(len(self.kernels))]
        return sum(seconds for seconds, _ in each), sum(count for _, count in each)

    def gain_s(self, flip: Iterable[int], chosen: set[int]) -> float:
        """Return the seconds saved by flipping some kernels."""
        flip = set(flip)
        touched = flip | {maker for at in flip for maker in self.makers[at]}
        after = chosen ^ flip
        return sum(self.local_s(at, chosen)[0] - self.local_s(at, after)[0] for at in touched)


def _pointwise(moved: int) -> Work:
    return Work("requantise", "kgen", "fp16", 0, moved, 0, dense=False)


def _descend(chain: Chain, start: set[int]) -> set[int]:
    chosen, better = set(start), True
    runs = [chain.dense[at : at + size] for size in range(1, LONGEST_RUN + 1) for at in range(len(chain.dense))]
    while better:
        better = False
        for run in runs:
            flips = [set(run), {at for at in run if at not in chosen}, {at for at in run if at in chosen}]
            flip = max(flips, key=lambda some: chain.gain_s(some, chosen))
            if flip and chain.gain_s(flip, chosen) > 1e-9:
                chosen ^= flip
                better = True
    return chosen


def place(
    kernels: Iterable[Kernel], weighted: Iterable[str], gpu: Gpu, *, batch: int = 1, per_tensor: bool = False
) -> Placement:
    """Select the nodes to quantise.

    Args:
        kernels: The kernel list of the FP16 engine (batch 1).
        weighted: Names of the Conv and Gemm nodes of the ONNX file.
        gpu: The GPU.
        batch: The batch size at run time.
        per_tensor: Whether the weights get one scale per tensor (if the accuracy allows it) or one per channel.
    """
    computing = [kernel for kernel in kernels if kernel.kind not in SYNCHRONISING]
    chain = Chain(computing, gpu, batch, per_tensor)
    full = set(chain.dense)
    ends = [_descend(chain, start) for start in (set(), full)]
    best = min(ends, key=lambda chosen: chain.total(chosen)[0])
    totals = {"fp16": chain.total(set()), "int8": chain.total(full), "mixed": chain.total(best)}
    names = set(weighted)
    chosen = {name for at in best for name in _computes(computing[at], names)}
    return Placement(
        gpu.name, batch, tuple(sorted(chosen)), tuple(sorted(names - chosen)),
        {name: seconds for name, (seconds, _) in totals.items()}, {name: count for name, (_, count) in totals.items()},
    )  # fmt: skip


def _computes(kernel: Kernel, weighted: set[str]) -> list[str]:
    """Return the weighted node that a kernel computes: the node in its name, else the first node that it lists."""
    mentioned = [name for name in kernel.nodes if name in weighted]
    return [name for name in mentioned if kernel.name.startswith(name)][:1] or mentioned[:1]


def weighted_nodes(path: str | Path) -> list[str]:
    """Return the names of the Conv, Gemm and MatMul nodes of an ONNX file, in order."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def kernels_of(records: Iterable[Mapping[str, Any]]) -> list[Kernel]:
    """Return the kernels of a sidecar's records."""
    return [Kernel.from_dict(record) for record in records]
