"""Run a graph in ONNX Runtime and watch its tensors, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...runtime.console import need, progress
from ...runtime.errors import DataError, ModelError
from .histogram import Histogram, sampled

AVERAGING = 0.01
REDUCED = ("ReduceMin", "ReduceMax", "ReduceSum")


def session(  # type: ignore[no-untyped-def]
    model: onnx.ModelProto, *, optimise: bool = False, integers: bool = True, threads: int = 0
):
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        optimise: All of the runtime's rewrites (what users run), or none (each Q/DQ computed as it is written).
        integers: With `optimise`: Q/DQ become integer kernels; otherwise each is computed as it is written.
        threads: Threads inside one operator; 0 lets the runtime choose.

    Raises:
        ModelError: The runtime refuses the graph.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if not integers:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    level = ort.GraphOptimizationLevel
    # At its highest level ONNX Runtime 1.31 loses a convolution that is added to another one and is an output too.
    levels = (level.ORT_ENABLE_ALL, level.ORT_ENABLE_EXTENDED) if optimise else (level.ORT_DISABLE_ALL,)
    refused: list[Exception] = []
    for options.graph_optimization_level in levels:
        try:
            data, only = model.SerializeToString(), ["CPUExecutionProvider"]
            return ort.InferenceSession(data, options, providers=only, enable_fallback=0)
        except Exception as error:
            refused.append(error)
    raise ModelError("ONNX Runtime refuses the graph", got=" ".join(str(refused[0]).split())[:300]) from refused[0]


def watched(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model whose outputs are exactly the named tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
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
    given = model.graph.input[0].name
    wanted = [name for name in names if name != given]
    run = session(watched(model, wanted), optimise=optimise, integers=integers) if wanted else None
    for batch in batches:
        values = dict(zip(wanted, answers(run, {given: batch}, wanted), strict=True)) if run else {}
        yield {given: batch, **values}


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


def reduced(model: onnx.ModelProto, names: Iterable[str], channels: bool) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a model that answers the extremes of tensors, so that no activation is copied out of the runtime.

    Outputs are NAME + each of REDUCED: (N, C) with `channels` and four dimensions, a scalar without. A reduction may
    pass over a NaN, its sum does not, so there is a sum too.

    Args:
        model: The float graph.
        names: Tensors; those of unknown or of few dimensions are left out.
        channels: Extremes of each channel, not of the whole.

    Returns:
        The model, and the tensors that it reduces -> the prefix of their outputs' names.
    """
    inferred = onnx.shape_inference.infer_shapes(model).graph
    items = (*inferred.value_info, *inferred.output)
    ranks = {item.name: len(item.type.tensor_type.shape.dim) for item in items}
    chosen = {name: f"{name}/seen/" for name in names if ranks.get(name, 0) == 4}
    copy = watched(model, [prefix + operator for prefix in chosen.values() for operator in REDUCED])
    opset = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    axes = [2, 3] if channels else [0, 1, 2, 3]
    copy.graph.initializer.append(onnx.numpy_helper.from_array(np.array(axes, np.int64), "seen/axes"))
    for name, prefix in chosen.items():
        for operator in REDUCED:
            given = opset >= (13 if operator == "ReduceSum" else 18)
            inputs = [name, "seen/axes"] if given else [name]
            node = helper.make_node(operator, inputs, [prefix + operator], prefix + operator, keepdims=0)
            node.attribute.extend([] if given else [helper.make_attribute("axes", axes)])
            copy.graph.node.append(node)
    return copy, chosen


def collect(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[np.ndarray],
    *,
    channels: bool = True,
    histograms: bool = False,
) -> dict[str, Stats]:
    """Return the statistics of the named tensors over all batches, in the memory of one batch."""
    stats = {name: Stats() for name in names}
    small, inside = (model, {}) if histograms else reduced(model, names, channels)
    whole = [name for name in names if name not in inside]
    wanted = [*whole, *(prefix + operator for prefix in inside.values() for operator in REDUCED)]
    with progress("calibrating", None) as advance:
        for values in stream(small, wanted, batches, optimise=True):
            for name in whole:
                stats[name].add(name, values[name], channels)
                if histograms:
                    stats[name].count_values(values[name])
            for name, prefix in inside.items():
                low, high, total = (values[prefix + operator] for operator in REDUCED)
                lost = np.where(np.isfinite(total), np.float32(0), np.float32(np.nan))
                stats[name].widen(name, (low + lost).min(axis=0), (high + lost).max(axis=0), channels)
            advance(1)
    return stats


def sqnr_db(reference: np.ndarray, value: np.ndarray) -> float:
    """Return the ratio of signal to quantisation noise, 10 log10(sum r^2 / sum (r - v)^2), in dB (inf when equal)."""
    reference = reference.astype(np.float64)
    noise = float(np.square(reference - value).sum())
    signal = float(np.square(reference).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
