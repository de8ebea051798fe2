"""From a float graph and images to a Q/DQ graph: the steps of docs/quantisation.md, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ...runtime.errors import ModelError
from ..calibration.axis_roles import AxisRoles
from ..calibration.inputs import Batch
from ..calibration.ort_runs import stream
from ..calibration.samples import AugmentedSamples, Samples
from ..calibration.statistics import Stats
from ..calibration.statistics_cache import collected
from ..graph.proto_graph import ProtoGraph
from ..graph.protobuf import copied
from .activation_clipping import SaturatingActivation, saturating_activations
from .equalization.cross_layer import equalise, own_weights
from .equalization.explicit_scales import insert_channel_scales, scalable_tensors
from .layer_guard import LayerGuard, StepError, guarded, whole_step
from .layer_queries import channel_axes, group_count, layer_bias, output_first, reads_rgb_input
from .placement import QuantPlan, fold_relus, inside_layers, place, share_concats
from .qdq.insert import insert_qdq, integer_biases
from .qdq.pad_channels import pad_channels
from .qdq.zero_points_to_biases import move_zero_points_to_biases, tensors_with_zero_point
from .quant_params import QuantParams, quant_params
from .range_estimators import METHODS, candidates, choose
from .report import QuantSettings, compare
from .targets import TRANSPOSED, Target
from .weights.blas_threads import one_blas_thread
from .weights.int16_saturation import largest_integers, raw_peaks
from .weights.layerwise import images_that_fit
from .weights.quantize_weights import LARGEST
from .weights.reconstruction import FloatReference, LayerReconstruction

# A network that keeps so much answers like the float one nearly everywhere; measured on this many images.
NEED_DB, JUDGED = 30.0, 32
NOISY = "kept float: one of the noisiest layers, and an engine is no slower for it"


@dataclass(frozen=True)
class Converted:
    """A Q/DQ graph and how it came about.

    Plan, grids, folded Relus, lowered weight limits by node, SQNR by tensor, and the share of each layer's error that
    fitting its weights left, the zero points that were moved into biases, and steps that had to be left out.
    """

    model: onnx.ModelProto
    plan: QuantPlan
    grids: dict[str, QuantParams]
    folded: tuple[str, ...]
    limits: dict[str, np.ndarray]
    noise: dict[str, float]
    fitted: dict[str, float] = field(default_factory=dict)
    centred: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def convert(
    model: onnx.ModelProto, form: Target, samples: Samples, settings: QuantSettings, roles: AxisRoles | None = None
) -> Converted:
    """Convert a float graph to a Q/DQ graph; the input model is not changed.

    Unless the settings say it: if channel scales cost time on the target (`Target.free_channel_scales` is false),
    they are inserted only if SQNR is below NEED_DB without them, on calibration images and perturbed ones, and if they
    raise it. A layer for which a step fails stays in float, with the reason in the plan.

    Args:
        model: The float graph.
        form: The target's form.
        samples: Calibration images.
        settings: What is done to keep the accuracy.
        roles: Which axis of each tensor is the batch, as far as it is known.
    """
    work = _Conversion(model, form, AugmentedSamples(samples, settings.noise, settings.cover), roles)
    plain, gained = work.converted(settings, form.free_channel_scales if settings.gains is None else settings.gains)
    if settings.gains is not None or form.free_channel_scales or settings.equalize is None or not gained:
        return plain
    batches = work.samples.picked(JUDGED)
    kept = _kept(model, plain, batches)
    if kept >= NEED_DB:
        return plain
    other, _ = work.converted(settings, gains=True)
    return other if _kept(model, other, batches) > kept else plain


def _kept(model: onnx.ModelProto, conversion: Converted, batches: list[Batch]) -> float:
    """Return the SQNR of the worst output in dB."""
    return min(compare(model, conversion.model, batches)[0].values())


@dataclass
class _Conversion:
    """One graph and its images, converted until no layer goes wrong.

    `failed` are the layers that stay in float for what went wrong, `notes` the steps that were left out.
    """

    model: onnx.ModelProto
    form: Target
    samples: AugmentedSamples
    roles: AxisRoles | None
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def converted(self, settings: QuantSettings, gains: bool) -> tuple[Converted, bool]:
        """Return the Q/DQ graph, and whether there is a tensor that gains could scale."""
        while True:
            guard = LayerGuard()
            try:
                conversion, gained = self._attempt(settings, gains, guard)
            except StepError as error:
                self.notes.append(str(error))
                settings = replace(settings, **error.without)
                continue
            if not guard.failed:
                return replace(conversion, notes=tuple(self.notes)), gained
            self.failed |= guard.failed

    def _attempt(self, settings: QuantSettings, gains: bool, guard: LayerGuard) -> tuple[Converted, bool]:
        form, net = self.form, ProtoGraph(copied(self.model))
        plan, stats, bent = self._prepare(net, settings, gains)
        gained = bool(scalable_tensors(net, plan, stats, form))
        grids = grids_of(plan, form, stats, settings)
        layers = {node.name: node.output[0] for node in plan.layers if node.op_type != "MatMul"}
        reference = copied(net.model)
        del net.graph.value_info[:]  # shapes change from here on
        folded = fold_relus(net, plan, grids) if form.fold_relu else {}
        if shown := sorted(set(plan.quantized_reads) - set(grids)):
            kind = form.activation_dtype
            stats |= self._collected(reference, plan, shown, settings.method != "min-max")
            grids |= {name: quant_params(*choose(stats[name], _method(settings), kind), kind) for name in shown}
        grids |= {
            name: quant_params(*bend.cut(grids[name].low, grids[name].high), grids[name].kind)
            for name, bend in bent.items()
        }
        limits = _limits(net, plan, grids, stats, form.pad_channels, guard) if form.avoid_int16_saturation else {}
        weights = insert_qdq(net, plan, grids, form, limits, per_tensor=settings.per_tensor, guard=guard)
        conversion = Converted(net.model, plan, grids, tuple(folded), limits, {})
        if guard.failed:
            return conversion, gained
        if settings.refine:
            highs = {name: seen.highs() for name, seen in stats.items()}
            ranges = _alternatives(plan, form, stats, settings)
            source = FloatReference(ProtoGraph(reference), layers, weights, highs, ranges, bent)
            ceilings = _ceilings(plan, folded)
            refiner = LayerReconstruction(net, plan, grids, ceilings, source, form, settings, guard=guard)
            conversion = _refine(conversion, refiner, self.samples)
        if form.integer_bias:
            integer_biases(net, plan)
        if form.pad_channels:
            pad_channels(net)
        return replace(
            conversion, centred=move_zero_points_to_biases(net) if form.zero_points_in_biases else {}
        ), gained

    def _collected(
        self, model: onnx.ModelProto, plan: QuantPlan, names: list[str], histograms: bool
    ) -> dict[str, Stats]:
        axes = channel_axes(plan.layers)
        return collected(model, names, self.samples, histograms=histograms, channels=axes, roles=self.roles)

    def _prepare(
        self, net: ProtoGraph, settings: QuantSettings, gains: bool
    ) -> tuple[QuantPlan, dict[str, Stats], dict[str, SaturatingActivation]]:
        form = self.form
        own_weights(net)
        plan = place(net, form, settings.keep, dict.fromkeys(settings.noisy, NOISY) | self.failed)
        _refuse_nothing(plan)
        for node in plan.layers:
            if node.op_type == TRANSPOSED:
                layer_bias(net, node)
        hidden = inside_layers(net, plan) if form.fold_relu else set()
        names = sorted(set(plan.quantized_reads) - hidden)
        histograms, bent = settings.method != "min-max", saturating_activations(net, plan)
        bent = {name: bend for name, bend in bent.items() if name not in settings.ranges}
        stats = self._collected(net.model, plan, names, histograms and settings.equalize is None)
        if settings.equalize is None:
            plan.kinds = tensors_with_zero_point(net, plan, stats, form)
            return plan, stats, bent
        with whole_step("equalise channels", equalize=None):
            equalise(net, stats, settings.equalize, clips=settings.through_clips)
            plan.kinds = tensors_with_zero_point(net, plan, stats, form)
            if gains:
                insert_channel_scales(net, plan, stats, form, settings.equalize, bent)
        names = sorted(set(plan.quantized_reads) - hidden)
        return plan, self._collected(net.model, plan, names, True) if histograms else stats, bent


def _refuse_nothing(plan: QuantPlan) -> None:
    """Refuse a graph without a layer that can be quantised.

    Raises:
        ModelError: There is none; the message has the reasons.
    """
    if not plan.layers:
        raise ModelError(
            "nothing in this graph can be quantised",
            got="; ".join(f"{name}: {why}" for name, why in list(plan.kept_float.items())[:3])
            or "no Conv, Gemm or MatMul",
            expected="Conv or Gemm with constant float32 weights",
        )


def _ceilings(plan: QuantPlan, folded: dict[str, tuple[str, float]]) -> dict[str, float]:
    """Return the bound of the Relu or Clip that became a range, for each group of tensors with one scale."""
    ceilings: dict[str, float] = {}
    for tensor, high in folded.values():
        root = plan.root(tensor)
        ceilings[root] = min(ceilings.get(root, np.inf), high)
    return ceilings


def _refine(conversion: Converted, refiner: LayerReconstruction, samples: AugmentedSamples) -> Converted:
    source, step = refiner.source, samples.size or 8
    with whole_step("refine layer by layer", refine=False):
        first = samples.samples.cut(next(iter(samples)), step)[0]
        sizes = next(stream(source.net.model, sorted(source.answers.values()), [first]))
        images = samples.layout.length(first)
        fitting = images_that_fit(value.size // images for value in sizes.values())
        count = fitting // step * step if fitting >= step else fitting
        with one_blas_thread():
            refiner.run(samples.picked(max(count, samples.size or 1)))
    limits = conversion.limits | refiner.limits
    return replace(conversion, noise=refiner.sqnr_db, fitted=refiner.fitted, limits=limits)


def _limits(
    net: ProtoGraph,
    plan: QuantPlan,
    grids: dict[str, QuantParams],
    stats: dict[str, Stats],
    wide: bool = False,
    guard: LayerGuard | None = None,
) -> dict[str, np.ndarray]:
    """Return the largest weight integers of the nodes where a pair of products could saturate 16 bits."""
    limits = {}
    for node in plan.layers:
        with guarded(guard, node.name, "limit its weights"):
            name, weight, groups = node.input[0], output_first(net, node), group_count(node)
            peaks = raw_peaks(stats[name].highs(), grids[name].scale, grids[name].zero)
            channels = weight.shape[1] * groups
            peaks = peaks if len(peaks) == channels else np.full(channels, peaks.max())
            fours = wide and reads_rgb_input(net, node)
            largest = largest_integers(weight, groups, peaks, fours=fours)
            if largest.min() < LARGEST:
                limits[node.name] = largest if node.op_type in ("Conv", "Gemm") else largest.min()
    return limits


def grids_of(plan: QuantPlan, form: Target, stats: dict[str, Stats], settings: QuantSettings) -> dict[str, QuantParams]:
    """Return the grid of each quantised tensor with statistics, after deciding which share one."""
    names = set(plan.quantized_reads) & set(stats)
    ends = {name: choose(stats[name], _method(settings), plan.kind(name, form)) for name in names} | {
        name: settings.ranges[name] for name in names if name in settings.ranges
    }
    share_concats(plan, _joined(plan, ends))
    shared, grids = _joined(plan, ends), {}
    for name in ends:
        (low, high), kind = shared[plan.root(name)], plan.kind(name, form)
        grids[name] = quant_params(low, max(high, form.least_high(kind)), kind)
    return grids


def _method(settings: QuantSettings) -> str:
    """Return how ranges are chosen at first: where they are refined, "auto" chooses among all of them there."""
    return "min-max" if settings.method == "auto" and settings.refine else settings.method


def _joined(plan: QuantPlan, ends: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Return the (low, high) of each group of tensors with one scale, under its root."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, (low, high) in ends.items():
        least, most = ranges.get(plan.root(name), (0.0, 0.0))
        ranges[plan.root(name)] = min(least, low), max(most, high)
    return ranges


def _alternatives(
    plan: QuantPlan, form: Target, stats: dict[str, Stats], settings: QuantSettings
) -> dict[str, list[tuple[float, float]]]:
    """Return for each group of tensors with one scale the ranges that the methods give it."""
    if settings.method != "auto":
        return {}
    each = {name: candidates(stats[name], plan.kind(name, form)) for name in set(plan.quantized_reads) & set(stats)}
    alternatives: dict[str, list[tuple[float, float]]] = {}
    for method in METHODS:
        ends = {name: ranges.get(method, ranges["min-max"]) for name, ranges in each.items()}
        for root, shared in _joined(plan, ends).items():
            alternatives.setdefault(root, []).append(shared)
    return alternatives
