"""Complexity of a network, layer by layer, by arithmetic on a list of operations.

`models/complexity.py` makes the list from any torch module, `optimize/graph/complexity.py` from any ONNX file; this
module evaluates both, so they agree. One multiply-add is one MAC (the lectures call it one FLOP). Only convolutions and
matrix products have MACs, as in the papers. Memory is that of a layer's output; 1 KB is 1024 bytes.

    receptive field     r' = r + (k - 1) * dilation * s      pixels of the input that one output sees
    effective stride    s' = s * stride                      pixels of the input between two outputs
    effective padding   p' = p + pad * s                     pixels that the first output sees beyond the edge
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HEAVY = ("conv", "deconv", "linear", "matmul")


@dataclass(frozen=True)
class Op:
    """One operation: the values it reads and writes, and the numbers from which its cost follows.

    `inputs` and `output` name values (activations; weights are not among them). Shapes are without the batch if
    there is one. `kernel`, `stride`, `pad`, `dilation` are per spatial axis; empty if they do not apply. `view`:
    the output is the input's memory under another shape.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    output: str
    shapes: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pad: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    params: int = 0
    macs: int = 0
    view: bool = False


@dataclass(frozen=True)
class Field:
    """Receptive field, effective stride and padding of one value, in pixels of the input; along the first axis."""

    size: int = 1
    stride: int = 1
    pad: int = 0


@dataclass(frozen=True)
class Layer:
    """One row of the table. `intensity` is MACs per byte of input, output and parameters."""

    name: str
    kind: str
    input: tuple[int, ...]
    output: tuple[int, ...]
    filters: int | None
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    groups: int
    memory_bytes: int
    params: int
    macs: int
    receptive_field: int
    effective_stride: int
    effective_padding: int
    intensity: float


@dataclass(frozen=True)
class Complexity:
    """The table and its totals. `peak_bytes`: peak of live activations, in the best order found."""

    title: str
    layers: tuple[Layer, ...]
    params: int
    macs: int
    memory_bytes: int
    peak_bytes: int
    best_order_exact: bool
    bytes_per_value: int = field(default=4)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def summarise(
    title: str, ops: Sequence[Op], inputs: dict[str, tuple[int, ...]], params: int, width: int = 4
) -> Complexity:
    """Compute the table.

    Args:
        title: Title of the table.
        ops: Operations in an executable order.
        inputs: Name of each network input -> shape.
        params: Parameters of the whole network, each counted once, including those outside the rows.
        width: Bytes per value; 4 for float32.
    """
    fields = {name: Field() for name in inputs}
    layers = []
    for op in ops:
        fields[op.output] = _field(op, [fields[name] for name in op.inputs if name in fields])
        layers.append(_layer(op, fields[op.output], width))
    peak, exact = peak_activation_bytes(ops, inputs, width)
    shown = tuple(layer for layer in layers if layer.kind != "view")
    return Complexity(
        title,
        shown,
        params,
        sum(layer.macs for layer in shown),
        sum(layer.memory_bytes for layer in shown),
        peak,
        exact,
        width,
    )


def _layer(op: Op, seen: Field, width: int) -> Layer:
    memory = width * math.prod(op.out)
    traffic = memory + width * (sum(math.prod(shape) for shape in op.shapes) + op.params)
    filters = op.out[0] if op.kind in ("conv", "deconv", "linear") else None
    shape = op.shapes[0] if op.shapes else ()
    return Layer(
        op.name, "view" if op.view else op.kind, shape, op.out, filters, op.kernel, op.stride, op.pad, op.groups,
        0 if op.view else memory, op.params, op.macs, seen.size, seen.stride, seen.pad,
        round(op.macs / traffic, 3) if traffic else 0.0,
    )  # fmt: skip


def _field(op: Op, sources: Iterable[Field]) -> Field:
    """Propagate the receptive field through one operation; of several inputs the largest counts."""
    source = max(sources, key=lambda source: source.size, default=Field())
    size, stride, pad = source.size, source.stride, source.pad
    if op.kind == "deconv":
        step = max(1, stride // op.stride[0])
        return Field(size + (math.ceil(op.kernel[0] / op.stride[0]) - 1) * stride, step, pad)
    if op.kernel:
        size += (op.kernel[0] - 1) * op.dilation[0] * stride
        return Field(size, stride * op.stride[0], pad + op.pad[0] * stride)
    if op.kind == "global" or (op.kind == "linear" and op.shapes and len(op.shapes[0]) == 3):
        return Field(size + (op.shapes[0][1] - 1) * stride, stride, pad)
    return source


IN_PLACE = ("act", "norm", "add", "dropout")


MOST_STATES = 20_000


def peak_activation_bytes(ops: Sequence[Op], inputs: Mapping[str, tuple[int, ...]], width: int) -> tuple[int, bool]:
    """Return the peak in bytes, and whether it is proven to be that of the best order.

    All orders are searched (best first, over sets of finished operations) if there are few; otherwise the network's own
    order gives an upper bound.
    """
    graph = _Graph(ops, inputs, width)
    least = graph.search()
    return (least, True) if least is not None else (graph.in_order(), False)


class _Graph:
    """Operations by number, each with the size of its output and its dependencies."""

    def __init__(self, ops: Sequence[Op], inputs: Mapping[str, tuple[int, ...]], width: int) -> None:
        self.root: dict[str, str] = {name: name for name in inputs}
        self.size = {name: width * math.prod(shape) for name, shape in inputs.items()}
        self.start = tuple(self.size)
        self.kept = [op for op in ops if not self._alias(op)]
        self.makes = [op.output for op in self.kept]
        self.reads = [tuple({self.root[name] for name in op.inputs if name in self.root}) for op in self.kept]
        self.size |= {op.output: width * math.prod(op.out) for op in self.kept}
        self.readers: dict[str, list[int]] = {name: [] for name in self.size}
        for number, read in enumerate(self.reads):
            for name in read:
                self.readers[name].append(number)
        maker = {name: number for number, name in enumerate(self.makes)}
        self.waits = [{maker[name] for name in read if name in maker} for read in self.reads]
        self.ends = {name for name in self.makes if not self.readers[name]}

    def _alias(self, op: Op) -> bool:
        """Record the buffer of the output; return True if the operation allocates none (a view)."""
        known = [name for name in op.inputs if name in self.root]
        self.root[op.output] = self.root[known[0]] if op.view and known else op.output
        return bool(op.view and known)

    def step(self, done: frozenset[int], live: int, number: int) -> tuple[int, int]:
        """Return (bytes while `number` runs, bytes afterwards)."""
        freed = [
            name
            for name in self.reads[number]
            if name not in self.ends and all(reader in done or reader == number for reader in self.readers[name])
        ]
        size, free = self.size[self.makes[number]], sum(self.size[name] for name in freed)
        in_place = self.kept[number].kind in IN_PLACE and any(self.size[name] >= size for name in freed)
        return live + (0 if in_place else size), live + size - free

    def in_order(self) -> int:
        """Return the peak in the given order."""
        done: frozenset[int] = frozenset()
        live = peak = sum(self.size[name] for name in self.start)
        for number in range(len(self.kept)):
            during, live = self.step(done, live, number)
            peak, done = max(peak, during), done | {number}
        return peak

    def search(self) -> int | None:
        """Return the lowest peak over all orders; None if there are too many."""
        live = sum(self.size[name] for name in self.start)
        queue: list[tuple[int, int, int, frozenset[int], int]] = [(live, 0, 0, frozenset(), live)]
        seen: set[frozenset[int]] = set()
        pushed = 0
        while queue:
            peak, _, _, done, live = heapq.heappop(queue)
            if len(done) == len(self.kept):
                return peak
            if done in seen:
                continue
            seen.add(done)
            if len(seen) > MOST_STATES:
                return None
            for number, during, after in self._choices(done, live, peak):
                pushed += 1
                heapq.heappush(queue, (max(peak, during), -len(done) - 1, pushed, done | {number}, after))
        return None

    def _choices(self, done: frozenset[int], live: int, peak: int) -> list[tuple[int, int, int]]:
        """Return (operation, bytes during, bytes after) to try next; only one if running it now costs no memory."""
        choices = [(n, *self.step(done, live, n)) for n in self._ready(done)]
        free = [choice for choice in choices if choice[1] <= peak and choice[2] <= live]
        return free[:1] or choices

    def _ready(self, done: frozenset[int]) -> list[int]:
        return [n for n in range(len(self.kept)) if n not in done and self.waits[n] <= done]
