"""INT8 for each requested target; if a form loses too much accuracy, its noisiest layers return to float."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..optimize import quantize
from ..optimize.calibration.data_checks import MIN_IMAGES
from ..optimize.calibration.samples import Samples
from ..optimize.graph.graph_file import GraphFile
from ..optimize.quantize.float_source import FloatSource
from ..optimize.quantize.mixed_precision.search import sensitivity
from ..optimize.quantize.post_training import quantize_graph
from ..optimize.quantize.targets import find_target
from ..optimize.trt import mixed_precision
from ..runtime import datasets, targets
from ..runtime.spec import ModelSpec
from .engines import ENGINE_INT8
from .measure import kept
from .settings import ExportedArtefact, Flow, Kept

# Numbers of layers that return to float, at most half of all.
TRIES = (2, 5, 10, 20)


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
        files, trials, report = _Forms(flow, spec, fp32, calibration, stem, target).search()
        for file in files:
            file.results["tried"] = trials
        flow.artefacts += files
        flow.records[f"int8-{target}"] = {**report, "pipeline_tried": trials}


@dataclass(frozen=True)
class _Forms:
    """The forms of one target: all layers in INT8, then some of them in float.

    The recipe is chosen once, with all layers in INT8. With layers in float a form is estimated first, without the walk
    layer by layer, which takes most of the time; only a number of layers that may do is converted in full.
    """

    flow: Flow
    spec: ModelSpec
    fp32: FloatSource
    calibration: list[NDArray[Any]]
    stem: Path
    target: str

    def search(self) -> tuple[list[ExportedArtefact], list[dict[str, Any]], dict[str, Any]]:
        """Return the files of the first form that keeps enough, or else of all in INT8; all trials; the report."""
        quick = quantize.QuantSettings.quick()
        measured = quantize.QuantSettings.measured()
        if self.flow.settings.weights == "random":
            measured = quantize.QuantSettings()  # what random weights keep says nothing of a recipe
        if self.flow.trained_ranges:
            measured = dataclasses.replace(quick, ranges=self.flow.trained_ranges)
        graph, chosen = self._convert(quick if self.flow.quick else measured)
        files, whole = self._files(graph), chosen.to_dict()
        worst = self._worst(files)
        trials = [_record([], worst)]
        ranking = [] if worst.enough else [name for name in self._noisiest() if name not in chosen.settings.noisy]
        for count in sorted({min(count, len(ranking) // 2) for count in TRIES} - {0}):
            forms = list(self._trials(ranking[:count], chosen.settings))
            trials += [_record(ranking[:count], worst, estimate) for _, _, worst, estimate in forms]
            files, report, worst, _ = forms[-1]
            if worst.enough:
                return files, trials, {**report.to_dict(), "recipe": whole["recipe"]}
        if ranking:
            files = self._files(GraphFile.write(graph.model, graph.path))
        return files, trials, whole

    def _trials(
        self, floats: list[str], settings: quantize.QuantSettings
    ) -> Iterator[tuple[list[ExportedArtefact], quantize.QuantReport, Kept, bool]]:
        """Yield the form with these layers in float: an estimate where the recipe walks, then itself if it may do."""
        for estimate in (True, False) if settings.refine else (False,):
            refine = settings.refine and not estimate
            graph, report = self._convert(dataclasses.replace(settings, keep=frozenset(floats), refine=refine))
            files = self._files(graph)
            worst = self._worst(files)
            yield files, report, worst, estimate
            if not worst.near:
                return

    def _convert(self, settings: quantize.QuantSettings) -> tuple[GraphFile, quantize.QuantReport]:
        path = Path(f"{self.stem}-int8-{self.target}.onnx")
        report, graph = quantize_graph(
            self.fp32, path, self.calibration, target=self.target, settings=settings,
            # Where there are no images for this input, noise is used.
            allow_random=isinstance(self.flow.data["calibration"], datasets.Noise),
            min_images=min(MIN_IMAGES, self.flow.settings.calibration),
        )  # fmt: skip
        assert graph is not None  # without a budget the float network is never chosen
        return graph, report

    def _files(self, graph: GraphFile) -> list[ExportedArtefact]:
        """Return the files of a quantised graph: its own, and the one for engines."""
        files = [self.flow.artefact(f"int8-{self.target}", "int8", self.target, graph)]
        if targets.row(self.target).engine:
            name = ENGINE_INT8.format(self.target)
            mixed = mixed_precision.restore_in_graph(self.fp32.graph, graph, [], Path(f"{self.stem}-{name}.onnx"))
            files.append(self.flow.artefact(name, "int8", self.target, mixed))
        return files

    def _worst(self, files: list[ExportedArtefact]) -> Kept:
        """Return the evaluation of one form's files; of one that fails, if there is one."""
        each = (kept(self.flow, self.spec, file) for file in files)
        return min(each, key=lambda one: (one.enough, one.near, -(one.lost_points or 0.0)))

    def _noisiest(self) -> list[str]:
        """Return the layers, sorted by the noise that each causes if only it is quantised, noisiest first."""
        form = find_target(self.target)
        first = next(iter(Samples(self.calibration, self.fp32.layout)))
        free = self.fp32.free("GlobalAveragePool" in form.int8_ops, first)
        return list(sensitivity(free.model, form, Samples(self.calibration, free.layout, size=free.size)))


def _record(floats: list[str], worst: Kept, estimate: bool = False) -> dict[str, Any]:
    verdict = f"{worst}{' (estimate: without the walk layer by layer)' * estimate}"
    return {"floats": floats, **dataclasses.asdict(worst), "estimate": estimate, "said": verdict}
