"""Run a graph in ONNX Runtime and watch its tensors, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...runtime.common.machine import cores
from ...runtime.common.ort_session import ort_session
from ...runtime.common.progress import progress
from ...runtime.errors import DataError, ModelError
from ..graph.proto_graph import tensor_types
from ..graph.protobuf import copied
from .histogram import Histogram, sampled

AVERAGING = 0.01
AXES = [2, 3]
STOP_SPINNING = {"session.force_spinning_stop": "1"}


def session(  # type: ignore[no-untyped-def]
    model: onnx.ModelProto, *, optimise: bool = False, integers: bool = True, threads: int = 0, warm: bool = True
):
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        optimise: All of the runtime's rewrites (what users run), or none (each Q/DQ computed as it is written).
        integers: With `optimise`: Q/DQ become integer kernels; otherwise each is computed as it is written.
        threads: Threads inside one operator; 0: as many as cores that may be used. ONNX Runtime itself counts those
            that are there, and on one of two cores half of the time goes into waiting for each other.
        warm: Keep memory and spinning threads between calls; off for one of many sessions that stay open.

    Raises:
        ModelError: The runtime refuses the graph.
    """
    entries = ({} if integers else {"session.disable_quant_qdq": "1"}) | ({} if warm else STOP_SPINNING)
    # At its highest level ONNX Runtime 1.31 loses a convolution that is added to another one and is an output too.
    levels = ("ENABLE_ALL", "ENABLE_EXTENDED") if optimise else ("DISABLE_ALL",)
    refusals: list[ModelError] = []
    for level in levels:
        try:
            data = model.SerializeToString()
            return ort_session(data, level=level, threads=threads or cores(), arena=warm, entries=entries)
        except ModelError as error:
            refusals.append(error)
        except Exception as error:  # protobuf ends at 2 GiB
            raise ModelError("the graph is too large for protobuf", got=" ".join(str(error).split())[:300]) from error
    raise refusals[0]


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model whose outputs are exactly the named tensors."""
    copy = copied(model)
    known = {item.name: item for item in (*model.graph.output, *model.graph.value_info)}
    del copy.graph.output[:]
    copy.graph.output.extend([known.get(name) or helper.make_empty_tensor_value_info(name) for name in names])
    return copy


def stream(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[np.ndarray],
    *,
    optimise: bool = False,
    integers: bool = True,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield, for each batch, the values of the named tensors (graph inputs too)."""
    input_name = model.graph.input[0].name
    wanted = [name for name in names if name != input_name]
    run = session(with_outputs(model, wanted), optimise=optimise, integers=integers) if wanted else None
    for batch in batches:
        values = dict(zip(wanted, answers(run, {input_name: batch}, wanted), strict=True)) if run else {}
        yield {input_name: batch, **values}


def answers(run: Any, feeds: dict[str, np.ndarray], wanted: list[str] | None = None) -> list[np.ndarray]:
    """Return the outputs that a session of ONNX Runtime computes: the named ones, or all.

    Raises:
        ModelError: It cannot compute them: the graph is wrong, or needs more memory than there is.
    """
    try:
        return list(run.run(wanted, feeds))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError("ONNX Runtime cannot run the graph", got=reason, do="export it again") from error


@dataclass
class Stats:
    """What was seen of one tensor: its extremes, and its extremes for each channel (axis 1).

    With a histogram: also the counts of its values and the moving average of each image's extremes.
    """

    low: float = np.inf
    high: float = -np.inf
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None
    histogram: Histogram | None = None
    average: tuple[float, float] = (0.0, 0.0)

    def count_values(self, value: np.ndarray) -> None:
        """Take one more batch into the histogram and the moving average; the values are finite."""
        first = self.histogram is None
        self.histogram = self.histogram or Histogram()
        self.histogram.add(sampled(value))
        flat = value.reshape(len(value), -1)
        for low, high in zip(flat.min(axis=1).tolist(), flat.max(axis=1).tolist(), strict=True):
            rate = 1.0 if first else AVERAGING
            self.average = (1 - rate) * self.average[0] + rate * low, (1 - rate) * self.average[1] + rate * high
            first = False

    def add(self, name: str, value: np.ndarray, channels: bool = True) -> None:
        """Take one more batch into account: extremes of the tensor, and of its channels too.

        Raises:
            DataError: The values hold NaN or infinity.
        """
        axes = tuple(axis for axis in range(value.ndim) if axis != 1) if channels else None
        self.widen(name, value.min(axis=axes, initial=np.inf), value.max(axis=axes, initial=-np.inf), channels)

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
        if channels:
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


ENDS = HIGH, LOW, WHOLE = "seen/high", "seen/low", "seen/whole"


def with_extremes(
    model: onnx.ModelProto, names: Iterable[str], sums: bool = True, types: list[onnx.ValueInfoProto] | None = None
) -> InGraphExtremes:
    """Return a graph that answers the extremes of each channel of tensors.

    What starts at 0 is pooled: ONNX Runtime computes that in the blocked layout of its convolutions, where for a
    reduction the whole tensor is put back into NCHW first.

    Args:
        model: The float graph.
        names: Tensors; those not of four dimensions, or of an unknown number of channels, are left out.
        sums: Answer sums or means too.
        types: Those of the model's tensors, where they are known (`tensor_types`).
    """
    inputs = {item.name for item in model.graph.input}
    known = tensor_types(model) if types is None else types
    shapes = {item.name: item.type.tensor_type.shape.dim for item in known if item.name not in inputs}
    wide = {name: shapes[name][1].dim_value for name in names if len(shapes.get(name, ())) == 4}
    extremes = InGraphExtremes(
        with_outputs(model, []), {name: count for name, count in wide.items() if count}, _from_zero(model)
    )
    graph = extremes.model.graph
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(AXES, np.int64), "seen/axes"))
    parts: dict[str, list[str]] = {HIGH: [], LOW: [], WHOLE: []}
    for name in extremes.tensors:
        pooled = name in extremes.from_zero
        kinds = ("GlobalMaxPool", "", "GlobalAveragePool") if pooled else ("ReduceMax", "ReduceMin", "ReduceSum")
        for end, operator in zip(ENDS, kinds, strict=True):
            if operator and (sums or end != WHOLE):
                parts[end].append(f"{end}/{name}")
                graph.node.append(_reduction(operator, name, parts[end][-1], opset))
    for end, outputs in parts.items():
        if outputs:
            graph.node.append(helper.make_node("Concat", outputs, [end], end, axis=1))
            graph.output.append(helper.make_empty_tensor_value_info(end))
    return extremes


def _reduction(operator: str, name: str, output: str, opset: int) -> onnx.NodeProto:
    """Return a node that makes (N, C, 1, 1) of a tensor (N, C, H, W)."""
    if operator.startswith("Global"):
        return helper.make_node(operator, [name], [output], output)
    if opset >= (13 if operator == "ReduceSum" else 18):
        return helper.make_node(operator, [name, "seen/axes"], [output], output, keepdims=1)
    return helper.make_node(operator, [name], [output], output, axes=AXES, keepdims=1)


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
    batches: Iterable[np.ndarray],
    *,
    channels: bool = True,
    histograms: bool = False,
    sums: bool = True,
    types: list[onnx.ValueInfoProto] | None = None,
) -> dict[str, Stats]:
    """Return the statistics of the named tensors over all batches, in the memory of one batch.

    The smallest value of what starts at 0 (a Relu's output, say) is given as 0. Without `sums` a NaN may pass unseen.
    `types` are those of the model's tensors, where they are known.
    """
    stats = {name: Stats() for name in names}
    inside = InGraphExtremes(model, {}, frozenset()) if histograms else with_extremes(model, names, sums, types)
    whole = [name for name in names if name not in inside.tensors]
    ends: dict[str, np.ndarray] = {}
    with progress("calibrating", None) as advance:
        answered = [item.name for item in inside.model.graph.output if item.name in ENDS]
        for values in stream(inside.model, [*whole, *answered], batches, optimise=True):
            for name in whole:
                stats[name].add(name, values[name], channels)
                if histograms:
                    stats[name].count_values(values[name])
            _widen(ends, values, inside)
            advance(1)
    if inside.tensors and ends:
        highs, lows = _apart(ends[HIGH], inside.tensors), _apart(ends.get(LOW, np.zeros(0)), inside.lows())
        for name, high in highs.items():
            stats[name].widen(name, lows.get(name, np.zeros_like(high)), high, channels)
    return stats


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
