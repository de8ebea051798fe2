"""INT8 for each requested target; if a form loses too much accuracy, its noisiest layers return to float."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..optimize import quantize
from ..optimize.calibration.data_checks import MIN_IMAGES
from ..optimize.quantize.float_source import FloatSource
from ..optimize.quantize.post_training import quantize_graph
from ..optimize.trt import mixed_precision
from ..runtime import datasets, targets
from ..runtime.spec import ModelSpec
from .engines import ENGINE_INT8
from .measure import kept
from .settings import ExportedArtefact, Flow, Kept

TRIES = (2, 5, 10)  # numbers of layers that return to float, at most half of all


def make_int8(flow: Flow, spec: ModelSpec, fp32: FloatSource, calibration: list[NDArray[Any]], stem: Path) -> None:
    """Quantise for each target; the evaluation images decide how many layers stay in float.

    Args:
        flow: The run; the forms are added to it.
        spec: The spec of the FP32 file.
        fp32: The float graph.
        calibration: Batches of one preprocessed image.
        stem: The beginning of the files' paths.
    """
    for target in flow.settings.targets:
        files, report = _form(flow, fp32, calibration, stem, target)
        worst = _worst(flow, spec, files)
        trials = [_record([], worst)]
        ranking = [] if worst.enough else _noisiest(flow, fp32, calibration, stem, target)
        for count in sorted({min(count, len(ranking) // 2) for count in TRIES} - {0}):
            files, report = _form(flow, fp32, calibration, stem, target, ranking[:count])
            worst = _worst(flow, spec, files)
            trials.append(_record(ranking[:count], worst))
            if worst.enough:
                break
        if ranking and not worst.enough:
            files, report = _form(flow, fp32, calibration, stem, target)
        for file in files:
            file.results["tried"] = trials
        flow.artefacts += files
        flow.records[f"int8-{target}"] = {**report, "pipeline_tried": trials}


def _form(
    flow: Flow,
    fp32: FloatSource,
    calibration: list[NDArray[Any]],
    stem: Path,
    target: str,
    floats: list[str] | None = None,
) -> tuple[list[ExportedArtefact], dict[str, Any]]:
    """Return the files of one form with these layers in float, and the quantiser's report."""
    usual = quantize.QuantSettings.quick() if flow.quick else quantize.QuantSettings.measured()
    if flow.trained_ranges:
        usual = dataclasses.replace(quantize.QuantSettings.quick(), ranges=flow.trained_ranges)
    path, settings = Path(f"{stem}-int8-{target}.onnx"), dataclasses.replace(usual, keep=frozenset(floats or ()))
    report, graph = quantize_graph(
        fp32, path, calibration, target=target, settings=settings, allow_random=_drawn(flow),
        min_images=min(MIN_IMAGES, flow.settings.calibration),
    )  # fmt: skip
    assert graph is not None  # without a budget the float network is never chosen
    files = [flow.artefact(f"int8-{target}", "int8", target, graph)]
    if targets.row(target).engine:
        name = ENGINE_INT8.format(target)
        mixed = mixed_precision.restore_in_graph(fp32.graph, graph, [], Path(f"{stem}-{name}.onnx"))
        files.append(flow.artefact(name, "int8", target, mixed))
    return files, report.to_dict()


def _drawn(flow: Flow) -> bool:
    """Whether there are no images for this input, so that noise is used."""
    return isinstance(flow.data["calibration"], datasets.Noise)


def _worst(flow: Flow, spec: ModelSpec, files: list[ExportedArtefact]) -> Kept:
    """Return the evaluation of one form's files; of one that fails, if there is one."""
    return min((kept(flow, spec, file) for file in files), key=lambda one: (one.enough, -(one.lost_points or 0.0)))


def _record(floats: list[str], worst: Kept) -> dict[str, Any]:
    return {"floats": floats, **dataclasses.asdict(worst), "said": str(worst)}


def _noisiest(flow: Flow, fp32: FloatSource, calibration: list[NDArray[Any]], stem: Path, target: str) -> list[str]:
    """Return the layers, sorted by the noise that each causes if only it is quantised, noisiest first."""
    scratch = Path(f"{stem}-explained-{target}.onnx")
    report, _ = quantize_graph(fp32, scratch, calibration, target=target, explain=True, allow_random=_drawn(flow))
    scratch.unlink()
    return sorted(report.layer_sqnr_db, key=lambda name: report.layer_sqnr_db[name])
