"""Evaluation of each artefact of a run: accuracy and agreement on real images, latency on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..bench import stats
from ..bench.measure import interleave
from ..bench.measure.evaluation import Evaluated, same_sizes
from ..bench.measure.workload import BenchTarget
from ..bench.metrics import accuracy
from ..optimize.graph.graph_file import GraphFile
from ..optimize.quantize.class_likeness import ClassLikeness
from ..optimize.quantize.report import judge
from ..optimize.quantize.speed import Speed, race
from ..runtime import targets
from ..runtime.datasets import Dataset, Noise
from ..runtime.datasets.truths import KINDS
from ..runtime.errors import UsageError
from ..runtime.spec import ModelSpec
from ..runtime.tasks import CLASS, Task, find, first
from .answers import answers_key, answers_on
from .bf16 import as_bf16, refuse_bf16
from .settings import ExportedArtefact, Flow, Kept, StageCheck, result_key

# One process per artefact, half a second each: precise enough for the table, not for a gate.
PLAN = interleave.SamplingPlan(processes=1, least_s=0.6, least=30, most_s=4.0, warm_up_s=1.0)

UNJUDGED_IMAGES = 64
# Number of images if similarity decides: 1 % is then two or three images.
LIKENESS_IMAGES = 256
# A form whose noise is so much too loud is near: what it loses is proportional to the noise's amplitude.
NEAR_DB = 1.0
NEAR = 10 ** (NEAR_DB / 20) - 1


def measure(flow: Flow, spec: ModelSpec) -> None:
    """Fill `results` of every artefact and add a check for each lower precision's accuracy."""
    for artefact in flow.artefacts:
        artefact.results["bytes"] = artefact.bytes
    files = [artefact for artefact in flow.artefacts if artefact.backend == "ort"]
    runnable = files + as_bf16(flow, files)
    if flow.settings.evaluate:
        why_not = not_judged(flow, spec)
        for split in flow.splits:
            _score(flow, runnable, spec, split, judged=not why_not)
        flow.checks += [_accuracy_check(flow, spec, artefact, runnable[0], why_not) for artefact in runnable[1:]]
        refuse_bf16(flow)
    else:
        flow.checks.append(StageCheck("accuracy", None, "not evaluated: the settings disable it"))
    image = next(iter(flow.data["test"].head(1).batches(spec, 1)))
    shape = _shape(spec.feeds(image)) if spec.ranges else ""
    _time([artefact for artefact in runnable if not artefact.simulated], flow.settings.threads, shape)
    for artefact in runnable[1:]:
        if artefact.simulated and targets.is_here(artefact.target):
            _race(runnable[0], artefact, image)
    flow.checks += [check for artefact in files[1:] if (check := _speed_check(artefact))]


def kept(flow: Flow, spec: ModelSpec, artefact: ExportedArtefact) -> Kept:
    """Compare a form with FP32: by its score if labels can be used, else by similarity; not for random weights."""
    if not flow.settings.evaluate:
        return Kept(not_judged="the settings disable it")
    why_not = not_judged(flow, spec)
    if flow.settings.weights == "random":
        return Kept(not_judged=why_not)
    if why_not:
        return _alike(flow, spec, artefact)
    lost, most = _lost(flow, spec, artefact), flow.settings.most_lost(find(spec.task)) + 1e-9
    return Kept(lost <= most, lost, near=lost <= most + NEAR * abs(most))


def _alike(flow: Flow, spec: ModelSpec, artefact: ExportedArtefact) -> Kept:
    """Compare a form's outputs with FP32's if labels cannot be used; near ties of FP32 count as agreement."""
    fp32, settings, task = flow.onnx("fp32"), flow.settings, find(spec.task)
    key = str(artefact.path), artefact.path.stat().st_mtime_ns, artefact.backend
    if key in flow.likeness:
        return flow.likeness[key]
    agreement, near_ties, worst = None, 0, float("inf")
    for split in flow.splits:
        data = flow.data[split].head(LIKENESS_IMAGES)
        one, two = answers_on(flow, [fp32, artefact], data, spec)
        share, ties = (None, 0) if isinstance(data, Noise) else _agreed(task, one, two, spec)
        if share is not None:
            agreement = min(share, 100.0 if agreement is None else agreement)
            near_ties += ties
        if artefact.backend == fp32.backend:
            worst = min(worst, *_sqnr_db(flow, fp32, artefact, list(data.head(UNJUDGED_IMAGES).batches(spec, 1))))
        else:
            worst = min(worst, *_arithmetic_db(one, two))
    spare = NEAR * (100 - settings.min_agreement)
    enough, near = (
        worst >= settings.min_sqnr - less_db and (agreement is None or agreement >= settings.min_agreement - less)
        for less_db, less in ((0.0, 0.0), (NEAR_DB, spare))
    )
    sqnr_db = worst if np.isfinite(worst) else None
    flow.likeness[key] = Kept(enough, agreement=agreement, near_ties=near_ties, sqnr_db=sqnr_db, near=near)
    return flow.likeness[key]


def _agreed(task: Task, fp32: Evaluated, form: Evaluated, spec: ModelSpec) -> tuple[float | None, int]:
    """Return the agreement in per cent, near ties of classes included, and their number; None if it decides nothing."""
    if not task.truth:
        return None, 0
    if task.truth != CLASS:
        share = task.agreement(form.reduced, fp32.reduced, spec.context())
        return (None if share is None else 100 * share), 0
    one, two = first(fp32.reduced), first(form.reduced)
    if one.shape != two.shape or one.ndim < 2 or one.shape[1] < 2:
        return None, 0
    alike = ClassLikeness.of(*(np.moveaxis(side, 1, -1).reshape(-1, side.shape[1]) for side in (one, two)))
    return 100 * (alike.agreed + alike.near_ties) / alike.images, alike.near_ties


def _sqnr_db(
    flow: Flow, fp32: ExportedArtefact, artefact: ExportedArtefact, batches: list[NDArray[Any]]
) -> list[float]:
    """Return the SQNR of each part of each output in dB."""
    before, after = (_graph(flow, one).model for one in (fp32, artefact))
    return list(judge(before, after, batches).sqnr_db.values())


def _arithmetic_db(fp32: Evaluated, other: Evaluated) -> list[float]:
    """Return the SQNR of each output of one graph in another arithmetic, in dB."""
    pairs = [(value, other.raw[name]) for name, value in fp32.raw.items()]
    noise = [accuracy.sqnr_db(*pair) for pair in pairs if same_sizes(*pair)]
    return [np.inf if value is None else value for value in noise] or [np.inf]


def _graph(flow: Flow, artefact: ExportedArtefact) -> GraphFile:
    graph = flow.graphs.get(artefact.name)
    return graph if graph is not None and graph.path == artefact.path else GraphFile.read(artefact.path)


def _lost(flow: Flow, spec: ModelSpec, artefact: ExportedArtefact) -> float:
    """Return the points of the task's metric that a form loses against FP32 on the worse split."""
    task = find(spec.task)
    return max(
        task.lost(*(_metric(flow, spec, one, flow.data[split]) for one in (flow.onnx("fp32"), artefact)))
        for split in flow.splits
    )


def _metric(flow: Flow, spec: ModelSpec, artefact: ExportedArtefact, data: Dataset) -> float:
    """Return the value of the task's metric on a split."""
    key, task = answers_key(artefact, data), find(spec.task)
    if key not in flow.scores:
        (answers,) = answers_on(flow, [artefact], data, spec)
        score = task.score(answers.reduced, data.truths_for(spec, task.truth), spec.context())
        flow.scores[key] = score.values[task.metric]
    return flow.scores[key]


def not_judged(flow: Flow, spec: ModelSpec) -> str:
    """Return why truths cannot be used, or an empty string."""
    task, data = find(spec.task), flow.data["test"]
    if not task.truth:
        return f"task {spec.task}: there is no top-1"
    if flow.settings.weights == "random":
        return f"random weights: {task.title} means nothing"
    if not data.knows(task.truth):
        return f"the data have no {KINDS[task.truth][0]}"
    try:
        data.truths_for(spec, task.truth)
    except UsageError:
        return f"the data has {len(data.classes)} classes, the network {spec.num_classes}"
    return ""


def _score(flow: Flow, runnable: list[ExportedArtefact], spec: ModelSpec, split: str, judged: bool) -> None:
    """Evaluate every artefact on the same images; without usable truths a few images are enough for the agreement."""
    few = UNJUDGED_IMAGES if flow.settings.weights == "random" else LIKENESS_IMAGES
    data = flow.data[split] if judged else flow.data[split].head(few)
    answers, task, name = answers_on(flow, runnable, data, spec), find(spec.task), spec.output_names[0]
    reference = answers[0]
    for artefact, answer in zip(runnable, answers, strict=True):
        values: dict[str, Any] = {"images": len(data)}
        if judged:
            values[result_key(task)] = task.scale * _metric(flow, spec, artefact, data)
        if artefact is not runnable[0]:
            if (share := task.agreement(answer.reduced, reference.reduced, spec.context())) is not None:
                values["agreement"] = 100 * share
            if same_sizes(reference.raw[name], answer.raw[name]):  # else as many rows as something found
                values["sqnr_db"] = accuracy.sqnr_db(reference.raw[name], answer.raw[name])
        artefact.results[split] = values


def _accuracy_check(
    flow: Flow, spec: ModelSpec, artefact: ExportedArtefact, fp32: ExportedArtefact, why_not: str
) -> StageCheck:
    name, task = f"accuracy {artefact.name}", find(spec.task)
    agreement = ", ".join(_likeness(split, artefact.results[split]) for split in flow.splits)
    if why_not and flow.settings.weights == "random":
        return StageCheck(name, None, f"{why_not}; {agreement}")
    if why_not:
        likeness = kept(flow, spec, artefact)
        limits = f"(at least {flow.settings.min_agreement:g} % and {flow.settings.min_sqnr:g} dB on the worse split)"
        return StageCheck(
            name,
            likeness.enough,
            f"{why_not}, so similarity decides: {likeness} {limits}; {agreement}{_tried(artefact)}",
        )
    key, max_drop = result_key(task), flow.settings.most_lost(task)
    changes = {split: artefact.results[split][key] - fp32.results[split][key] for split in flow.splits}
    sign = -1 if task.higher_is_better else 1
    worst = max(sign * change for change in changes.values())
    text = ", ".join(f"{split} {round(change, 2) + 0.0:+.2f}" for split, change in changes.items())
    return StageCheck(
        name, worst <= max_drop + 1e-9,
        f"{task.title} against FP32: {text} {task.points} (allowed {'-' if sign < 0 else '+'}{max_drop}); "
        f"{agreement}{_tried(artefact)}",
    )  # fmt: skip


def _tried(artefact: ExportedArtefact) -> str:
    """Describe how many layers stay in float, and the loss with none in float."""
    first, *others = artefact.results.get("tried") or [None]
    if not others:
        return ""
    if not others[-1]["enough"]:
        how = " (estimated without the walk layer by layer)" * others[-1]["estimate"]
        return f"; up to {len(others[-1]['floats'])} layers in float did not help{how}"
    return f"; {len(others[-1]['floats'])} layers stay in float: with all layers in INT8 {first['said']}"


def _likeness(split: str, results: dict[str, Any]) -> str:
    """Describe the similarity to FP32 on a split: the share of equal classes, or else the SQNR."""
    if "agreement" in results:
        return f"{split} agreement {results['agreement']:.2f} %"
    if "sqnr_db" not in results:
        return f"{split}: the first output has another size, and is not compared"
    return f"{split} equal to FP32" if results["sqnr_db"] is None else f"{split} SQNR {results['sqnr_db']:.1f} dB"


def _shape(feeds: Mapping[str, NDArray[Any]]) -> str:
    """Return the sizes of inputs as `common.sizes.parse_sizes` reads them."""
    return ",".join(f"{name}={'x'.join(map(str, array.shape))}" for name, array in feeds.items())


def _time(runnable: list[ExportedArtefact], threads: int, shape: str) -> None:
    subjects = [BenchTarget(str(one.path), "", one.backend, threads, shape=shape) for one in runnable]
    timings = interleave.collect_samples(subjects, PLAN)
    for artefact, timing in zip(runnable, timings, strict=True):
        flat = [value for group in timing.samples for value in group]
        if timing.failure or not flat:
            artefact.results["latency_missing"] = timing.failure or "not measured"
            continue
        artefact.results["p50_s"] = stats.percentile(flat, 50)
        artefact.results["p99_s"] = stats.percentile(flat, 99)
        artefact.results["samples"] = len(flat)
        if artefact is not runnable[0] and "samples" in runnable[0].results:
            ratio = stats.ratio(timing.samples, timings[0].samples)
            seconds = runnable[0].results["p50_s"], artefact.results["p50_s"]
            speed = Speed(ratio.estimate, ratio.low, ratio.high, artefact.backend, *seconds)
            artefact.results["speed"] = speed.to_dict()


def _race(fp32: ExportedArtefact, artefact: ExportedArtefact, image: NDArray[Any]) -> None:
    """Time a form for another backend than ONNX Runtime in that backend, in turns with FP32 in the same backend."""
    speed, why = race(fp32.path, artefact.path, artefact.target, image)
    if speed is None:
        artefact.results["latency_missing"] = why
    else:
        artefact.results["speed"] = speed.to_dict()


def _speed_check(artefact: ExportedArtefact) -> StageCheck | None:
    """Report the speed of INT8 relative to FP32 if this machine is of the target's type; slower is not a failure."""
    if artefact.precision != "int8" or targets.row(artefact.target).engine:
        return None
    name = f"speed {artefact.name}"
    if not targets.is_here(artefact.target):
        return StageCheck(name, None, f"{artefact.target} is not this kind of machine")
    if "speed" not in artefact.results:
        return StageCheck(name, None, artefact.results.get("latency_missing", "FP32 was not measured"))
    speed = artefact.results["speed"]
    where = "" if speed["backend"] == "ort" else f"{speed['backend']}: "
    return StageCheck(name, True, where + speed["said"])
