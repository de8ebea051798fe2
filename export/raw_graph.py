"""The unoptimised graph: exported from the module and compared with it, or the user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from ..optimize.graph import spec_metadata
from ..optimize.quantize.qdq.trained_ranges import without_pairs
from ..runtime.datasets import join_batches
from ..runtime.errors import CheckFailed, ModelError
from ..runtime.spec import ModelSpec
from . import parity, to_onnx, torchscript
from .settings import Flow, StageCheck
from .sources.source import Network


def write_raw(flow: Flow, network: Network, raw: Path, calibration: list[Any]) -> ModelSpec:
    """Write the graph with its spec in the metadata, and add its parity check.

    Args:
        flow: The run.
        network: A module, or the graph of an ONNX file.
        raw: The file to write.
        calibration: Batches of one sample.

    Returns:
        The spec, which now defines what the outputs contain.

    Raises:
        ModelError: Neither of torch's exporters can export the module.
        CheckFailed: The outputs of the exported file differ from the module's.
    """
    if network.graph is not None:
        with flow.stage("read"):
            model = network.graph
            if (trained := without_pairs(model)) is not None:
                model, flow.trained_ranges = trained
                flow.say(f"the file holds Q/DQ: INT8 gets its ranges of {len(trained[1])} tensors, FP32 and FP16 none")
            spec_metadata.write(model, network.spec)
            data = raw.name + ".data" if model.ByteSize() > to_onnx.EXTERNAL_DATA_ABOVE else None
            onnx.save(model, raw, save_as_external_data=data is not None, location=data)
        return network.spec
    try:
        return _exported(flow, network, raw, calibration, "dynamo")
    except (ModelError, CheckFailed) as error:
        if flow.settings.source.is_ours:
            raise
        flow.say(f"torch's dynamo exporter failed, the tracing one is tried: {error}")
        flow.records["exporter"] = {"taken": "tracing", "why": str(error)}
        try:
            return _exported(flow, network, raw, calibration, "tracing")
        except (ModelError, CheckFailed) as second:
            flow.say(f"the tracing exporter failed too: {second}")
            raise error from second


def _exported(flow: Flow, network: Network, raw: Path, calibration: list[Any], exporter: str) -> ModelSpec:
    settings = flow.settings
    write = {"dynamo": to_onnx.write_onnx, "tracing": torchscript.write_traced}[exporter]
    with flow.stage("export"):
        spec = write(network.module, network.spec, raw, dynamic_batch=settings.dynamic_batch, opset=settings.opset)
    if not flow.quick:
        with flow.stage("parity"):
            report = parity.check(network.module, raw, spec, join_batches(calibration[:3]))
        flow.records["parity"] = report.to_dict()
        detail = f"worst relative error {report.worst.error:.1e}, {len(report.cases)} cases"
        detail += "" if exporter == "dynamo" else "; by torch's tracing exporter"
        flow.checks.append(StageCheck("export parity", True, detail))
    return spec
