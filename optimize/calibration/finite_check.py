"""Can any value of a graph have been infinite or NaN? Mostly the weights and what was seen say that none can.

What is finite and goes into a convolution comes out finite unless the sums overflow, and how large these can be is
known: sum |w| times the largest input. So no activation has to be searched for NaN, which a maximum may pass over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from . import statistics
from .axis_roles import AxisRoles
from .inputs import Batch, input_names
from .statistics import ChannelAxes, Stats

# Far below float32's 3.4e38: whatever order a kernel adds in, and whatever it keeps meanwhile.
LARGEST = 1e30
# Operators that answer nothing larger than the largest of what they read.
NO_LARGER = frozenset(
    {"AveragePool", "Clip", "Concat", "DepthToSpace", "Flatten", "Gather", "GlobalAveragePool", "GlobalMaxPool",
     "HardSwish", "Identity", "MaxPool", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "Relu", "Reshape", "Slice",
     "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)  # fmt: skip
AT_MOST_ONE = frozenset({"HardSigmoid", "Sigmoid", "Softmax", "Tanh"})
LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
KNOWN = NO_LARGER | AT_MOST_ONE | LAYERS | {"Add", "Sub", "Mul"}


def collect(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[Batch],
    *,
    histograms: bool = False,
    channels: ChannelAxes = True,
    roles: AxisRoles | None = None,
) -> dict[str, Stats]:
    """Return what `observe.collect` does, without a search for NaN where there can be none.

    Args:
        model: The float graph.
        names: Tensors.
        batches: Images without NaN or infinity; walked twice where there may be one inside.
        histograms: Count values too.
        channels: The channel axis of each tensor, 1 where it is not named.
        roles: Which axis of each tensor is the batch.

    Raises:
        DataError: A tensor holds NaN or infinity.
    """
    if not histograms and is_known(model):
        kinds = {item.name: item.type.tensor_type.elem_type for item in model.graph.input}
        floats = [name for name in input_names(model) if kinds[name] == onnx.TensorProto.FLOAT]
        watched = list(dict.fromkeys([*names, *floats]))
        stats = statistics.collect(model, watched, batches, channels=channels, sums=False)
        if finite(model, {name: max(-seen.low, seen.high) for name, seen in stats.items()}):
            return {name: stats[name] for name in names}
    return statistics.collect(model, names, batches, histograms=histograms, channels=channels, roles=roles)


def is_known(model: onnx.ModelProto) -> bool:
    """Say whether `finite` knows every operator of a graph."""
    return all(node.op_type in KNOWN and node.domain in ("", "ai.onnx") for node in model.graph.node)


def finite(model: onnx.ModelProto, seen: Mapping[str, float]) -> bool:
    """Say whether nothing in a graph can have been infinite or NaN on inputs that were finite.

    Args:
        model: A float32 graph of which `is_known`.
        seen: Tensor -> the largest absolute value that was seen of it, its input among them. A maximum that passed
            over a NaN does no harm: the first tensor with one would have been made of finite ones, by sums too large.
    """
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    most = {name: _peak(array) for name, array in arrays.items() if array.dtype.kind in "fiu"}
    most |= {item.name: _largest(item) for item in model.graph.input if item.name not in arrays}
    most |= {item.name: seen[item.name] for item in model.graph.input if item.name in seen}
    for node in model.graph.node:
        names = [name for name in node.input if name]
        bound = _bound(node, arrays, [most.get(name, np.inf) for name in names])
        if not bound < LARGEST:
            return False
        most |= {name: min(bound, seen.get(name, np.inf)) for name in node.output}
    return True


def _largest(item: onnx.ValueInfoProto) -> float:
    """Return the largest absolute value that an input's type has."""
    kind = onnx.helper.tensor_dtype_to_np_dtype(item.type.tensor_type.elem_type)
    return float(np.iinfo(kind).max) if kind.kind in "iu" else 1.0 if kind.kind == "b" else np.inf


def _peak(array: np.ndarray) -> float:
    return float(np.nan_to_num(np.abs(array).astype(np.float64), nan=np.inf).max(initial=0))


def _bound(node: onnx.NodeProto, arrays: Mapping[str, np.ndarray], peaks: list[float]) -> float:
    """Return the largest absolute value that a node can answer; `peaks` has those of its inputs."""
    if node.op_type in AT_MOST_ONE:
        return 1.0 if max(peaks) < LARGEST else np.inf
    if node.op_type in {"Add", "Sub"}:
        return sum(peaks)
    if node.op_type == "Mul":
        return peaks[0] * peaks[1]
    if node.op_type not in LAYERS:
        return max(peaks)
    weight = arrays.get(node.input[1])
    if weight is None or weight.ndim < 2:
        return np.inf
    factor = max([1.0, *(abs(item.f) for item in node.attribute if item.type == onnx.AttributeProto.FLOAT)])
    size = np.abs(weight).astype(np.float64)
    # A matrix may be read either way round.
    rows = size.sum(axis=tuple(range(1, weight.ndim))).max()
    total = float(rows if node.op_type == "Conv" else np.maximum(rows, size.sum(axis=-2).max()))
    return float(factor * (total * peaks[0] + sum(peaks[2:])))
