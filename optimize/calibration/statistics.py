"""Watch the tensors of a graph: their extremes, by channel too, and histograms of their values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from ...runtime.common.progress import progress
from ...runtime.errors import DataError
from ..graph.proto_graph import tensor_types
from .axis_roles import AxisRoles
from .histogram import Histogram, sampled
from .inputs import Batch, InputLayout, input_layout, input_names
from .ort_runs import stream, with_outputs

AVERAGING = 0.01
# Channel axes of tensors: by name, None for a tensor without; True: axis 1 of each; False: no tensor has channels.
ChannelAxes = Mapping[str, int | None] | bool


@dataclass
class Stats:
    """What was seen of one tensor: its extremes, and those of each channel where it has channels.

    With a histogram: also the counts of its values and the moving average of each image's extremes.
    """

    low: float = np.inf
    high: float = -np.inf
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None
    histogram: Histogram | None = None
    average: tuple[float, float] = (0.0, 0.0)
    uneven: bool = False  # batches had different numbers of channels: these are none

    def count_values(self, value: np.ndarray) -> None:
        """Take one more batch, (N, ...), into the histogram and the moving average; the values are finite."""
        first = self.histogram is None
        self.histogram = self.histogram or Histogram()
        self.histogram.add(sampled(value))
        flat = value.reshape(len(value), -1)
        for low, high in zip(flat.min(axis=1).tolist(), flat.max(axis=1).tolist(), strict=True):
            rate = 1.0 if first else AVERAGING
            self.average = (1 - rate) * self.average[0] + rate * low, (1 - rate) * self.average[1] + rate * high
            first = False

    def add(self, name: str, value: np.ndarray, channel_axis: int | None = 1) -> None:
        """Take one more batch into account: extremes of the tensor, and of its channels too, if they have an axis.

        Raises:
            DataError: The values hold NaN or infinity.
        """
        channels = channel_axis is not None and -value.ndim <= channel_axis < value.ndim
        others = [axis for axis in range(value.ndim) if not channels or axis != (channel_axis or 0) % value.ndim]
        low, high = value.min(axis=tuple(others), initial=np.inf), value.max(axis=tuple(others), initial=-np.inf)
        self.widen(name, low, high, channels)

    def widen(self, name: str, low: np.ndarray, high: np.ndarray, channels: bool = True) -> None:
        """Take extremes into account: those of each channel, (C,), or of the whole tensor.

        Raises:
            DataError: They are NaN or infinite.
        """
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DataError(
                f"tensor {name!r} holds NaN or infinity on the calibration images",
                expected="finite activations",
                do="check the weights and the preprocessing; the float model itself overflows",
            )
        self.low, self.high = min(self.low, float(np.min(low))), max(self.high, float(np.max(high)))
        if channels and self.channel_low is not None and self.channel_low.shape != np.shape(low):
            self.channel_low, self.channel_high, self.uneven = None, None, True
        if channels and not self.uneven:
            self.channel_low = np.minimum(low if self.channel_low is None else self.channel_low, low)
            self.channel_high = np.maximum(high if self.channel_high is None else self.channel_high, high)

    def rescale(self, scale: np.ndarray, offset: np.ndarray | float) -> None:
        """Become the extremes of (value - offset) * scale, both (C,) with scale above 0."""
        self.channel_low, self.channel_high = (self.lows() - offset) * scale, (self.highs() - offset) * scale
        self.low, self.high = float(self.channel_low.min()), float(self.channel_high.max())
        self.histogram = None

    def lows(self) -> np.ndarray:
        """Return the smallest value of each channel, (C,)."""
        return np.full(1, self.low) if self.channel_low is None else self.channel_low

    def highs(self) -> np.ndarray:
        """Return the largest value of each channel, (C,)."""
        return np.full(1, self.high) if self.channel_high is None else self.channel_high


@dataclass(frozen=True)
class InGraphExtremes:
    """A graph that answers extremes: no activation is copied out of the runtime, and few answers are.

    Its outputs ENDS hold the channels of all `tensors` beside each other: the highest value, the lowest of those not in
    `from_zero`, and if asked for a sum or mean, which a NaN does not pass unseen as it may pass a maximum.

    Attributes:
        model: The graph.
        tensors: What it watches -> how many channels that has.
        from_zero: Those of them that start at 0: their lowest value is taken as 0.
    """

    model: onnx.ModelProto
    tensors: dict[str, int]
    from_zero: frozenset[str]

    def lows(self) -> dict[str, int]:
        """Return the tensors whose lowest value is answered -> their channels."""
        return {name: count for name, count in self.tensors.items() if name not in self.from_zero}


EACH = [0, 2, 3]
ENDS = HIGH, LOW, WHOLE = "seen/high", "seen/low", "seen/whole"


def with_extremes(
    model: onnx.ModelProto, names: Iterable[str], sums: bool = True, types: list[onnx.ValueInfoProto] | None = None
) -> InGraphExtremes:
    """Return a graph that answers the extremes of each channel of tensors, over their first axis too.

    What starts at 0 is pooled: ONNX Runtime computes that in the blocked layout of its convolutions, where for a
    reduction the whole tensor is put back into NCHW first.

    Args:
        model: The float graph.
        names: Tensors with their channels on axis 1; those not of four dimensions, or of an unknown number of channels,
            are left out.
        sums: Answer sums or means too.
        types: Those of the model's tensors, where they are known (`tensor_types`).
    """
    inputs = set(input_names(model))
    known = tensor_types(model) if types is None else types
    shapes = {item.name: item.type.tensor_type.shape.dim for item in known if item.name not in inputs}
    wide = {name: shapes[name][1].dim_value for name in names if len(shapes.get(name, ())) == 4}
    extremes = InGraphExtremes(
        with_outputs(model, []), {name: count for name, count in wide.items() if count}, _from_zero(model)
    )
    graph = extremes.model.graph
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    for axes in (EACH, [0]):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), f"seen/axes{len(axes)}"))
    parts: dict[str, list[str]] = {HIGH: [], LOW: [], WHOLE: []}
    for name in extremes.tensors:
        from_zero = name in extremes.from_zero
        pools = {HIGH: "GlobalMaxPool", WHOLE: "GlobalAveragePool"} if from_zero else {}
        wanted = (
            {HIGH: "ReduceMax"} | ({} if from_zero else {LOW: "ReduceMin"}) | ({WHOLE: "ReduceSum"} if sums else {})
        )
        for end, reduction in wanted.items():
            source, axes, output = name, EACH, f"{end}/{name}"
            if end in pools:
                source, axes = f"{end}/pool/{name}", [0]
                graph.node.append(helper.make_node(pools[end], [name], [source], source))
            parts[end].append(output)
            graph.node.append(_reduction(reduction, source, axes, output, opset))
    for end, outputs in parts.items():
        if outputs:
            graph.node.append(helper.make_node("Concat", outputs, [end], end, axis=1))
            graph.output.append(helper.make_empty_tensor_value_info(end))
    return extremes


def _reduction(operator: str, name: str, axes: list[int], output: str, opset: int) -> onnx.NodeProto:
    """Return a node that makes (1, C, 1, 1) of a tensor (N, C, H, W) or (N, C, 1, 1)."""
    if opset >= (13 if operator == "ReduceSum" else 18):
        return helper.make_node(operator, [name, f"seen/axes{len(axes)}"], [output], output, keepdims=1)
    return helper.make_node(operator, [name], [output], output, axes=axes, keepdims=1)


def _from_zero(model: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors that a Relu, a Clip from 0, or only MaxPool and Concat of such ones write."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    names_from_zero: set[str] = set()
    for node in model.graph.node:
        low = constants.get(node.input[1]) if node.op_type == "Clip" and len(node.input) > 1 else None
        starts = node.op_type == "Relu" or (low is not None and not onnx.numpy_helper.to_array(low).any())
        if starts or (node.op_type in {"MaxPool", "Concat"} and set(node.input) <= names_from_zero):
            names_from_zero.add(node.output[0])
    return frozenset(names_from_zero)


def collect(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[Batch],
    *,
    channels: ChannelAxes = True,
    histograms: bool = False,
    sums: bool = True,
    types: list[onnx.ValueInfoProto] | None = None,
    roles: AxisRoles | None = None,
) -> dict[str, Stats]:
    """Return the statistics of the named tensors over all batches, in the memory of one batch.

    The smallest value of what starts at 0 (a Relu's output, say) is given as 0. Without `sums` a NaN may pass unseen.
    `types` are those of the model's tensors, where they are known; `roles` say which axis is the batch.
    """
    stats, axes = {name: Stats() for name in names}, {name: _axis(channels, name) for name in names}
    pooled = [] if histograms else [name for name in names if not channels or axes[name] == 1]
    inside = with_extremes(model, pooled, sums, types) if pooled else InGraphExtremes(model, {}, frozenset())
    whole = [name for name in names if name not in inside.tensors]
    ends: dict[str, np.ndarray] = {}
    layout = input_layout(model) if histograms else InputLayout(())
    with progress("calibrating", None) as advance:
        answered = [item.name for item in inside.model.graph.output if item.name in ENDS]
        for values in stream(inside.model, [*whole, *answered], batches, optimise=True):
            for name in whole:
                stats[name].add(name, values[name], axes[name])
                if histograms:
                    count = layout.length({layout.main.name: values[layout.main.name]})
                    stats[name].count_values((roles or AxisRoles()).rows(name, values[name], count))
            _widen(ends, values, inside)
            advance(1)
    if inside.tensors and ends:
        highs, lows = _apart(ends[HIGH], inside.tensors), _apart(ends.get(LOW, np.zeros(0)), inside.lows())
        for name, high in highs.items():
            stats[name].widen(name, lows.get(name, np.zeros_like(high)), high, bool(channels))
    return stats


def _axis(channels: ChannelAxes, name: str) -> int | None:
    """Return the channel axis of a tensor, None where it has none."""
    return channels.get(name, 1) if isinstance(channels, Mapping) else 1 if channels else None


def _widen(ends: dict[str, np.ndarray], values: dict[str, np.ndarray], inside: InGraphExtremes) -> None:
    """Take the extremes of one batch into account; the first tensor with NaN or infinity is named."""
    for end, join in ((HIGH, np.maximum), (LOW, np.minimum)):
        if end in values:
            channels = join.reduce(values[end], axis=0).reshape(-1)
            ends[end] = join(ends[end], channels) if end in ends else channels
    whole = values.get(WHOLE, np.zeros(1))
    if inside.tensors and not (np.isfinite(ends[HIGH]).all() and np.isfinite(whole).all()):
        highs = _apart(ends[HIGH], inside.tensors)
        sums = _apart(whole.sum(axis=(0, 2, 3)), inside.tensors) if WHOLE in values else highs
        for name in inside.tensors:
            Stats().widen(name, highs[name] + sums[name], highs[name])


def _apart(concatenation: np.ndarray, widths: dict[str, int]) -> dict[str, np.ndarray]:
    """Return the channels of each tensor."""
    cuts = np.cumsum(list(widths.values()))[:-1]
    return dict(zip(widths, np.split(concatenation, cuts), strict=True)) if widths else {}
