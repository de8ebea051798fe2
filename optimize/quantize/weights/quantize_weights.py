"""Weights to S8: one scale for each output channel, symmetric, so that zero stays zero and TensorRT takes it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from ...graph.proto_graph import ProtoGraph, set_attributes
from ..layer_queries import weight_axis
from ..targets import Target

LARGEST = 127
# INT32 biases are kept under 2^30, so that bias plus products cannot overflow the accumulator.
LARGEST_BIAS = 2.0**30
NARROWER = tuple(1 - 0.02 * step for step in range(12))


@dataclass(frozen=True)
class Quantised:
    """Integers with their scales: value = scale * integers, scales along `axis` (None: one scale for all)."""

    integers: np.ndarray
    scale: np.ndarray
    axis: int | None

    def dequantised(self) -> np.ndarray:
        """Return the float32 values."""
        return np.asarray(self.integers * spread(self.scale, self.axis, self.integers.ndim), np.float32)


def spread(scale: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """Reshape per-channel scales so that they multiply a tensor of that rank along `axis`."""
    return scale if axis is None else scale.reshape([-1 if at == axis else 1 for at in range(rank)])


def scales(weight: np.ndarray, axis: int | None, largest: np.ndarray | float = LARGEST) -> np.ndarray:
    """Return max|w| / largest for each channel along `axis`, float32; a channel of zeros gets the median scale.

    Args:
        weight: Float weights.
        axis: The output channels' axis; None for one scale.
        largest: The integer that the largest weight becomes (127, or less where pairs may saturate), scalar or (C,).
    """
    others = tuple(at for at in range(weight.ndim) if at != axis)
    peak = np.abs(weight).max(axis=others) if axis is not None else np.abs(weight).max()
    scale = np.asarray(peak / largest, np.float64)
    tiny = np.finfo(np.float32).tiny * 2.0**20
    fallback = float(np.median(scale[scale > tiny])) if (scale > tiny).any() else 1.0
    return np.where(scale > tiny, scale, fallback).astype(np.float32)


def mse_scale(weight: np.ndarray, scale: np.ndarray, importance: np.ndarray | float = 1.0) -> np.ndarray:
    """Return scales that clip the largest weights of a channel where that lowers its squared error.

    Args:
        weight: Float weights, output channels first.
        scale: One scale for each output channel, (M,), that clips nothing.
        importance: How much an error of each weight counts; broadcast to the weights' shape.
    """
    axes = tuple(range(1, weight.ndim))
    errors = []
    for share in NARROWER:
        back = quantise(weight, np.asarray(scale * share, np.float32), 0).dequantised()
        errors.append((np.square(back - weight) * importance).sum(axis=axes))
    return np.asarray(scale * np.asarray(NARROWER)[np.argmin(errors, axis=0)], np.float32)


def quantise(weight: np.ndarray, scale: np.ndarray, axis: int | None) -> Quantised:
    """Round weights to the nearest integers in [-127, 127] under the given scales."""
    ratio = weight / spread(scale, axis, weight.ndim).astype(np.float64)
    return Quantised(np.clip(np.rint(ratio), -LARGEST, LARGEST).astype(np.int8), scale, axis)


def bias_scales(weight_scale: np.ndarray, activation_scale: float, bias: np.ndarray) -> np.ndarray:
    """Return weight scales raised where an INT32 bias would overflow: |b| / (s_x s_w) stays under 2^30."""
    least = np.abs(bias) / (activation_scale * LARGEST_BIAS)
    return np.asarray(np.maximum(weight_scale, least), np.float32)


def weight_scales(
    weight: np.ndarray, axis: int | None, form: Target, limit: np.ndarray | None, bias: np.ndarray | None, read: float
) -> np.ndarray:
    """Return the scales of a layer's weights, float32, (M,) or a scalar.

    Args:
        weight: Float weights.
        axis: The output channels' axis; None for one scale.
        form: The target's form.
        limit: The largest integers, (M,); None: 127.
        bias: The float bias, (M,).
        read: The scale of the activation that the layer reads.
    """
    limit = limit if limit is None or axis is not None else np.min(limit)
    scale = scales(weight, axis, LARGEST if limit is None else limit)
    if axis is not None:
        free = np.full(weight.shape[axis], True) if limit is None else limit == LARGEST
        scale = np.where(free, mse_scale(np.moveaxis(weight, axis, 0), scale), scale)
    if form.integer_bias and bias is not None:
        scale = np.asarray(bias_scales(scale, read, bias), np.float32)
        scale = scale if axis is not None else scale.max()
    return np.asarray(np.maximum(scale, form.least_scale), np.float32)


def stored_weights(net: ProtoGraph, node: NodeProto) -> tuple[np.ndarray, int | None]:
    """Return a layer's weights as they will be stored, and the axis that their scales follow; None for one scale.

    Gemm weights are turned to (N, K). MatMul's channels stand on axis 1, as those of a ConvTranspose do: TensorRT would
    run them in float with scales along it, so that they get one scale for all.
    """
    weight = net.arrays[node.input[1]]
    if node.op_type == "Gemm" and weight_axis(node) == 1:
        weight = np.ascontiguousarray(weight.T)
        node.input[1] = net.add_array(f"{node.input[1]}_t", weight)
        set_attributes(node, transB=1)
    return weight, 0 if weight_axis(node) == 0 else None
