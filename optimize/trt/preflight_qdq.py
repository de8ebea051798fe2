"""Preflight rules for Q/DQ: forms that TensorRT refuses, clips, or silently runs in float.

TensorRT's form is: S8, zero point 0, one scalar scale per activation, one scale per output channel (axis 0) per weight,
and a float bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..graph.proto_graph import attributes
from .findings import Finding, PreflightGraph, Rule, label

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def _pairs(graph: PreflightGraph) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear"))


def _weight_like(graph: PreflightGraph, node: onnx.NodeProto) -> bool:
    """Return whether a Q or DQ has a constant input: INT8 weights, or float weights with Q/DQ."""
    source = node.input[0]
    maker = graph.producer.get(source)
    return source in graph.constants or (maker is not None and maker.op_type == "QuantizeLinear"
                                         and maker.input[0] in graph.constants)  # fmt: skip


def _zero_points(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    from onnx import TensorProto

    signed = "quantise for TensorRT: int8, zero point 0 written out (`edgesmith quantize --target trt`)"
    for node in _pairs(graph):
        zero_point = len(node.input) > 2 and node.input[2]
        points = graph.value(node.input[2]) if zero_point else None
        kind = (
            graph.elem_type(node.input[2])
            if zero_point
            else attributes(node).get("output_dtype", 0) or TensorProto.UINT8
        )
        if not zero_point and node.op_type == "DequantizeLinear":
            continue
        if points is not None and points.astype("int64").any():
            yield Finding("error", "zero-point", label(node), "a zero point that is not 0", signed)
        elif kind == TensorProto.UINT8:
            yield Finding("error", "uint8", label(node),
                          "uint8 with zero point 0 is built as INT8: half the range is clipped", signed)  # fmt: skip


def _scales(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    import numpy as np

    for node in _pairs(graph):
        scale = graph.value(node.input[1])
        if scale is None:
            yield Finding("error", "computed-scale", label(node),
                          "a scale computed at run time crashes TensorRT", "make it a constant")  # fmt: skip
        elif not (np.isfinite(scale).all() and (scale > 0).all()):
            yield Finding("error", "bad-scale", label(node), "a scale that is zero, negative, NaN or infinite",
                          "calibrate again on real images")  # fmt: skip


def _granularity(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    severity = "error" if precision == "int8" else "warning"
    for node in _pairs(graph):
        dims = graph.dims(node.input[1])
        if dims is None or dims == []:
            continue
        if not _weight_like(graph, node):
            what = "a scale of shape [1]" if dims == [1] else "one scale per channel on an activation"
            yield Finding(severity, "activation-scale", label(node), f"{what}: the convolution silently runs in float",
                          "make it a scalar (shape [])")  # fmt: skip
        elif dims == [1]:
            yield Finding(severity, "weight-scale", label(node),
                          "a weight scale of shape [1]: it silently runs in float", "make it a scalar")  # fmt: skip
        elif attributes(node).get("axis", 1) != 0 and _feeds(graph, node, "Conv"):
            yield Finding(severity, "weight-axis", label(node),
                          "weight scales along another axis than 0: the convolution silently runs in float",
                          "quantise per output channel, axis 0")  # fmt: skip


def _feeds(graph: PreflightGraph, node: onnx.NodeProto, kind: str) -> bool:
    users = graph.readers.get(node.output[0], [])
    return any(
        user.op_type == kind or (user.op_type == "DequantizeLinear" and _feeds(graph, user, kind)) for user in users
    )


def _biases(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    from onnx import TensorProto

    for node in _pairs(graph):
        kind = graph.elem_type(node.input[0])
        if node.op_type != "DequantizeLinear":
            continue
        if kind == TensorProto.INT32:
            yield Finding("error", "int32-bias", label(node), "an INT32 DequantizeLinear (a quantised bias)",
                          "keep the bias in float (`edgesmith quantize --target trt`)")  # fmt: skip
        elif kind == TensorProto.UINT8 and node.input[0] in graph.constants:
            yield Finding("error", "uint8-input", label(node), "uint8 data into a DequantizeLinear", "use int8")


def _coverage(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    if precision != "int8":
        return
    convolutions = [node for node in graph.nodes if node.op_type in ("Conv", "ConvTranspose")]
    makers = {id(node): graph.producer.get(node.input[0]) for node in convolutions}
    plain = [node for node in convolutions if getattr(makers[id(node)], "op_type", "") != "DequantizeLinear"]
    if convolutions and len(plain) == len(convolutions):
        yield Finding("warning", "no-qdq", "", "no convolution has Q/DQ pairs: a strongly typed build runs in float",
                      "`edgesmith quantize --target trt` first")  # fmt: skip
    for node in convolutions:
        if node.op_type == "ConvTranspose" and node not in plain:
            yield Finding(
                "warning", "transposed", label(node), "TensorRT-RTX runs ConvTranspose in float", "leave it so"
            )


QDQ_RULES: tuple[Rule, ...] = (_zero_points, _scales, _granularity, _biases, _coverage)
