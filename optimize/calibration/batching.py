"""Run a graph with a fixed batch on many images at once, where nothing in it depends on the batch.

Calibration runs a graph some hundred times; at batch 1 most of that is overhead.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..graph.protobuf import copied
from .statistics import answers, session


def with_free_batch(model: onnx.ModelProto, image: np.ndarray) -> onnx.ModelProto | None:
    """Return a copy with a free batch; None where the batch is free already, or the graph does not work without it.

    Args:
        model: A graph with one input.
        image: One input of the graph's own batch, (N, C, H, W).
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    copy = copied(model)
    inputs = [item for item in copy.graph.input if item.name not in constant]
    fixed = [item.type.tensor_type.shape.dim[0].dim_value for item in inputs]
    if fixed != [len(image)]:
        return None
    for item in (*inputs, *copy.graph.output):
        item.type.tensor_type.shape.dim[0].dim_param = "N"
    del copy.graph.value_info[:]
    return copy if _same(model, copy, inputs[0].name, image) else None


def _same(model: onnx.ModelProto, other: onnx.ModelProto, name: str, image: np.ndarray) -> bool:
    """Say whether three different inputs give the same answers one by one and together."""
    images = [image, image[::, ..., ::-1].copy(), 0.5 * image]
    one = session(model, optimise=True)
    apart = [answers(one, {name: each}) for each in images]
    try:
        together = session(other, optimise=True).run(None, {name: np.concatenate(images)})
    except Exception:  # whatever ONNX Runtime dislikes: the graph is then run as it is
        return False
    tensors = [np.concatenate(parts) for parts in zip(*apart, strict=True)]
    return all(
        whole.shape == parts.shape and np.allclose(whole, parts, rtol=1e-3, atol=1e-3 * float(np.abs(parts).max()))
        for whole, parts in zip(together, tensors, strict=True)
    )


def with_batch_of(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Give a graph the input and output shapes of another one of the same interface, in place."""
    for mine, theirs in ((model.graph.input, source.graph.input), (model.graph.output, source.graph.output)):
        shapes = {item.name: item for item in theirs}
        for item in mine:
            item.CopyFrom(shapes[item.name])
    del model.graph.value_info[:]
    return model
