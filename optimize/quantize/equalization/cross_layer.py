"""Cross-layer equalisation: let each channel fill its tensor's range, and let the next layer undo it.

Before    y = W x + b           z = V act(y) + c
After     y' = R (W x + b - o)  z = V R^-1 act(y') + (c + V o)        R = diag(r), r > 0; o only where act is linear
When      Between y and every layer that reads it stand only Relu, Clip(0, h), pooling, additions, reshapes of 1x1
          maps, concatenations and splits of channels (`spaces`), all of which commute with r; where nothing but
          additions stands between, and the readers are 1x1 without padding, y may be shifted by o too. Through
          Clip(0, h) the function is kept as long as r y <= h, so r is at most h / (largest y seen, with a margin).
Why       One scale serves all channels of a tensor: a channel that uses a tenth of the range has a tenth of the levels.
          Weights have a scale for each output channel, so scaling rows costs nothing there.

Sources: Nagel et al. 2019, «Data-Free Quantization Through Weight Equalization and Bias Correction»; here ranges of
activations seen on images drive r and o instead of weights, and residual chains are scaled as one.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from ...calibration.statistics import Stats
from ...graph.proto_graph import ProtoGraph, attributes
from ..layer_queries import group_count, layer_bias, row_bias
from .channel_groups import ChannelGroup, channel_groups

MARGIN = 1.5
# A channel this much quieter than the loudest counts as this loud.
SILENT = 1e-6
# Below a Clip a channel counts as at least this loud: images that were not seen may show what it looks for.
LEAST = 0.1
POOLS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})
LINEAR = frozenset({"Identity", "Dropout", "Add"})


def equalise(
    net: ProtoGraph, stats: dict[str, Stats], strength: float = 1.0, shift: bool = True, clips: bool = True
) -> dict[str, float]:
    """Rewrite weights and biases in place so that channels fill their tensors' ranges.

    Args:
        net: The float graph, BatchNormalization folded.
        stats: Ranges by channel of the tensors that will be quantised; they become those of the rewritten graph.
        strength: 1 lets each channel fill the range, 0 gives it the share that its weights make of the result.
        shift: Centre the channels of linear tensors too.
        clips: Scale channels in front of Clip(0, h) too, as far as what was seen stays below h.

    Returns:
        First tensor of each space that was scaled -> the largest scale applied.
    """
    done = {}
    own_weights(net)
    for space in channel_groups(net):
        seen = [name for name in sorted(space.tensors) if name in stats]
        if space.frozen or not seen or not space.writers or not space.readers:
            continue
        # What is seen behind a pool is a mean, which does not say how near its values come to the Clip's bound.
        if np.isfinite(space.limit) and (not clips or space.between & POOLS):
            continue
        offsets = _centres(net, space, stats) if shift and _shiftable(net, space) else {}
        scale = _scales(net, space, seen, stats, offsets, strength)
        if not offsets and np.ptp(scale) == 0:
            continue
        for node in space.writers:
            write_scaled(net, node, scale[space.channels[node.output[0]]], offsets.get(node.output[0]))
        for node in space.readers:
            read_scaled(net, node, scale[space.channels[node.input[0]]], offsets.get(node.input[0]))
        for name in seen:
            stats[name].rescale(scale[space.channels[name]], offsets.get(name, 0.0))
        done[seen[0]] = float(scale.max())
    return done


def _shiftable(net: ProtoGraph, space: ChannelGroup) -> bool:
    """Say whether the readers see a shift exactly: only additions between, and 1x1 kernels without padding."""
    plain = all(node.op_type == "Gemm" or not any(attributes(node).get("pads", [])) for node in space.readers)
    return space.between <= LINEAR and plain and all(node.op_type in {"Conv", "Gemm"} for node in space.readers)


def _centres(net: ProtoGraph, space: ChannelGroup, stats: dict[str, Stats]) -> dict[str, np.ndarray]:
    """Return the middle of each channel for each tensor of a space; through an addition the middles add up."""
    middles: dict[str, np.ndarray] = {}
    for node in net.nodes:
        name = node.output[0] if node.output else ""
        if name not in space.tensors:
            continue
        if node.op_type == "Add":
            middles[name] = middles[node.input[0]] + middles[node.input[1]]
        elif node.op_type in LINEAR:
            middles[name] = middles[node.input[0]]
        elif name in stats:
            middles[name] = (stats[name].lows() + stats[name].highs()) / 2
        else:
            middles[name] = np.zeros(len(net.arrays[node.input[1]]))
    return middles


def _scales(
    net: ProtoGraph,
    space: ChannelGroup,
    seen: list[str],
    stats: dict[str, Stats],
    offsets: dict[str, np.ndarray],
    strength: float,
) -> np.ndarray:
    """Return the factor of each channel, (C,).

    A channel of amplitude a that is read with weights of norm w gets the amplitude (a w)^(1 - strength). That does not
    change when somebody multiplies a and divides w by the same, so a badly scaled network ends where a good one does.
    """
    sizes = {}
    for name in seen:
        offset = offsets.get(name, 0.0)
        sizes[name] = np.maximum(np.abs(stats[name].lows() - offset), np.abs(stats[name].highs() - offset))
    amplitude = np.zeros(1 + max(int(numbers.max()) for numbers in space.channels.values()))
    most = max(float(size.max()) for size in sizes.values())
    for name, size in sizes.items():
        # What is concatenated shall fill one range together.
        top = most if "Concat" in space.between else float(size.max())
        np.maximum.at(amplitude, space.channels[name], size / max(top, 1e-30))
    alive = np.maximum(amplitude, SILENT)
    wanted = (alive * norms(net, space, len(amplitude))) ** (1 - strength)
    scale = wanted / alive
    scale *= 1 / (scale * amplitude).max()
    if np.isinf(space.limit):
        return np.asarray(scale)
    peak = max(float(stats[name].high) for name in seen)
    return np.asarray(np.minimum(scale, space.limit / (MARGIN * peak * np.maximum(alive, LEAST))).clip(min=1))


def norms(net: ProtoGraph, space: ChannelGroup, count: int) -> np.ndarray:
    """Return the norm of the weights that read each channel, over its readers, relative to the others' (mean log 0)."""
    total, times = np.zeros(count), np.zeros(count)
    for node in space.readers:
        weight = net.arrays[node.input[1]].astype(np.float64)
        parts = weight.reshape(group_count(node), len(weight) // group_count(node), weight.shape[1], -1)
        each = np.square(parts).sum(axis=(1, 3)).reshape(-1)
        least = each.max() * SILENT**2 + 1e-300
        read = each > least  # weights of zero fill up numbers of channels: that is no reading
        if not read.any():
            continue
        logs = 0.5 * np.log(each[read])
        np.add.at(total, space.channels[node.input[0]][read], logs - logs.mean())
        np.add.at(times, space.channels[node.input[0]][read], 1)
    return np.asarray(np.exp(total / np.maximum(times, 1)))


def own_weights(net: ProtoGraph) -> None:
    """Give each layer weights and a bias of its own; layers without a bias get one of zeros."""
    names: set[str] = set()
    for node in net.nodes:
        if node.op_type not in {"Conv", "Gemm"} or node.input[1] not in net.arrays or not row_bias(net, node):
            continue
        layer_bias(net, node)
        for index in range(1, len(node.input)):
            name = node.input[index]
            if name in names and name in net.arrays:
                node.input[index] = net.add_array(name, net.arrays[name])
            names.add(node.input[index])
    net.index()


def write_scaled(net: ProtoGraph, node: NodeProto, scale: np.ndarray, offset: np.ndarray | None) -> None:
    """Let a layer write (y - offset) * scale, both by channel, (C,)."""
    weight = net.arrays[node.input[1]]
    net.set_array(node.input[1], (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32))
    shift = layer_bias(net, node).astype(np.float64)
    net.set_array(node.input[2], ((shift - (0 if offset is None else offset)) * scale).astype(np.float32))


def read_scaled(net: ProtoGraph, node: NodeProto, scale: np.ndarray, offset: np.ndarray | None) -> None:
    """Let a layer read (x - offset) * scale, both by channel, (C,), and answer as before."""
    weight = net.arrays[node.input[1]].astype(np.float64)
    count = group_count(node)
    if offset is not None:
        before = layer_bias(net, node).astype(np.float64)
        sums = weight.reshape(*weight.shape[:2], -1).sum(2)
        each = np.repeat(offset.reshape(count, -1), len(weight) // count, axis=0)
        net.set_array(node.input[2], (before + (sums * each).sum(1)).astype(np.float32))
    each = np.repeat(scale.reshape(count, -1), len(weight) // count, axis=0)
    weight /= each.reshape(*each.shape, *[1] * (weight.ndim - 2))
    net.set_array(node.input[1], weight.astype(np.float32))
