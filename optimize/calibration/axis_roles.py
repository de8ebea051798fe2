"""Which axis of each tensor carries the batch, found by running a graph on several samples apart and together.

It is the first in most tensors, but not in all: a recurrent layer has (time, batch, channel), windows and frames are
folded into the first axis, boxes behind a NonMaxSuppression have none. Where running samples together gives other
answers than one by one, the graph is run as its file says, and nothing is known of its axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from ..graph.proto_graph import tensor_types
from ..graph.protobuf import copied
from .inputs import Batch, InputLayout, as_feeds
from .ort_runs import answers, session

SHAPE = "shape/"


@dataclass(frozen=True)
class AxisRoles:
    """The batch axis of each tensor, None for one without; what is not named is told by its size."""

    batch_axes: Mapping[str, int | None] = field(default_factory=dict)

    def batch_axis(self, name: str, shape: tuple[int, ...], count: int) -> int | None:
        """Return the axis of a tensor that holds `count` samples, or None."""
        if name in self.batch_axes:
            return self.batch_axes[name]
        return 0 if shape and shape[0] == count else None

    def rows(self, name: str, value: np.ndarray, count: int) -> np.ndarray:
        """Return the values of each of `count` samples, (count, n); all in one row where they cannot be told apart."""
        axis = self.batch_axis(name, value.shape, count)
        if axis is None or not value.size:
            return value.reshape(1, -1)
        first = np.moveaxis(value, axis, 0)
        return first.reshape(count if len(first) % count == 0 else len(first), -1)


def axis_roles(
    model: onnx.ModelProto, together: onnx.ModelProto, samples: Sequence[Batch], layout: InputLayout
) -> AxisRoles | None:
    """Return the batch axes of a graph's tensors; None where it does not compute the same for samples together.

    Args:
        model: The graph that takes one sample (or its own batch) at a time.
        together: The same one with a free batch; it may be the same object.
        samples: Batches that `model` takes, of different values and one length.
        layout: Which inputs have the batch.
    """
    names = _watched(model)
    one, other = (session(_with_shapes(graph, names), optimise=True) for graph in (model, together))
    apart = [answers(one, as_feeds(model, sample)) for sample in samples]
    try:
        whole = other.run(None, as_feeds(together, layout.join(samples)))
    except Exception:  # whatever ONNX Runtime dislikes: the graph is then run as it is
        return None
    outputs = len(model.graph.output)
    shapes = [[tuple(map(int, value)) for value in run[outputs:]] for run in (*apart, whole)]
    if any(run != shapes[0] for run in shapes[:-1]):
        return None
    axes = {name: grown(*pair, len(samples)) for name, pair in zip(names, zip(shapes[0], shapes[-1], strict=True),
                                                                    strict=True)}  # fmt: skip
    for at, item in enumerate(model.graph.output):
        parts = [run[at] for run in apart]
        axis = grown(parts[0].shape, whole[at].shape, len(samples))
        if not _same(parts, whole[at], axis):
            return None
        axes[item.name] = axis
    return AxisRoles(axes)


def grown(one: tuple[int, ...], many: tuple[int, ...], times: int) -> int | None:
    """Return the only axis that is so many times as long, the others being as they were; None where there is none."""
    if len(one) != len(many):
        return None
    axes = [axis for axis, (size, more) in enumerate(zip(one, many, strict=True)) if size != more]
    return axes[0] if len(axes) == 1 and many[axes[0]] == times * one[axes[0]] else None


def _same(parts: list[np.ndarray], whole: np.ndarray, axis: int | None) -> bool:
    """Say whether answers one by one are those given together."""
    if axis is None:
        return all(part.shape == whole.shape and np.array_equal(part, whole, equal_nan=False) for part in parts)
    if any(part.shape != parts[0].shape for part in parts):
        return False
    expected = np.concatenate(parts, axis=axis)
    if expected.dtype.kind != "f":
        return np.array_equal(expected, whole)
    limit = 1e-3 * float(np.abs(expected).max(initial=0))
    return bool(np.isfinite(limit)) and bool(np.allclose(whole, expected, rtol=1e-3, atol=limit))


def _watched(model: onnx.ModelProto) -> list[str]:
    """Return the float tensors that nodes write, outputs of the graph left out."""
    outputs = {item.name for item in model.graph.output}
    kinds = {item.name: item.type.tensor_type.elem_type for item in tensor_types(model)}
    written = [name for node in model.graph.node if any(node.input) for name in node.output if name]
    return [name for name in written if name not in outputs and kinds.get(name) == onnx.TensorProto.FLOAT]


def _with_shapes(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a graph that answers the shapes of tensors too, behind its own outputs."""
    copy = copied(model)
    for name in names:
        copy.graph.node.append(helper.make_node("Shape", [name], [SHAPE + name], SHAPE + name))
        copy.graph.output.append(helper.make_tensor_value_info(SHAPE + name, onnx.TensorProto.INT64, None))
    return copy
