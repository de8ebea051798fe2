"""Run a graph with a fixed batch on many images at once, where nothing in it depends on the batch.

Calibration runs a graph some hundred times; at batch 1 most of that is overhead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx

from ..graph.protobuf import copied
from .axis_roles import AxisRoles, axis_roles
from .inputs import Batch, InputLayout, input_layout

# One sample of so many values is run by itself: nothing is gained by more, and three together would need their memory.
LARGE = 1 << 21


@dataclass(frozen=True)
class FreeGraph:
    """A graph to calibrate with.

    Attributes:
        model: The graph, with a free batch where it works so.
        size: Samples in one run: None is free, 0 leaves batches as they are given.
        layout: Its inputs.
        roles: Which axis of each tensor is the batch, as far as it is known.
    """

    model: onnx.ModelProto
    size: int | None
    layout: InputLayout
    roles: AxisRoles


def free_graph(model: onnx.ModelProto, batch: Batch, layout: InputLayout) -> FreeGraph:
    """Return a graph as many samples can run through it at once: with a free batch, or one batch after the other.

    Args:
        model: The graph.
        batch: Samples, as many as its own batch where that is fixed, else at least one.
        layout: Its inputs.
    """
    value = layout.main_of(batch)
    if layout.size == 0 or value[:1].size >= LARGE:
        return FreeGraph(model, 0 if layout.size == 0 else layout.size or 1, layout, AxisRoles())
    for alone in (False, True) if len(layout.batched) > 1 else (False,):
        kind = replace(layout, alone=alone)
        copy = _with_free_inputs(model, kind) if layout.size else model
        roles = axis_roles(model, copy, _different(batch, kind), kind)
        if roles is not None:
            if layout.size:
                _name_batches(copy, model, kind, roles)
            names = replace(input_layout(copy), channels_last=layout.channels_last, alone=alone)
            return FreeGraph(copy, None, names, roles)
    return FreeGraph(model, layout.size or 1, layout, AxisRoles())


def _with_free_inputs(model: onnx.ModelProto, layout: InputLayout) -> onnx.ModelProto:
    """Return a copy that says nothing of its batch."""
    copy = copied(model)
    for item in copy.graph.input:
        if item.name in layout.batched:
            item.type.tensor_type.shape.dim[0].Clear()
    for item in copy.graph.output:
        for dim in item.type.tensor_type.shape.dim:
            dim.Clear()
    del copy.graph.value_info[:]
    return copy


def _name_batches(copy: onnx.ModelProto, model: onnx.ModelProto, layout: InputLayout, roles: AxisRoles) -> None:
    """Name the batch of inputs and outputs, and say their other dimensions as the model does."""
    items = [*model.graph.input, *model.graph.output]
    names = {dim.dim_param for item in items for dim in item.type.tensor_type.shape.dim}
    name = "N"
    while name in names:
        name += "_batch"
    shapes = {item.name: item.type.tensor_type.shape for item in items}
    for item in (*copy.graph.input, *copy.graph.output):
        axis = 0 if item.name in layout.batched else roles.batch_axes.get(item.name)
        item.type.tensor_type.shape.CopyFrom(shapes[item.name])
        if axis is not None and axis < len(shapes[item.name].dim):
            item.type.tensor_type.shape.dim[axis].dim_param = name


def with_free_batch(model: onnx.ModelProto, image: Batch) -> onnx.ModelProto | None:
    """Return a copy with a free batch; None where the batch is free already, or the graph does not work without it.

    Args:
        model: The graph.
        image: Its input, or all by name, of the graph's own batch.
    """
    layout = input_layout(model)
    if not layout.size or layout.length(image) != layout.size:
        return None
    free = free_graph(model, image, layout)
    return free.model if free.size is None else None


def _different(batch: Batch, layout: InputLayout) -> list[Batch]:
    """Return three batches of different values, of the length of the first."""
    count = layout.size or 1

    def changed(value: np.ndarray, way: int) -> np.ndarray:
        if way == 1:
            return np.ascontiguousarray(np.flip(value, axis=-1)) if value.ndim else value
        half = value // 2 if value.dtype.kind == "u" else 0.5 * value
        return np.asarray(half, value.dtype) if way == 2 and value.dtype.kind in "fu" else value

    first = layout.part(batch, 0, count)
    if not isinstance(first, dict):
        return [changed(first, way) for way in range(3)]
    return [
        {name: changed(value, way) if name in layout.batched else value for name, value in first.items()}
        for way in range(3)
    ]


def with_batch_of(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Give a graph the input and output shapes of another one of the same interface, in place."""
    for mine, theirs in ((model.graph.input, source.graph.input), (model.graph.output, source.graph.output)):
        shapes = {item.name: item for item in theirs}
        for item in mine:
            item.CopyFrom(shapes[item.name])
    del model.graph.value_info[:]
    return model
