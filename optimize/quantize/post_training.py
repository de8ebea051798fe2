"""From a float graph and images to an explicit Q/DQ graph: the whole flow of one quantisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.common.files import scratch
from ...runtime.errors import CheckFailed
from ..calibration.data_checks import MIN_IMAGES, Inspection, inspect
from ..calibration.samples import Samples, at_once, repeatable
from ..graph import spec_metadata
from .kept_layers import kept_names
from .mixed_precision.points_judge import PointsJudge
from .preconditions import check_model
from .report import Quality, QuantReport, QuantSettings, judge, spread
from .targets import Target, find_target, is_tensorrt
from .weights.quantize_weights import LARGEST

if TYPE_CHECKING:
    from ..graph.graph_file import GraphFile
    from .float_source import FloatSource
    from .mixed_precision.search import Budget, Search
    from .pipeline import Converted
    from .recipe_search import Trial


def quantize(
    source: str | Path, target_path: str | Path, samples: Iterable[Any], *, target: str = "trt",
    allow_random: bool = False, min_images: int = MIN_IMAGES, settings: QuantSettings | None = None,
    budget_db: float | None = None, budget_points: float | None = None, points_judge: PointsJudge | None = None,
    cache: str | Path | None = None, explain: bool = False, judges: Iterable[Any] | None = None, timed: bool = False,
) -> QuantReport:  # fmt: skip
    """Quantise an ONNX file to INT8 with explicit Q/DQ, calibrated on real images.

    Args:
        source: A float32 ONNX file, BatchNormalization folded (run `optimize` first).
        target_path: The file to write, whole or not at all.
        samples: Batches: arrays for the only input, else dicts by name; read several times (a generator is spooled).
        target: A name of `targets.quantized_targets()`.
        allow_random: Accept samples that look like noise, or that the model's preprocessing cannot give.
        min_images: The fewest calibration images that are accepted.
        settings: What is done to keep the accuracy; the default does, but for AdaRound, each step that gains.
        budget_db: The least SQNR on the calibration images, in dB: layers are left in float until it is met.
        budget_points: The same with points of a metric.
        points_judge: Whose metric, and the truths of the images; by default top-1, of which a changed answer is lost.
        cache: A folder that keeps what calibration counted, for each model, data and preprocessing.
        explain: Quantise each layer alone too, and report what it costs.
        judges: Batches of other images, which SQNR and agreement are measured on: without, on those it was fitted to.
        timed: Time both files where the target is this kind of machine; a second.

    Raises:
        UsageError: An unknown target or method, no such file, or a layer to be kept that is not there.
        ModelError: Not a float graph that can be quantised.
        DataError: Too few images, of the wrong shape, dtype or range, NaN in images or activations.
        CheckFailed: Nothing meets the budget, or a newer opset makes something else of the graph; nothing is written.
    """
    from .float_source import FloatSource
    from .mixed_precision.search import Budget
    from .speed import race

    find_target(target)
    graph, settings = _read(source, settings)
    floats, wanted = FloatSource(graph), (budget_db, budget_points) != (None, None)
    budget = Budget(budget_db, budget_points, points_judge or PointsJudge()) if wanted else None
    with repeatable(samples) as batches:
        report, quantised = quantize_graph(
            floats, target_path, batches, target=target, allow_random=allow_random, min_images=min_images,
            settings=settings, budget=budget, cache=cache, explain=explain, judges=judges,
        )  # fmt: skip
        image = next(iter(Samples(batches, floats.layout)))
    if not timed or quantised is None:
        return report
    speed, why = race(Path(source), Path(target_path), target, floats.layout.own(image))
    return replace(report, speed=speed, not_timed=why)


def _read(source: str | Path, settings: QuantSettings | None) -> tuple[GraphFile, QuantSettings | None]:
    """Read a file, check it, and return it as a float graph, with the settings that it asks for."""
    from ..graph.graph_file import GraphFile

    graph = GraphFile.read(source)
    _check_upgrade(source, graph)
    graph, settings = _trained(graph, settings)
    check_model(graph.model, source)
    return graph, settings


def _trained(graph: GraphFile, settings: QuantSettings | None) -> tuple[GraphFile, QuantSettings | None]:
    """Return a graph trained with Q/DQ as a float graph, and settings that keep its ranges and weights."""
    from ..graph.graph_file import GraphFile
    from .qdq.trained_ranges import without_pairs

    if (read := without_pairs(graph.model)) is None:
        return graph, settings
    model, ranges = read
    note = (
        f"the file holds Q/DQ: the ranges of its {len(ranges)} tensors and its weights are kept; others are calibrated"
    )
    keep = settings.keep if settings else frozenset()
    return GraphFile(model, graph.path, (*graph.notes, note)), replace(QuantSettings.quick(), keep=keep, ranges=ranges)


def _check_upgrade(source: str | Path, graph: GraphFile) -> None:
    """Compare a graph that was changed when it was read with its file.

    Raises:
        CheckFailed: They differ.
    """
    if not graph.notes:
        return
    from ..equivalence import compare
    from ..graph.proto_graph import write_model

    with scratch("quantize") as folder:
        changed = folder / "upgraded.onnx"
        write_model(graph.model, changed)
        check = compare(Path(source), changed)
    if check.verdict == "different":
        what = f"{source} computes something else once {'; '.join(graph.notes)}"
        raise CheckFailed(what, got=check.detail, expected="equal outputs", do="export it again with a newer opset")


def quantize_graph(
    source: FloatSource, target_path: str | Path, samples: Iterable[Any], *, target: str,
    allow_random: bool = False, min_images: int = MIN_IMAGES, settings: QuantSettings | None = None,
    budget: Budget | None = None, cache: str | Path | None = None, explain: bool = False,
    judges: Iterable[Any] | None = None,
) -> tuple[QuantReport, GraphFile | None]:  # fmt: skip
    """Do what `quantize` does for a graph in memory, from samples that can be read several times.

    Returns:
        The report, and the quantised graph; None where the float one was written.
    """
    from ..graph.graph_file import GraphFile

    graph, form = source.graph, find_target(target)
    model = check_model(graph.model, graph.path)
    settings = settings or QuantSettings.measured()
    settings = replace(settings, keep=kept_names(model, settings.keep))
    checked = Samples(samples, source.layout, Path(cache) if cache is not None else None)
    spec = spec_metadata.embedded(model)
    data = inspect(checked, spec if spec and spec.takes_images else None, min_images, allow_random)
    outcome = _search(source, checked, data.digest, form, settings, budget, explain, judges)
    notes = outcome.made.notes if outcome.made else ()
    notes = (*notes, *(f"output {name!r} is a selection: what it is chosen from is judged"
                       for name in outcome.quality.selected))  # fmt: skip
    data = replace(data, warnings=(*graph.notes, *data.warnings, *notes))
    quantised = None if outcome.made is None else GraphFile.write(outcome.made.model, target_path)
    if quantised is None:
        _write_float(graph, target, target_path, checked)
    return _report(target, data, outcome, (graph.bytes, Path(target_path).stat().st_size)), quantised


@dataclass(frozen=True)
class _SearchOutcome:
    """A quantised graph (None: the float one was better), how it was searched for, and how good it is."""

    made: Converted | None
    search: Search | None
    alone: dict[str, float]
    quality: Quality
    held_out: bool
    settings: QuantSettings
    trials: tuple[Trial, ...] = ()


def _search(
    source: FloatSource,
    samples: Samples,
    digest: str,
    form: Target,
    settings: QuantSettings,
    budget: Budget | None,
    explain: bool,
    judges: Iterable[Any] | None = None,
) -> _SearchOutcome:
    from ..calibration.axis_roles import AxisRoles
    from ..calibration.batching import FreeGraph, with_batch_of
    from .mixed_precision.search import sensitivity, within_budget
    from .pipeline import convert
    from .range_estimators import check_method
    from .recipe_search import choose_recipe

    check_method(settings.method)
    first = next(iter(samples))
    ranges_alone = budget is None and not settings.refine
    pools = "GlobalAveragePool" in form.int8_ops
    model = source.model(pools)
    layout, shape = source.layout, source.layout.main_of(first).shape
    if ranges_alone and layout.size and layout.size == at_once(shape):
        free = FreeGraph(model, layout.size, layout, AxisRoles())
    else:
        free = source.free(pools, first)
    samples = Samples(samples.batches, free.layout, samples.cache, digest, free.size)
    conversion: Converted | None
    recipe = search = None
    if settings.choose:
        recipe = choose_recipe(free.model, form, samples, settings, free.roles)
        settings = recipe.settings
    if budget is None:
        conversion = recipe.conversion if recipe else convert(free.model, form, samples, settings, free.roles)
        alone = sensitivity(free.model, form, samples) if explain else {}
    else:
        search = within_budget(free.model, form, samples, settings, budget, free.roles)
        conversion, alone = search.made, search.sensitivity_db
    others = Samples(judges, free.layout, size=free.size) if judges is not None else spread(samples, free.layout)
    quality = judge(free.model, conversion.model if conversion else free.model, list(others), free.layout)
    if conversion is not None:
        with_batch_of(conversion.model, model)
    trials = recipe.trials if recipe else ()
    return _SearchOutcome(conversion, search, alone, quality, judges is not None, settings, trials)


def _write_float(graph: GraphFile, target: str, target_path: str | Path, samples: Samples) -> None:
    """Write the float graph, which was faster: in FP16 for a GPU, as it is for a CPU."""
    from ..fp16.convert import convert_graph
    from ..graph.proto_graph import write_model

    if is_tensorrt(target):
        convert_graph(graph, target_path, samples)
    else:
        write_model(graph.model, target_path)


def _report(target: str, data: Inspection, outcome: _SearchOutcome, sizes: tuple[int, int]) -> QuantReport:
    from .placement import QuantPlan

    conversion, search = outcome.made, outcome.search
    plan = conversion.plan if conversion else QuantPlan()
    grids, limits = (conversion.grids, conversion.limits) if conversion else ({}, {})
    return QuantReport(
        target=target,
        images=data.images,
        data_sha256=data.digest,
        warnings=data.warnings,
        quantised=dict(Counter(node.op_type for node in (*plan.layers, *plan.other_ops))),
        floats=plan.kept_float,
        folded=conversion.folded if conversion else (),
        limited={name: count for name, limit in limits.items() if (count := int((np.asarray(limit) < LARGEST).sum()))},
        ranges={name: (grids[name].low, grids[name].high) for name in sorted(plan.quantized_reads)},
        reason=search.reason if search else "",
        recipe=tuple(trial.to_dict() for trial in outcome.trials),
        settings=outcome.settings,
        tried=tuple(one.to_dict() for one in search.tried) if search else (),
        tensor_sqnr_db=conversion.noise if conversion else {},
        layer_sqnr_db=outcome.alone,
        fitted=conversion.fitted if conversion else {},
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        sqnr_db=outcome.quality.sqnr_db,
        agreement=outcome.quality.agreement,
        judged=outcome.quality.images,
        held_out=outcome.held_out,
        agreed=outcome.quality.agreed,
        classes=outcome.quality.classes,
    )
