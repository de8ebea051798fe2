"""Let channels differ less on a tensor between INT8 and float, by a product with a constant on the float side.

Before    Conv ─▶ t ─Q─DQ─▶ f in float ─▶ u ─Q─DQ─▶ Conv
After     Conv(R W, R b) ─▶ t' ─Q─DQ─▶ Mul R^-1 ─▶ f ─▶ u ─▶ Mul S ─▶ u' ─Q─DQ─▶ Conv(V S^-1)     R, S diagonal, > 0
When      t: a layer writes it, and only operators in float read it. u: an operator in float writes it, layers read it.
Why       SiLU, HardSwish and the product with a gate do not commute with a factor, so `equalise` stops at them; but
          they compute in float, so that the factor can be undone before them and done again behind them. Scales by
          channel of the Q and the DQ would do the same: ONNX Runtime computes those ten times slower.

R and S make channels alike by half, as `equalise` does. All the way would give each channel its own range, which the
next images leave: less rounding, more clipping (docs/decisions/034-channels-at-the-edge-of-float.md).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx import NodeProto, helper

from ...calibration.statistics import Stats
from ...graph.proto_graph import ProtoGraph
from ..activation_clipping import SaturatingActivation
from ..layer_queries import is_plain
from ..placement import QuantPlan
from ..targets import Target
from .channel_groups import ChannelGroup
from .cross_layer import norms, read_scaled, write_scaled

# Which share of a grid lies below zero.
SHARES = np.linspace(0.0, 1.0, 65)
# A channel counts as no quieter than this share of the loudest.
QUIET = 1 / 64
# Channels that differ by less are not worth a product.
WORTH = 1.25
SUFFIX = "/gain"
# What computes in float before a quantiser, so that a product is one more step in the same pass over the values. After
# a convolution it would stand between that and the quantiser that fuses with it.
FLOATS = frozenset({"Mul", "HardSwish", "Sigmoid", "HardSigmoid", "Gelu", "GlobalAveragePool", "ReduceMean", "Flatten"})


def insert_channel_scales(
    net: ProtoGraph,
    plan: QuantPlan,
    stats: dict[str, Stats],
    form: Target,
    strength: float,
    bent: dict[str, SaturatingActivation],
) -> dict[str, float]:
    """Scale channels where float operators stand between layers; weights, plan, statistics and bends follow.

    Args:
        net: The float graph, each layer with weights of its own (`unshare`).
        plan: What is quantised.
        stats: Ranges by channel of the quantised tensors.
        form: The target's form.
        strength: As for `equalise`.
        bent: What is known of the tensors that an activation function reads.

    Returns:
        Tensor -> its largest factor over its smallest.
    """
    done = {}
    for name in scalable_tensors(net, plan, stats, form):
        if readers := _reading(net, plan, name):
            scale = _read(net, plan, stats, readers, name, form, strength)
        else:
            scale = _written(net, plan, stats, name, form, strength, bent)
        if scale is not None:
            done[name] = float(scale.max() / scale.min())
    return done


def scalable_tensors(net: ProtoGraph, plan: QuantPlan, stats: dict[str, Stats], form: Target) -> list[str]:
    """Return the quantised tensors between layers and float operators whose channels can be scaled."""
    names = []
    for name in sorted(plan.quantized_reads):
        shared = name in plan.shared_scale or name in plan.shared_scale.values() or name in net.outputs
        if shared or name not in stats or name not in net.producer or len(stats[name].lows()) < 2:
            continue
        if _reading(net, plan, name) or (form.quantize_outputs and _is_written(net, plan, name)):
            names.append(name)
    return names


def _is_written(net: ProtoGraph, plan: QuantPlan, name: str) -> bool:
    """Say whether a layer writes a tensor that only operators in float read."""
    integer = {id(node) for node in (*plan.layers, *plan.other_ops)}
    maker, readers = net.producer[name], {id(node) for node in net.readers.get(name, [])}
    layer = id(maker) in {id(node) for node in plan.layers} and is_plain(net, maker)
    return layer and bool(readers) and readers == plan.quantized_reads[name] and not readers & integer


def _reading(net: ProtoGraph, plan: QuantPlan, name: str) -> list[NodeProto]:
    """Return the layers that read a tensor which an operator in float writes, if nothing else reads it quantised."""
    layers = {id(node) for node in plan.layers}
    readers = plan.readers(net, name)
    maker = net.producer[name]
    plain = all(id(node) in layers and is_plain(net, node) for node in readers)
    floating = maker.op_type in FLOATS and id(maker) not in map(id, plan.other_ops)
    return readers if plain and floating else []


def channel_ranges(low: np.ndarray, high: np.ndarray, weight: np.ndarray, kind: str) -> np.ndarray:
    """Return how wide the grid of each channel must be, (C,), when all have zero at the same place: the best one.

    Args:
        low: The smallest value of each channel, at most 0, (C,).
        high: The largest, at least 0, (C,).
        weight: How much an error of each channel counts, (C,).
        kind: The grid's kind.
    """
    shares = np.array([0.5]) if kind == "symmetric" else SHARES
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.where(low < 0, -low / shares[:, None], 0.0)
        above = np.where(high > 0, high / (1 - shares[:, None]), 0.0)
    each = np.maximum(below, above)
    return np.asarray(each[np.square(each * weight).sum(axis=1).argmin()])


def _factors(low: np.ndarray, high: np.ndarray, norm: np.ndarray, strength: float, kind: str) -> np.ndarray:
    """Return the factor of each channel, float32 (C,), the one that makes the loudest fill 1."""
    wide = channel_ranges(np.minimum(low, 0), np.maximum(high, 0), norm, kind)
    wide = np.maximum(wide, max(QUIET * float(wide.max()), 1e-30))
    scale = (wide * norm) ** (1 - strength) / wide
    return np.asarray(scale / (scale * wide).max(), np.float32)


def _written(
    net: ProtoGraph,
    plan: QuantPlan,
    stats: dict[str, Stats],
    name: str,
    form: Target,
    strength: float,
    bent: dict[str, SaturatingActivation],
) -> np.ndarray | None:
    """Scale what a layer writes, and let what reads it divide by the same; None where it is not worth that."""
    seen, bend, maker = stats[name], bent.get(name), net.producer[name]
    limits = bend.limits if bend is not None else ((-np.inf, np.inf),)
    cuts = [(np.maximum(seen.lows(), low), np.minimum(seen.highs(), high)) for low, high in limits]
    scale = _factors(*cuts[0], np.ones(len(seen.lows())), strength, plan.kind(name, form))
    if scale.max() < WORTH * scale.min():
        return None
    if bend is not None:
        ends = tuple((float((scale * low).min()), float((scale * high).max())) for low, high in cuts)
        bent[name] = replace(bend, limits=ends, gain=scale)
    write_scaled(net, maker, scale, None)
    seen.rescale(scale, 0.0)
    value = _multiply(net, name, 1 / scale, net.readers[name])
    plan.quantized_reads[name] = {id(net.producer[value])}
    return scale


def _read(
    net: ProtoGraph,
    plan: QuantPlan,
    stats: dict[str, Stats],
    readers: list[NodeProto],
    name: str,
    form: Target,
    strength: float,
) -> np.ndarray | None:
    """Scale what layers read; None where it is not worth that."""
    seen = stats[name]
    count = len(seen.lows())
    space = ChannelGroup(channels={name: np.arange(count)}, readers=readers)
    scale = _factors(seen.lows(), seen.highs(), norms(net, space, count), strength, plan.kind(name, form))
    if scale.max() < WORTH * scale.min():
        return None
    for node in readers:
        read_scaled(net, node, scale, None)
    value = _multiply(net, name, scale, readers)
    plan.quantized_reads[value] = plan.quantized_reads.pop(name)
    stats[value] = stats.pop(name)
    if name in plan.kinds:
        plan.kinds[value] = plan.kinds.pop(name)
    seen.rescale(scale, 0.0)
    return scale


def _multiply(net: ProtoGraph, name: str, scale: np.ndarray, readers: list[NodeProto]) -> str:
    """Let some readers of a tensor read its product with a factor for each channel; return the product's name."""
    maker = net.producer[name]
    around = (maker, *readers)
    rank = max((net.arrays[node.input[1]].ndim for node in around if node.op_type == "Conv"), default=4)
    sides = [] if any(node.op_type == "Gemm" for node in around) else [1] * (rank - 2)
    value = net.fresh(f"{name}_even")
    factor = net.add_array(f"{value}_factor", np.asarray(scale.reshape(-1, *sides), np.float32))
    multiplication = helper.make_node("Mul", [name, factor], [value], f"{value}{SUFFIX}")
    for node in readers:
        for at, source in enumerate(node.input):
            if source == name:
                node.input[at] = value
    net.graph.node.insert(net.nodes.index(maker) + 1, multiplication)
    net.index()
    return value
