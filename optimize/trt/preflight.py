"""Preflight: find what TensorRT would refuse, crash on, or silently change, before its parser reads the file.

`check` runs onnx.checker first (the parser crashes on some files that it rejects) and then one function per rule. Each
problem was seen in real builds; docs/engines.md has the list. An "error" cannot be built or has other outputs than the
file; a "warning" builds, but is slower than expected or in another precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.common.files import existing_file
from ...runtime.errors import ModelError
from ..graph.proto_graph import attributes
from .findings import Finding, PreflightGraph, Rule, label

if TYPE_CHECKING:
    import onnx

    from ..graph.graph_file import GraphFile
    from .profile import Profile

NEWEST_OPSET = 27
MANY_NODES = 5000
UNSUPPORTED = {
    "QLinearConv": "use QuantizeLinear and DequantizeLinear around a float Conv",
    "QLinearMatMul": "use QuantizeLinear and DequantizeLinear around a float MatMul",
    "ConvInteger": "use QuantizeLinear and DequantizeLinear around a float Conv",
    "MatMulInteger": "use QuantizeLinear and DequantizeLinear around a float MatMul",
    "DynamicQuantizeLinear": "calibrate: quantise with constant scales",
    "NonZero": "remove it from the network and run it afterwards",
    "RoiAlign": "remove it from the network and run it afterwards",
    "DeformConv": "replace it by a convolution, or build with a plugin",
    "SplitToSequence": "use Split", "SequenceAt": "use Split", "SequenceConstruct": "use Concat",
}  # fmt: skip

SUPPRESSION = "cut it out of the network and run it after, or build with standard TensorRT"


def check(
    source: str | Path | GraphFile, precision: str = "fp32", sms: Sequence[str] = (), profile: Profile | None = None,
    flavour: str = "rtx",
) -> list[Finding]:  # fmt: skip
    """Look at an ONNX file before TensorRT does.

    Args:
        source: The file, or one that is in memory too.
        precision: What it is going to be built in: "fp32", "fp16", "bf16" or "int8".
        sms: The compute capabilities it is going to be built for, such as "7.5".
        profile: The shapes it is going to be built for (`profile.settle_profile`); None means any batch.
        flavour: The TensorRT that builds it: "rtx" or "standard".

    Returns:
        The findings, errors first; empty if there are none.

    Raises:
        UsageError: There is no such file.
    """
    from ..graph.graph_file import GraphFile
    from .preflight_qdq import QDQ_RULES

    known = source if isinstance(source, GraphFile) else None
    path = existing_file(source.path if isinstance(source, GraphFile) else source, "ONNX file")
    model, problem = _load(path, known.model if known else None)
    if problem is not None or model is None:
        return [] if problem is None else [problem]
    batches = [shape[0] for shapes in (profile or {}).values() for shape in shapes if shape] or [1, 2]
    graph = PreflightGraph(model, path, known.types if known else None, batches, flavour)
    findings = [item for rule in (*RULES, *QDQ_RULES) for item in rule(graph, precision, sms)]
    return sorted(findings, key=lambda item: item.severity)


def require(findings: Iterable[Finding], path: str | Path) -> None:
    """Raise an exception if there is an error.

    Raises:
        ModelError: There is an error; the message has the first one and the number of others.
    """
    bad = [item for item in findings if item.severity == "error"]
    if bad:
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        where = f"{bad[0].node}: " if bad[0].node else ""
        raise ModelError(f"TensorRT cannot use {path}: {where}{bad[0].what}{more}", do=bad[0].do)


def _load(path: Path, model: onnx.ModelProto | None = None) -> tuple[onnx.ModelProto | None, Finding | None]:
    import onnx

    try:
        model = model or onnx.load(str(path), load_external_data=False)
    except Exception as error:  # for example protobuf's DecodeError
        return None, Finding("error", "not-onnx", "", f"the file is not an ONNX model ({error})", "export it again")
    if not model.graph.output:
        return None, Finding("error", "empty", "", "the graph has no outputs", "export it again")
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        return None, Finding("error", "invalid", "", f"onnx.checker rejects it: {reason}", "export it again")
    return model, None


def _ops(graph: PreflightGraph, *kinds: str) -> Iterator[onnx.NodeProto]:
    return (node for node in graph.nodes if node.op_type in kinds)


def _unsupported(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type in UNSUPPORTED:
            what = f"TensorRT does not run {node.op_type}"
            yield Finding("error", "unsupported-op", label(node), what, UNSUPPORTED[node.op_type])
        elif node.op_type == "NonMaxSuppression" and graph.flavour == "rtx":
            yield Finding("error", "unsupported-op", label(node), "TensorRT-RTX has no NonMaxSuppression", SUPPRESSION)
        elif node.domain not in ("", "ai.onnx"):
            what = f"{node.op_type} of the domain {node.domain!r} needs a plugin"
            yield Finding("error", "custom-op", label(node), what, "export it as standard operators")


def _pools(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for node in _ops(graph, "MaxPool", "AveragePool"):
        if any(step != 1 for step in attributes(node).get("dilations", [])):
            yield Finding("error", "pool-dilation", label(node), "a pool with dilation", "pool without dilation")
        if len(node.output) > 1 and node.output[1]:
            yield Finding("error", "pool-indices", label(node), "a pool with a second output (indices)", "drop it")


def _resizes(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for node in _ops(graph, "Resize"):
        modes = attributes(node)
        odd = [
            modes.get("coordinate_transformation_mode", b"") == b"tf_crop_and_resize" and "tf_crop_and_resize",
            modes.get("antialias", 0) and "antialias",
            modes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch" and "keep_aspect_ratio_policy",
        ]
        for name in filter(None, odd):
            yield Finding("error", "resize-mode", label(node), f"Resize with {name}", "use half_pixel, no antialias")


def _modes(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for node in _ops(graph, "BatchNormalization"):
        if attributes(node).get("training_mode", 0):
            yield Finding("error", "training-mode", label(node), "BatchNorm in training mode", "export in eval mode")
    for node in _ops(graph, "TopK"):
        k = graph.value(node.input[1])
        if k is not None and int(k.reshape(-1)[0]) > 3840:
            yield Finding("error", "top-k", label(node), f"TopK of {int(k.reshape(-1)[0])}", "at most 3840")


def _bytes_in(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    from onnx import TensorProto

    for node in graph.nodes:
        if node.op_type in ("Transpose", "Slice", "Resize") and graph.elem_type(node.input[0]) == TensorProto.UINT8:
            what = f"{node.op_type} of a uint8 tensor"
            yield Finding("error", "uint8-op", label(node), what, "put a Cast to float before it")


def _batches(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for node in _ops(graph, "Reshape"):
        shape, free = graph.value(node.input[1]), graph.is_free_batch(node.input[0])
        others = [dim for dim in (graph.dims(node.input[0]) or [])[1:] if dim is not None]
        whole = 1 + len(others) == len(graph.dims(node.input[0]) or [])
        if not free or not whole or shape is None or attributes(node).get("allowzero"):
            continue
        sizes = [int(size) for size in shape.reshape(-1)]
        if all(_holds(sizes, [batch, *others]) for batch in graph.batches):
            continue
        count, rest = math.prod(sizes), math.prod(others)
        fixed = count // rest if rest > 0 and min(sizes, default=0) > 0 and count % rest == 0 else 0
        what = f"to {fixed or sizes}" if fixed else f"by the shape {sizes}"
        yield Finding("error", "fixed-batch", label(node), f"the batch is dynamic, but the Reshape fixes it {what}",
                      f"build with --batch {fixed or 1}, or export with 0 or -1 there")  # fmt: skip


def _holds(sizes: list[int], dims: list[int]) -> bool:
    """Return whether a Reshape to `sizes` (0 copies a dimension, -1 takes the rest) holds a tensor of these sizes."""
    known = [dims[at] if size == 0 and at < len(dims) else size for at, size in enumerate(sizes)]
    total, product = math.prod(dims), math.prod(size for size in known if size != -1)
    return product > 0 and total % product == 0 if -1 in known else product == total


def _shapes(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for name in graph.types:
        if len(graph.dims(name) or []) > 8:
            yield Finding("error", "rank", name, f"a tensor of rank {len(graph.dims(name) or [])}", "at most 8")
    for value in graph.graph.input:
        if any(dim.dim_value < 0 for dim in value.type.tensor_type.shape.dim):
            yield Finding("warning", "negative-dim", value.name, "a negative dimension, which is taken as a free one",
                          "give its size with --batch or --shape")  # fmt: skip


def _weights(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    import numpy as np
    from onnx import TensorProto

    known = set(TensorProto.DataType.values())
    for name, constant in graph.constants.items():
        if constant.data_type not in known:
            yield Finding("error", "unknown-type", name, f"a weight of data type {constant.data_type}, which ONNX does "
                          "not have", "export it again")  # fmt: skip
        array = graph.value(name)
        if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
            yield Finding(
                "error", "not-finite", name, "a weight that is NaN or infinite; TensorRT does not check it", "retrain"
            )


def _file(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    opset = next((item.version for item in graph.model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset > NEWEST_OPSET:
        yield Finding(
            "error", "opset", "", f"opset {opset}; TensorRT would accept it and guess", f"at most {NEWEST_OPSET}"
        )
    if len(graph.nodes) > MANY_NODES:
        yield Finding("warning", "many-nodes", "", f"{len(graph.nodes)} nodes: the build time grows quadratically",
                      "simplify the graph; see --timeout")  # fmt: skip


def _half(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    from onnx import TensorProto

    flags: dict[int, tuple[str, str]] = {
        TensorProto.FLOAT16: ("FP16", "--fp16"),
        TensorProto.BFLOAT16: ("BF16", "--precision bf16"),
    }
    for node in _ops(graph, "Conv", "ConvTranspose", "Gemm", "MatMul") if precision == "fp32" else ():
        if kind := flags.get(graph.elem_type(node.input[1])):
            yield Finding("error", "half-file", label(node), f"{kind[0]} weights, and FP32 was requested",
                          f"build with {kind[1]}")  # fmt: skip
            return


def _turing(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    from onnx import TensorProto

    if "7.5" not in sms:
        return
    for node in _ops(graph, "Gemm", "MatMul"):
        if graph.elem_type(node.input[0]) in (0, TensorProto.FLOAT):
            yield Finding("error", "sm75-gemm", label(node), f"SM 7.5 has no FP32 {node.op_type} in TensorRT-RTX",
                          "cast to FP16, or turn it into a 1x1 Conv")  # fmt: skip
    for node in _ops(graph, "Conv"):
        if graph.elem_type(node.input[0]) == TensorProto.BFLOAT16 or len(graph.dims(node.input[0]) or []) == 5:
            yield Finding("error", "sm75-conv", label(node), "SM 7.5 has no BF16 and no 3-D FP32 Conv", "cast to FP16")
    if precision == "int8":
        yield Finding("warning", "sm75-int8", "", "on SM 7.5 TensorRT-RTX runs INT8 convolutions in float", "use fp16")


RULES: tuple[Rule, ...] = (
    _unsupported, _pools, _resizes, _modes, _bytes_in, _batches, _shapes, _weights, _file, _half, _turing,
)  # fmt: skip
