"""Mend a Q/DQ graph layer by layer on what each layer really reads: ranges, then weights, then biases.

Ranges    Each activation's grid is tried at the ranges that the methods gave and at several widths around the best, and
          takes the one with the least squared error on the values that the quantised network, mended up to here, feeds
          it. A value that is common (an even background, a padded border) so comes to lie on the grid.
Weights   Fitted and rounded for the input that the layer really gets (`rounding`).
Biases    b'_c = b_c + E[y_c] - E[y^_c]: what quantisation adds to the mean of an output channel is taken off the bias.
          y is the float layer's output on float inputs, y^ the quantised layer's; means over the images and positions
          that the activation behind lets through, as far as they are certain (`mean_error`).

Source of the last: Nagel et al. 2019, «Data-Free Quantization Through Weight Equalization and Bias Correction»,
appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from onnx import NodeProto

from ...calibration.inputs import Batch
from ...calibration.sqnr import sqnr_db
from ...graph.proto_graph import ProtoGraph, attributes
from ..activation_clipping import Function, SaturatingActivation
from ..layer_guard import LayerGuard
from ..layer_queries import channel_axis, each_channel, group_count, pads_by_list, reads_rgb_input
from ..placement import QuantPlan, foldable
from ..quant_params import QuantParams, quant_params
from ..report import QuantSettings
from ..targets import TRANSPOSED, Target
from . import rounding, second_moments
from .int16_saturation import largest_integers, raw_peaks
from .layerwise import LayerwiseRunner
from .quantize_weights import LARGEST, Quantised, weight_scales

WIDTHS = tuple(round(0.96 + 0.01 * step, 2) for step in range(15))
VALUES = 1 << 16
# How often the variance of a mean error is taken off its square: unseen images differ more than these few do.
CHANCE = 2.0


@dataclass
class FloatReference:
    """What the float network knows about the quantised one.

    Attributes:
        net: The float graph.
        answers: Name of a quantised layer -> the tensor of the float graph that it approximates.
        weights: Name of a quantised layer -> its float weights, output channels first.
        highs: Tensor -> the largest value of each channel, (C,).
        ranges: Root of tensors with one scale -> the (low, high) that each method gives.
        bends: Tensor that one activation function alone reads -> that function.
    """

    net: ProtoGraph
    answers: dict[str, str]
    weights: dict[str, np.ndarray]
    highs: dict[str, np.ndarray]
    ranges: dict[str, list[tuple[float, float]]]
    bends: dict[str, SaturatingActivation]


@dataclass
class LayerReconstruction:
    """One walk over an emitted graph.

    Attributes:
        net: The graph with Q/DQ and float biases.
        plan: What is quantised, and which tensors share a scale.
        grids: Tensor -> its grid; updated as grids are chosen.
        ceilings: Root of tensors with one scale -> the largest value their grid may reach (a folded Clip's bound).
        source: The float network.
        form: The target's form.
        settings: What is to be done.
        sqnr_db: Tensor -> signal to noise of its own grid, in dB.
        fitted: Layer -> the share of its output's error that fitting its weights left, on images it had not seen.
        limits: Layer -> the largest weight integer of each output channel, where lower than 127.
        guard: Takes the layers that a step went wrong for.
    """

    net: ProtoGraph
    plan: QuantPlan
    grids: dict[str, QuantParams]
    ceilings: dict[str, float]
    source: FloatReference
    form: Target
    settings: QuantSettings
    sqnr_db: dict[str, float] = field(default_factory=dict)
    fitted: dict[str, float] = field(default_factory=dict)
    limits: dict[str, np.ndarray] = field(default_factory=dict)
    guard: LayerGuard = field(default_factory=LayerGuard)

    def run(self, batches: Sequence[Batch]) -> None:
        """Choose grids, fit weights and correct biases, in the graph's order.

        Args:
            batches: Values of the graph's inputs, all of which are held in memory.
        """
        self.walker = LayerwiseRunner(self.net, batches)
        answers = frozenset(self.source.answers.values())
        self.reference = LayerwiseRunner(self.source.net, batches, answers, self.walker.sessions)
        self.chosen: set[str] = set()
        self.pairs = {node.name.removesuffix("/Q"): node for node in self.net.nodes if node.op_type == "QuantizeLinear"}
        quantisers = [node.name for node in self.pairs.values() if node.name.removesuffix("/Q") in self.grids]
        self.walker.run(self._before, self._after, {*quantisers, *self.source.answers})

    def _before(self, node: NodeProto) -> None:
        name = node.name.removesuffix("/Q")
        if node.op_type == "QuantizeLinear" and name in self.grids and self.plan.root(name) not in self.chosen:
            self._choose(node, name)
        if node.name in self.source.answers:
            self.answer = self.reference.run_to(self.source.answers[node.name])
            if self.settings.reconstruct and self._is_mendable(node):
                with self.guard.step(node.name, "fit its weights"):
                    self._mend(node)

    def _is_mendable(self, node: NodeProto) -> bool:
        weight = self.source.weights[node.name]
        return node.op_type != TRANSPOSED and weight.size // len(weight) <= second_moments.WIDEST and pads_by_list(node)

    def _choose(self, node: NodeProto, name: str) -> None:
        root = self.plan.root(name)
        self.chosen.add(root)
        values = self.walker.values[node.input[0]]
        flat = values[0].reshape(-1) if len(values) == 1 else np.concatenate([value.reshape(-1) for value in values])
        step = max(1, flat.size // VALUES)
        step += (step + 1) % 2
        sample = flat[::step].astype(np.float64)
        if root in self.ceilings:  # a Relu or Clip became this range: what it cuts off is no error
            sample = sample.clip(0, self.ceilings[root])
        starts = [self._grid(low, high, root) for low, high in self.source.ranges.get(root, [])]
        bend = self.source.bends.get(root)
        shape = _same if bend is None else bend.function
        if bend is not None and bend.gain is not None:
            inner = int(np.prod(values[0].shape[2:]))
            shape = bend.at(np.arange(0, flat.size, step) // inner % values[0].shape[1])
        wanted = shape(sample)
        start = min([self.grids[name], *starts], key=lambda at: _error(sample, at, shape, wanted))
        trials = [self._grid(start.low * width, start.high * width, root) for width in WIDTHS]
        trials = [cut for at in trials for cut in bend.tried(at)] if bend else trials
        best = min(trials, key=lambda at: _error(sample, at, shape, wanted))
        self.sqnr_db[name] = sqnr_db(wanted, shape(best.rounded(sample)))
        for other in [item for item in self.grids if self.plan.root(item) == root]:
            self.grids[other] = best
            self._set(other, best)

    def _grid(self, low: float, high: float, root: str) -> QuantParams:
        kind = self.plan.kind(root, self.form)
        return quant_params(low, max(min(high, self.ceilings.get(root, np.inf)), self.form.least_high(kind)), kind)

    def _set(self, name: str, at: QuantParams) -> None:
        if name in self.pairs:
            _, scale, zero = self.pairs[name].input
            self.net.set_array(scale, np.array(at.scale, np.float32))
            self.net.set_array(zero, np.array(at.zero, at.dtype))

    def _mend(self, node: NodeProto) -> None:
        """Fit a layer's weights and round them together; its bias is corrected afterwards."""
        weight = self.source.weights[node.name]
        groups = group_count(node)
        value = joined(self.walker.values[node.input[0]])
        pair = second_moments.measure(value, joined(self.answer), weight, attributes(node))
        change, self.fitted[node.name] = rounding.fit(*pair)
        weight = weight + change.reshape(weight.shape)
        packed = self._scale(node, weight, groups)
        ratio = np.clip(packed.integers, -LARGEST, LARGEST).reshape(change.shape)
        integers = rounding.best_rounding(ratio, second_moments.merge(*pair).gram, self.settings.adaround)
        packed = Quantised(integers.reshape(weight.shape).astype(np.int8), packed.scale, packed.axis)
        names = self.net.producer[node.input[1]].input
        self.net.set_array(names[0], packed.integers)
        self.net.set_array(names[1], packed.scale.reshape(self.net.arrays[names[1]].shape))
        self.walker.constants[node.input[1]] = packed.dequantised()

    def _scale(self, node: NodeProto, weight: np.ndarray, groups: int) -> Quantised:
        """Return weights over their scales, not rounded yet."""
        name = self.net.producer[node.input[0]].name.removesuffix("/DQ")
        read, limit = self.grids[name], None
        if self.form.avoid_int16_saturation:
            peaks = raw_peaks(self.source.highs[name], read.scale, read.zero)
            fours = self.form.pad_channels and reads_rgb_input(self.net, node)
            limit = largest_integers(weight, groups, peaks, rounding=1.0, fours=fours)
            self.limits[node.name] = limit
        axis = None if self.settings.per_tensor else 0
        scale = weight_scales(weight, axis, self.form, limit, self.net.arrays[node.input[2]], read.scale)
        spread = scale.reshape(-1, *[1] * (weight.ndim - 1)) if axis == 0 else scale
        return Quantised(np.asarray(weight / spread, np.float64), scale, axis)

    def _after(self, node: NodeProto) -> None:
        if node.name in self.source.answers:
            with self.guard.step(node.name, "correct its bias"):
                self._correct(node)

    def _correct(self, node: NodeProto) -> None:
        values, wanted = self.walker.values[node.output[0]], joined(self.answer)
        ends = linear_part(self.source.net, self.source.answers[node.name])
        error = mean_error(joined(values), wanted, channel_axis(node), ends).astype("f4")
        self.net.set_array(node.input[2], self.net.arrays[node.input[2]] + error)
        by = each_channel(node, error, values[0].ndim)
        self.walker.values[node.output[0]] = [value + by for value in values]


def joined(values: Sequence[np.ndarray]) -> np.ndarray:
    """Return what a layer reads or writes in all batches as one: the first axis of a layer holds rows."""
    return values[0] if len(values) == 1 else np.concatenate(values)


def linear_part(net: ProtoGraph, tensor: str) -> tuple[float, float]:
    """Return the (low, high) outside which every reader of a tensor clips it; infinite where one does not."""
    bounds = [foldable(net, node) for node in net.readers.get(tensor, [])]
    ends = [each or (-np.inf, np.inf) for each in bounds]
    if not ends or tensor in net.outputs:
        return -np.inf, np.inf
    return min(low for low, _ in ends), max(high for _, high in ends)


def mean_error(
    value: np.ndarray, wanted: np.ndarray, axis: int, ends: tuple[float, float] = (-np.inf, np.inf)
) -> np.ndarray:
    """Return what each channel lacks in the mean, (C,), as far as it is certain: what its bias is to be raised by.

    What the activation behind clips is no error, and a bias cannot change it: a wide negative tail before a Relu, say,
    whose mean moves far when a weight is rounded. So the mean is taken where the quantised answer is let through. The
    mean m over few images is partly that of these images alone; taken off the bias it would be an error on all others.
    Of m with variance v, estimated from the differences between images, m (1 - CHANCE v / m^2) is left, at least 0, as
    by the positive part of James and Stein's estimator (1961).

    Args:
        value: What the quantised layer answers, (N, ...).
        wanted: What the float layer answers.
        axis: The channels' axis.
        ends: The (low, high) that the activation behind lets through.
    """
    others = tuple(at for at in range(1, value.ndim) if at != axis % value.ndim)
    error, rows = np.clip(wanted, *ends) - value, len(value)
    count = np.full((rows, value.shape[axis]), value[0].size / value.shape[axis])
    if np.isfinite(ends).any():
        inside = (value > ends[0]) & (value < ends[1])
        error *= inside
        count = inside.sum(axis=others).astype(np.float64)
    sums, total = error.sum(axis=others, dtype=np.float64), np.maximum(count.sum(axis=0), 1.0)
    mean = sums.sum(axis=0) / total
    if rows < 2:
        return np.asarray(mean)
    variance = np.square((sums - mean * count) / total).sum(axis=0) * (rows / (rows - 1))
    return np.asarray(mean * np.maximum(0.0, 1 - CHANCE * variance / np.maximum(np.square(mean), 1e-300)))


def _error(sample: np.ndarray, at: QuantParams, shape: Function, wanted: np.ndarray) -> float:
    return float(np.square(shape(at.rounded(sample)) - wanted).mean())


def _same(value: np.ndarray) -> np.ndarray:
    return value
