"""A file whose inputs have a fixed batch of several: the batch is made free where each sample keeps its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...optimize.equivalence import difference
from ...optimize.graph.protobuf import copied
from ...optimize.graph.spec_metadata import fed_inputs
from ...runtime.backends import ort
from ...runtime.backends._base import random_feeds
from ...runtime.common.files import scratch
from ...runtime.errors import EdgesmithError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAME = "batch"
FREE = 64  # what free sizes are in the comparison


def with_free_batch(model: onnx.ModelProto, path: Path) -> tuple[onnx.ModelProto, int]:
    """Return a model whose batch is free, and the batch that it had; the model itself and 1 if that was not several.

    An input (3, H, W) is an image without a batch. Inputs and outputs get a free first axis, and constant shapes of
    Reshapes that repeat the batch leave it to the data. Then the samples of one random batch are computed alone, and
    their outputs compared with those of the file.

    Args:
        model: As read from the file; it is not changed.
        path: The file.

    Raises:
        UsageError: The samples have other outputs alone, or cannot be computed alone.
    """
    first = [dim for value in fed_inputs(model)[:1] for dim in value.type.tensor_type.shape.dim]
    batch = first[0].dim_value if len(first) > 1 else 1
    if batch <= 1 or (len(first), batch) == (3, 3):
        return model, 1
    free = _freed(model, batch)
    try:
        with scratch("batch") as folder:
            onnx.save(free, folder / "free.onnx")
            reason = _compared(path, folder / "free.onnx", batch)
    except (EdgesmithError, ValueError) as error:  # protobuf writes no file above 2 GiB
        reason = " ".join(str(error).split())[:200]
    if reason:
        got = f"{'x'.join(str(dim.dim_value or '?') for dim in first)}; alone, {reason}"
        raise UsageError(
            f"the batch of {batch} in {path} cannot be made free", got=got, expected="a batch of 1, or a free one",
            do="export it with a batch of 1",
        )  # fmt: skip
    return free, batch


def _freed(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    free = copied(model)
    del free.graph.value_info[:]
    fed = {value.name for value in fed_inputs(free)}
    for value in (*free.graph.input, *free.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.name in fed and dims and dims[0].dim_value == batch:
            dims[0].dim_param = NAME
        for dim in dims if value.name not in fed else ():
            if dim.dim_value and dim.dim_value % batch == 0:  # the batch, or boxes of all samples in one axis
                dim.Clear()
    _free_reshapes(free, batch)
    inferred = onnx.shape_inference.infer_shapes(free, data_prop=True).graph.output
    for value, known in zip(free.graph.output, inferred, strict=True):
        value.CopyFrom(known)
    return free


def _free_reshapes(model: onnx.ModelProto, batch: int) -> None:
    """Replace the batch at the head of constant shapes: by -1, or by 0, the size of the data, beside another -1."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for at, node in enumerate(one for one in graph.node if one.op_type == "Reshape" and len(one.input) > 1):
        tensor = constants.get(node.input[1])
        shape = onnx.numpy_helper.to_array(tensor) if tensor is not None else np.zeros(0, np.int64)
        if shape.ndim != 1 or not len(shape) or shape[0] != batch:
            continue
        head = 0 if -1 in shape else -1
        name = f"{node.input[1]}_free_{at}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([head, *shape[1:]], np.int64), name))
        node.input[1] = name


def _compared(source: Path, free: Path, batch: int) -> str:
    """Return how the samples of a batch differ when they are computed alone; "" if they do not."""
    with ort.open(source, optimise=False) as session:
        shapes = {tensor.name: [dim or FREE for dim in tensor.shape] for tensor in session.inputs}
        feeds = random_feeds(session.inputs, shape=",".join(f"{name}={'x'.join(map(str, dims))}"
                                                            for name, dims in shapes.items() if dims))  # fmt: skip
        batched = {tensor.name for tensor in session.inputs if tensor.shape[:1] == (batch,)}
        whole = session.run(feeds)
    with ort.open(free, optimise=False) as session:
        single = [
            session.run({name: array[at : at + 1] if name in batched else array for name, array in feeds.items()})
            for at in range(batch)
        ]
    for name, expected in whole.items():
        if problem := _differs(expected, [outputs[name] for outputs in single]):
            return f"output {name!r} {problem}"
    return ""


def _differs(expected: NDArray[Any], parts: Sequence[NDArray[Any]]) -> str:
    shape = parts[0].shape
    if len(shape) != expected.ndim or any(part.shape != shape for part in parts):
        return f"has the shape {shape} instead of a part of {expected.shape}"
    for axis in range(expected.ndim):
        if expected.shape == (*shape[:axis], len(parts) * shape[axis], *shape[axis + 1 :]):
            return difference(expected, np.concatenate(parts, axis))[1]
    return f"has the shape {shape}, of which {len(parts)} do not make {expected.shape}"
