"""From a float graph and images to a Q/DQ graph: the steps of docs/quantisation.md, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from ...runtime.errors import ModelError
from ..calibration.samples import AugmentedSamples, Samples
from ..calibration.statistics import Stats, stream
from ..calibration.statistics_cache import collected
from ..graph.proto_graph import ProtoGraph, attributes
from ..graph.protobuf import copied
from .activation_clipping import SaturatingActivation, saturating_activations
from .equalization.cross_layer import equalise, own_weights
from .equalization.explicit_scales import insert_channel_scales, scalable_tensors
from .layer_queries import reads_rgb_input
from .placement import QuantPlan, fold_relus, inside_layers, place, share_concats
from .qdq.insert import insert_qdq, integer_biases
from .qdq.pad_channels import pad_channels
from .qdq.zero_points_to_biases import move_zero_points_to_biases, tensors_with_zero_point
from .quant_params import QuantParams, quant_params
from .range_estimators import METHODS, candidates, choose
from .report import QuantSettings, compare
from .targets import Target
from .weights.int16_saturation import largest_integers, raw_peaks
from .weights.layerwise import images_that_fit
from .weights.quantize_weights import LARGEST
from .weights.reconstruction import FloatReference, LayerReconstruction

# A network that keeps so much answers like the float one nearly everywhere; measured on this many images.
NEED_DB, JUDGED = 30.0, 32


@dataclass(frozen=True)
class Converted:
    """A Q/DQ graph and how it came about.

    Plan, grids, folded Relus, lowered weight limits by node, SQNR by tensor, and the share of each layer's error that
    fitting its weights left, and the zero points that were moved into biases.
    """

    model: onnx.ModelProto
    plan: QuantPlan
    grids: dict[str, QuantParams]
    folded: tuple[str, ...]
    limits: dict[str, np.ndarray]
    noise: dict[str, float]
    fitted: dict[str, float] = field(default_factory=dict)
    centred: dict[str, int] = field(default_factory=dict)


def convert(model: onnx.ModelProto, form: Target, samples: Samples, settings: QuantSettings) -> Converted:
    """Convert a float graph to a Q/DQ graph; the input model is not changed.

    If channel scales cost time on the target (`Target.free_channel_scales` is false), they are inserted only if SQNR is
    below NEED_DB without them, on calibration images and perturbed ones, and if they raise it.
    """
    seen = AugmentedSamples(samples, settings.noise, settings.cover)
    plain, gained = _converted(model, form, seen, settings, form.free_channel_scales)
    if form.free_channel_scales or settings.equalize is None or not gained:
        return plain
    images = seen.pick(max(JUDGED, samples.shape[0] or 0))
    step = samples.shape[0] or min(JUDGED, len(images))
    batches = [images[at : at + step] for at in range(0, len(images) // step * step, step)]
    kept = _kept(model, plain, batches)
    if kept >= NEED_DB:
        return plain
    other, _ = _converted(model, form, seen, settings, gains=True)
    return other if _kept(model, other, batches) > kept else plain


def _kept(model: onnx.ModelProto, conversion: Converted, batches: list[np.ndarray]) -> float:
    """Return the SQNR of the worst output in dB."""
    return min(compare(model, conversion.model, batches)[0].values())


def _converted(
    model: onnx.ModelProto, form: Target, seen: AugmentedSamples, settings: QuantSettings, gains: bool
) -> tuple[Converted, bool]:
    """Return the Q/DQ graph, and whether there is a tensor that gains could scale."""
    net = ProtoGraph(copied(model))
    plan, stats, bent = _prepare(net, form, seen, settings, gains)
    gained = bool(scalable_tensors(net, plan, stats, form))
    histograms = settings.method != "min-max"
    grids = grids_of(plan, form, stats, settings)
    layers = {node.name: node.output[0] for node in plan.layers if node.op_type != "MatMul"}
    reference = copied(net.model)
    del net.graph.value_info[:]  # shapes change from here on
    folded = fold_relus(net, plan, grids) if form.fold_relu else {}
    if shown := sorted(set(plan.quantized_reads) - set(grids)):
        stats |= collected(reference, shown, seen, histograms=histograms)
        grids |= {
            name: quant_params(*choose(stats[name], _method(settings), form.activation_dtype), form.activation_dtype)
            for name in shown
        }
    grids |= {
        name: quant_params(*bend.cut(grids[name].low, grids[name].high), grids[name].kind)
        for name, bend in bent.items()
    }
    limits = _limits(net, plan, grids, stats, form.pad_channels) if form.avoid_int16_saturation else {}
    weights = insert_qdq(net, plan, grids, form, limits, per_tensor=settings.per_tensor)
    conversion = Converted(net.model, plan, grids, tuple(folded), limits, {})
    if settings.refine:
        highs = {name: seen.highs() for name, seen in stats.items()}
        ranges = _alternatives(plan, form, stats, settings)
        source = FloatReference(ProtoGraph(reference), layers, weights, highs, ranges, bent)
        conversion = _refine(net, conversion, source, form, settings, _ceilings(plan, folded), seen)
    if form.integer_bias:
        integer_biases(net, plan)
    if form.pad_channels:
        pad_channels(net)
    return replace(conversion, centred=move_zero_points_to_biases(net) if form.zero_points_in_biases else {}), gained


def _prepare(
    net: ProtoGraph, form: Target, samples: AugmentedSamples, settings: QuantSettings, gains: bool
) -> tuple[QuantPlan, dict[str, Stats], dict[str, SaturatingActivation]]:

    own_weights(net)
    plan = place(net, form, settings.keep)
    if not plan.layers:
        raise ModelError(
            "nothing in this graph can be quantised",
            got="; ".join(f"{name}: {why}" for name, why in list(plan.kept_float.items())[:3])
            or "no Conv, Gemm or MatMul",
            expected="Conv or Gemm with constant float32 weights",
        )
    hidden = inside_layers(net, plan) if form.fold_relu else set()
    names = sorted(set(plan.quantized_reads) - hidden)
    histograms, bent = settings.method != "min-max", saturating_activations(net, plan)
    stats = collected(net.model, names, samples, histograms=histograms and settings.equalize is None)
    if settings.equalize is None:
        plan.kinds = tensors_with_zero_point(net, plan, stats, form)
        return plan, stats, bent
    equalise(net, stats, settings.equalize)
    plan.kinds = tensors_with_zero_point(net, plan, stats, form)
    if gains:
        insert_channel_scales(net, plan, stats, form, settings.equalize, bent)
    names = sorted(set(plan.quantized_reads) - hidden)
    return plan, collected(net.model, names, samples, histograms=True) if histograms else stats, bent


def _ceilings(plan: QuantPlan, folded: dict[str, tuple[str, float]]) -> dict[str, float]:
    """Return the bound of the Relu or Clip that became a range, for each group of tensors with one scale."""
    ceilings: dict[str, float] = {}
    for tensor, high in folded.values():
        root = plan.root(tensor)
        ceilings[root] = min(ceilings.get(root, np.inf), high)
    return ceilings


def _refine(
    net: ProtoGraph,
    conversion: Converted,
    source: FloatReference,
    form: Target,
    settings: QuantSettings,
    ceilings: dict[str, float],
    samples: AugmentedSamples,
) -> Converted:

    batch = samples.shape[0]
    step = batch or 8
    first = [next(iter(samples))[:step]]
    sizes = next(stream(source.net.model, sorted(source.answers.values()), first))
    count = images_that_fit(value.size // len(value) for value in sizes.values()) // step * step
    images = samples.pick(max(count, step))
    images = images[: len(images) // step * step] if batch else images
    refiner = LayerReconstruction(net, conversion.plan, conversion.grids, ceilings, source, form, settings, batch)
    refiner.run(images)
    return replace(conversion, noise=refiner.sqnr_db, fitted=refiner.fitted, limits=conversion.limits | refiner.limits)


def _limits(
    net: ProtoGraph, plan: QuantPlan, grids: dict[str, QuantParams], stats: dict[str, Stats], wide: bool = False
) -> dict[str, np.ndarray]:
    """Return the largest weight integers of the nodes where a pair of products could saturate 16 bits."""
    limits = {}
    for node in plan.layers:
        name = node.input[0]
        weight = net.arrays[node.input[1]]
        if node.op_type != "Conv" and not attributes(node).get("transB", 0):
            weight = weight.T
        peaks = raw_peaks(stats[name].highs(), grids[name].scale, grids[name].zero)
        fours = wide and reads_rgb_input(net, node)
        largest = largest_integers(weight, attributes(node).get("group", 1), peaks, fours=fours)
        if largest.min() < LARGEST:
            limits[node.name] = largest if node.op_type != "MatMul" else largest.min()
    return limits


def grids_of(plan: QuantPlan, form: Target, stats: dict[str, Stats], settings: QuantSettings) -> dict[str, QuantParams]:
    """Return the grid of each quantised tensor with statistics, after deciding which share one."""
    names = set(plan.quantized_reads) & set(stats)
    ends = {name: choose(stats[name], _method(settings), plan.kind(name, form)) for name in names}
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
