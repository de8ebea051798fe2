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


def session(model: onnx.ModelProto, *, optimise: bool = False, threads: int = 0):  # type: ignore[no-untyped-def]
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        optimise: All of the runtime's rewrites (what users run), or none (each Q/DQ computed as it is written).
        threads: Threads inside one operator; 0 lets the runtime choose.

    Raises:
        ModelError: The runtime refuses the graph.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError("ONNX Runtime refuses the graph", got=" ".join(str(error).split())[:300]) from error


def watched(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model whose outputs are exactly the named tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {item.name: item for item in (*model.graph.output, *model.graph.value_info)}
    del copy.graph.output[:]
    copy.graph.output.extend([known.get(name) or helper.make_empty_tensor_value_info(name) for name in names])
    return copy


def stream(
    model: onnx.ModelProto, names: list[str], batches: Iterable[np.ndarray], *, optimise: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Yield, for each batch, the values of the named tensors (graph inputs too)."""
    given = model.graph.input[0].name
    wanted = [name for name in names if name != given]
    run = session(watched(model, wanted), optimise=optimise) if wanted else None
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
    """What was seen of one tensor: its extremes, and its extremes and mean for each channel (axis 1).

    With a histogram: also the counts of its values and the moving average of each image's extremes.
    """

    low: float = np.inf
    high: float = -np.inf
    channel_low: np.ndarray | None = None
    channel_high: np.ndarray | None = None
    channel_sum: np.ndarray | None = None
    count: int = 0
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

    def add(self, name: str, value: np.ndarray, channels: bool = True, means: bool = False) -> None:
        """Take one more batch into account: extremes of the tensor, of its channels too, and their means.

        Raises:
            DataError: The values hold NaN or infinity.
        """
        axes = tuple(axis for axis in range(value.ndim) if axis != 1) if channels else None
        low, high = value.min(axis=axes, initial=np.inf), value.max(axis=axes, initial=-np.inf)
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            raise DataError(
                f"tensor {name!r} holds NaN or infinity on the calibration images",
                expected="finite activations",
                do="check the weights and the preprocessing; the float model itself overflows",
            )
        self.low, self.high = min(self.low, float(np.min(low))), max(self.high, float(np.max(high)))
        if not channels:
            return
        self.channel_low = np.minimum(low if self.channel_low is None else self.channel_low, low)
        self.channel_high = np.maximum(high if self.channel_high is None else self.channel_high, high)
        self.count += int(value.size // max(np.size(low), 1))
        if means:
            total = value.sum(axis=axes, dtype=np.float64)
            self.channel_sum = total if self.channel_sum is None else self.channel_sum + total

    def rescale(self, scale: np.ndarray, offset: np.ndarray | float) -> None:
        """Become the extremes of (value - offset) * scale, both (C,) with scale above 0; means are dropped."""
        self.channel_low, self.channel_high = (self.lows() - offset) * scale, (self.highs() - offset) * scale
        self.low, self.high = float(self.channel_low.min()), float(self.channel_high.max())
        self.channel_sum = self.histogram = None

    def lows(self) -> np.ndarray:
        """Return the smallest value of each channel, (C,)."""
        return np.full(1, self.low) if self.channel_low is None else self.channel_low

    def highs(self) -> np.ndarray:
        """Return the largest value of each channel, (C,)."""
        return np.full(1, self.high) if self.channel_high is None else self.channel_high

    def mean(self) -> np.ndarray:
        """Return the mean of each channel, (C,)."""
        return np.asarray(self.channel_sum) / max(self.count, 1)


def collect(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[np.ndarray],
    *,
    channels: bool = True,
    means: bool = False,
    histograms: bool = False,
) -> dict[str, Stats]:
    """Return the statistics of the named tensors over all batches, in the memory of one batch."""
    stats = {name: Stats() for name in names}
    with progress("calibrating", None) as advance:
        for values in stream(model, names, batches, optimise=True):
            for name in names:
                stats[name].add(name, values[name], channels, means)
                if histograms:
                    stats[name].count_values(values[name])
            advance(1)
    return stats


def sqnr_db(reference: np.ndarray, value: np.ndarray) -> float:
    """Return the ratio of signal to quantisation noise, 10 log10(sum r^2 / sum (r - v)^2), in dB (inf when equal)."""
    reference = reference.astype(np.float64)
    noise = float(np.square(reference - value).sum())
    signal = float(np.square(reference).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
