"""Preflight: find what TensorRT would refuse, crash on, or silently change, before its parser reads the file.

`check` runs onnx.checker first (the parser crashes on some files that it rejects) and then one function per rule. Each
problem was seen in real builds; docs/engines.md has the list. An "error" cannot be built or has other outputs than the
file; a "warning" builds, but is slower than expected or in another precision.
"""

from __future__ import annotations

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
    "NonMaxSuppression": "remove it from the network; the runtime has box suppression in NumPy",
    "SplitToSequence": "use Split", "SequenceAt": "use Split", "SequenceConstruct": "use Concat",
}  # fmt: skip


def check(source: str | Path | GraphFile, precision: str = "fp32", sms: Sequence[str] = ()) -> list[Finding]:
    """Check an ONNX file before TensorRT reads it.

    Args:
        source: The file, or a `GraphFile` in memory.
        precision: The precision of the build: "fp32", "fp16", "bf16" or "int8".
        sms: The compute capabilities of the build, such as "7.5".

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
    graph = PreflightGraph(model, path, known.types if known else None)
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
        dims, shape = graph.dims(node.input[0]), graph.value(node.input[1])
        if dims and dims[0] is None and shape is not None and shape.size and shape.reshape(-1)[0] > 0:
            what = f"the batch is dynamic, but the Reshape fixes it to {int(shape.reshape(-1)[0])}"
            yield Finding("error", "fixed-batch", label(node), what, "export with 0 or -1 there, or a fixed batch")


def _shapes(graph: PreflightGraph, precision: str, sms: Sequence[str]) -> Iterator[Finding]:
    for name in graph.types:
        if len(graph.dims(name) or []) > 8:
            yield Finding("error", "rank", name, f"a tensor of rank {len(graph.dims(name) or [])}", "at most 8")
    for value in graph.graph.input:
        if any(dim is not None and dim < 0 for dim in graph.dims(value.name) or []):
            yield Finding("error", "negative-dim", value.name, "a negative dimension, treated as a dynamic axis",
                          "name the dimension, or give its size")  # fmt: skip


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
    _unsupported, _pools, _resizes, _modes, _bytes_in, _batches, _shapes, _weights, _file, _turing,
)  # fmt: skip
