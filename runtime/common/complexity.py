"""What a network costs, layer by layer, as the lectures count it; plain arithmetic on a list of operations.

`models/complexity.py` makes the list from any torch module, `optimize/graph/complexity.py` from any ONNX file; both are read
here, so the two agree. One multiply-add is one MAC (the lectures call it one FLOP). Only convolutions and matrix
products have MACs, as in the papers. Memory is that of a layer's output; 1 KB is 1024 bytes.

    receptive field     r' = r + (k - 1) * dilation * s      pixels of the input that one output sees
    effective stride    s' = s * stride                      pixels of the input between two outputs
    effective padding   p' = p + pad * s                     pixels that the first output sees beyond the edge
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ._schedule import peak_bytes

HEAVY = ("conv", "deconv", "linear", "matmul")


@dataclass(frozen=True)
class Op:
    """One operation: which values it reads and makes, and the numbers that its cost follows from.

    `inputs` and `output` name values (activations; weights are not among them). Shapes are without the batch where
    there is one. `kernel`, `stride`, `pad`, `dilation` are per spatial axis; empty where they mean nothing. `view`:
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
    """The table and its totals. `peak_bytes`: activations alive at once, in the best order found."""

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
    """Make the table.

    Args:
        title: What it is a table of.
        ops: In an order in which they can run.
        inputs: The network's inputs: name of the value to shape.
        params: Parameters of the whole network; each counted once, also those that no row shows.
        width: Bytes per value; 4 for float32.
    """
    fields = {name: Field() for name in inputs}
    layers = []
    for op in ops:
        fields[op.output] = _field(op, [fields[name] for name in op.inputs if name in fields])
        layers.append(_layer(op, fields[op.output], width))
    peak, exact = peak_bytes(ops, inputs, width)
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
    """Carry the receptive field through one operation; of several inputs the one that sees most counts."""
    source = max(sources, key=lambda found: found.size, default=Field())
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
