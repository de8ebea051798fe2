"""Benchmark of bundles or files: lists the subjects, times them interleaved, then computes every metric."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..runtime import backends, datasets
from ..runtime.bundle.bundle import Bundle, read_bundle
from ..runtime.bundle.manifest import Artefact
from ..runtime.common.files import sha256
from ..runtime.common.names import split_words
from ..runtime.common.plugins import load_plugin, plugin_names
from ..runtime.datasets.array_files import is_array_source
from ..runtime.datasets.truths import KINDS
from ..runtime.engines.sidecar import Sidecar, read_sidecar
from ..runtime.errors import EdgesmithError, NotAvailable, UsageError
from ..runtime.pipeline import FILE as PIPELINE
from ..runtime.pipeline import is_pipeline, sample_of
from ..runtime.selection.candidates import backends_for
from ..runtime.spec import ModelSpec
from ..runtime.tasks import CLASS, find
from . import metrics
from .evaluations import evaluate
from .measure import environment, interleave
from .measure import reference as reference_workload
from .measure.context import Evaluation, MetricContext
from .measure.workload import FILES, BenchTarget
from .result import Reading, Result, Run, Subject

SPLITS = ("test", "hard")
REFERENCE = BenchTarget(str(reference_workload.__file__))


def bench(
    *paths: str | Path, precision: str = "", metrics: str = "", threads: int = 1, batch: int = 1, shape: str = "",
    processes: int = 3, seconds: float = 1.0, data: str | None = None,
) -> Run:  # fmt: skip
    """Measure bundles, ONNX files, engines or Python files as `edgesmith bench` does, without writing files.

    Args:
        paths: Bundles or files to measure, interleaved.
        precision: Only these forms, comma-separated: "fp32,int8-ort-x86"; "" for all.
        metrics: Only these metrics, comma-separated: "latency,memory"; "" for the usual ones.
        threads: Threads of a CPU backend; with 0 the backend chooses.
        batch: Images per call, if the batch axis is dynamic.
        shape: Shape of inputs with dynamic axes: "1x3x320x320".
        processes: Fresh processes for each subject.
        seconds: Seconds of measuring in each process.
        data: As `datasets.load` takes it: "digits", a folder, a `.npz` file; labels are needed for top-1 only.

    Raises:
        UsageError: A path does not exist, or a word or number is not valid.
        NotAvailable: No artefact of a bundle runs here.
    """
    if not paths or threads < 0 or batch < 1 or processes < 1 or seconds <= 0:
        got = f"{len(paths)} paths, {threads} threads, batch {batch}, {processes} processes, {seconds:g} s"
        raise UsageError(
            "nothing can be measured with these settings",
            got=got,
            expected="a path, and numbers above 0 (threads: 0 too)",
        )
    forms, only = map(split_words, (precision, metrics))
    plan = interleave.SamplingPlan(processes=processes, least_s=seconds, most_s=max(8.0, 4 * seconds))
    subjects = [
        context
        for path in paths
        for context in contexts(path, precisions=forms, threads=threads, batch=batch, data=data, shape=shape)
    ]
    return run_suite(subjects, plan, only=only, reference=True)


def run_suite(
    contexts: Sequence[MetricContext], plan: interleave.SamplingPlan, *, only: Sequence[str] = (), seed: int = 0,
    progress: Callable[[int], None] | None = None, reference: bool = False,
) -> Run:  # fmt: skip
    """Time all subjects interleaved, then compute the metrics.

    Args:
        contexts: The subjects.
        plan: Amount of sampling.
        only: Names of the metrics; empty for all except those on request (`ON_REQUEST`).
        seed: Seed of the random order.
        progress: Called with 1 after each process of each subject, and each metric of each subject.
        reference: Also time the reference workload, so that the run can be compared with a later one.
    """
    chosen = {name: load_plugin(metrics, name, "metric").measure for name in only or usual_metrics()}
    targets = [*(context.target for context in contexts), *([REFERENCE] if reference else [])]
    timings = interleave.collect_samples(targets, plan, seed=seed, progress=progress)
    beside = tuple(map(tuple, timings.pop().samples)) if reference else ()
    results = []
    for context, timing in zip(contexts, timings, strict=True):
        timed = replace(context, timings=timing, timeout_s=plan.timeout_s)
        readings: dict[str, Reading] = {}
        for name, ask in chosen.items():
            readings[name] = _asked(name, ask, timed)
            if progress:
                progress(1)
        results.append(Result(context.subject, readings))
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return Run(created, environment.command_line(), environment.here(), tuple(results), beside)


def _asked(name: str, ask: Callable[[MetricContext], Reading], context: MetricContext) -> Reading:
    """Compute one metric; an error becomes the reason why it is missing."""
    try:
        return ask(context)
    except EdgesmithError as error:
        return Reading(name, missing=str(error))


def usual_metrics() -> list[str]:
    """List the metrics that are measured by default."""
    return [
        name for name in plugin_names(metrics) if not getattr(load_plugin(metrics, name, "metric"), "ON_REQUEST", False)
    ]


def contexts(
    path: str | Path, *, precisions: Sequence[str] = (), threads: int = 1, batch: int = 1, data: str | None = None,
    shape: str = "",
) -> list[MetricContext]:  # fmt: skip
    """List the subjects in a bundle, an ONNX file, an engine with its sidecar, a pipeline, or a Python file.

    Args:
        path: The bundle or file.
        precisions: Only these forms ("fp32", "int8", "int8-ort-x86"); empty for all.
        threads: Threads of CPU backends; with 0 the backend chooses.
        batch: Batch size of artefacts with a dynamic batch axis.
        shape: Shape of inputs with dynamic axes, as `runtime.common.sizes.parse_sizes` reads it.
        data: As `datasets.load` takes it; None uses the digits for networks trained on them. Without labels the
            accuracy is the likeness to FP32.

    Raises:
        UsageError: The path does not exist, or no artefact has this precision.
        DataError: The data are not what the network takes.
        ModelError: An engine has no sidecar.
        NotAvailable: No artefact of the bundle, or the file, runs here.
    """
    path = Path(path)
    if is_pipeline(path):
        path = path / PIPELINE
    if path.suffix in FILES:
        return [_file(path, threads, batch, shape)]
    bundle, subjects, why = read_bundle(path), [], []
    source = data or (bundle.spec.weights if bundle.spec.weights in datasets.EMBEDDED else "")
    unlabelled = _unjudged(bundle.spec, source, fits=data is not None) if source else ""
    for artefact in bundle.artefacts:
        form = _subject(bundle, artefact, "", threads, batch).form
        if precisions and artefact.precision not in precisions and form not in precisions:
            continue
        for backend in backends_for(artefact):
            usable, reason = load_plugin(backends, backend, "backend").available()
            if usable:
                subjects.append(_context(bundle, artefact, backend, threads, batch, source, shape, unlabelled))
            else:
                why.append(f"{artefact.name}: {reason}")
    if not subjects and not why:
        known = ", ".join(sorted({item.precision for item in bundle.artefacts}))
        raise UsageError(f"{path} has no artefact of this precision", got=", ".join(precisions), expected=known)
    if not subjects:
        raise NotAvailable(f"no artefact in {path} runs here", got=" | ".join(why), do="see `edgesmith doctor`")
    return subjects


def _file(path: Path, threads: int, batch: int, shape: str = "") -> MetricContext:
    if not path.is_file() or (path.suffix == ".json" and path.name != PIPELINE):
        got = f"a file of JSON that is no {PIPELINE}" if path.is_file() else "no such file"
        raise UsageError(f"cannot measure {path}", got=got, do="check the path")
    backend, form = FILES[path.suffix], ("file", "")
    if backend == "trt":
        facts = read_sidecar(path)
        form, shape = (facts.precision, f"sm{facts.sm.replace('.', '')}"), shape or _usual_shapes(facts, batch)
    if backend == "pipeline":
        sample_of(path.parent)
        why = "a pipeline has no metric of its own; measure each bundle"
        subject = Subject(
            path.resolve().parent.name, path.name, "pipeline", "", "bundles", threads, 1, sha256=sha256(path)
        )
        return MetricContext(subject, BenchTarget(str(path), "", backend, threads), str(path.parent), no_evaluation=why)
    if backend != "python":
        usable, reason = load_plugin(backends, backend, "backend").available()
        if not usable:
            raise NotAvailable(f"{path} cannot be measured here", got=reason)
    subject = Subject(path.stem, path.name, *form, backend, threads, batch, sha256=sha256(path))
    why = "a file without a bundle does not describe its images; measure a bundle"
    return MetricContext(
        subject, BenchTarget(str(path), "", backend, threads, batch, shape), str(path), no_evaluation=why
    )


def _usual_shapes(facts: Sidecar, batch: int) -> str:
    """Return the usual shapes of an engine's profiles as `parse_sizes` reads them, with this batch where it is free."""
    shapes = {
        name: [batch if least[0] != most[0] else usual[0], *usual[1:]]
        for name, (least, usual, most) in facts.profiles.items() if usual
    }  # fmt: skip
    return ",".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _subject(bundle: Bundle, artefact: Artefact, backend: str, threads: int, batch: int) -> Subject:
    spec = bundle.spec
    return Subject(
        model=spec.name, artifact=artefact.path, precision=artefact.precision, target=artefact.target,
        backend=backend, threads=threads, batch=batch, input_shape=tuple(spec.input_shape),
        sha256=bundle.manifest.files[artefact.path].sha256, params=spec.published.params, macs=spec.published.macs,
        published_top1_percent=spec.published.top1, weights=spec.weights, variant=_variant(bundle, artefact),
        published_dataset=spec.published.dataset,
    )  # fmt: skip


def _variant(bundle: Bundle, artefact: Artefact) -> str:
    """Return the variant of an artefact: the part of its name after precision and target."""
    kind = artefact.precision, artefact.target
    if sum((one.precision, one.target) == kind for one in bundle.artefacts) == 1:
        return ""
    rest = artefact.name.removeprefix(f"{bundle.spec.name}-").removeprefix("-".join(kind).removesuffix("-generic"))
    return rest.strip("-")


def _context(
    bundle: Bundle, artefact: Artefact, backend: str, threads: int, batch: int, source: str, shape: str, unlabelled: str
) -> MetricContext:  # fmt: skip
    subject = _subject(bundle, artefact, backend, threads, batch)
    splits = evaluated_splits(source) if source else ()
    evaluations: dict[str, Evaluation] = {
        split: functools.partial(evaluate, bundle, artefact, backend, source, split, not unlabelled) for split in splits
    }
    why = f"weights {bundle.spec.weights!r}, and no images were given (--data)"
    target = BenchTarget(str(bundle.source), artefact.name, backend, threads, batch, shape)
    return MetricContext(
        subject, target, str(bundle.folder / artefact.path), evaluations=evaluations, no_evaluation=why,
        unlabelled=unlabelled, task=bundle.spec.task, decoding=bundle.spec.context(),
    )  # fmt: skip


def evaluated_splits(source: str) -> tuple[str, ...]:
    """Return the splits of data that networks are evaluated on: arrays have no hard split."""
    return SPLITS[:1] if is_array_source(source) else SPLITS


def _unjudged(spec: ModelSpec, source: str, fits: bool) -> str:
    samples = datasets.load(source, "test")
    if fits:
        samples.require_fit(spec)
    return unjudged(spec, samples) or ("with random weights it means nothing" if spec.weights == "random" else "")


def unjudged(spec: ModelSpec, data: datasets.Dataset) -> str:
    """Return why the truths of these data cannot judge a network's answers; "" where they can."""
    task = find(spec.task)
    if not data.knows(task.truth or CLASS):
        return f"the data have no {KINDS[task.truth or CLASS][0]}"
    if not task.truth:
        return f"task {spec.task} has no top-1"
    if task.truth == CLASS:
        return ""  # other classes are an error, which `truths_for` raises
    try:
        data.truths_for(spec, task.truth)
    except UsageError as error:
        return str(error)
    return ""
