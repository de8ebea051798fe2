"""What each artefact of a run is worth: accuracy and agreement on real images, latency here, side by side."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bench import interleave, stats
from .bench.metrics import accuracy
from .bench.workload import Target
from .pipeline_types import SPLITS, Artefact, Check, Flow
from .runtime.backends import ort
from .runtime.backends._base import Session
from .runtime.console import progress
from .runtime.datasets import Dataset
from .runtime.spec import ModelSpec
from .runtime.verify import replay

# One process for each artefact, half a second each: a figure for the table, not for a gate.
PLAN = interleave.Plan(processes=1, least_s=0.6, least=30, most_s=4.0, warm_up_s=1.0)

UNJUDGED_IMAGES = 64
# Tasks whose answer is the best of several classes, for the image or each pixel, so that two answers agree or do not.
CHOOSING = ("classify", "segment")


def measure(flow: Flow, spec: ModelSpec) -> None:
    """Fill `results` of every artefact and add a check for each lower precision's accuracy."""
    for made in flow.artefacts:
        made.results["bytes"] = made.bytes
    runnable = [made for made in flow.artefacts if made.backend == "ort"]
    if flow.settings.evaluate:
        why_not = _not_judged(flow, spec)
        for split in SPLITS:
            _score(flow, runnable, spec, split, judged=not why_not)
        flow.checks += [_accuracy_check(made, runnable[0], flow.settings.max_drop, why_not) for made in runnable[1:]]
    else:
        flow.checks.append(Check("accuracy", None, "not evaluated, as asked"))
    _time([made for made in runnable if not made.simulated], flow.settings.threads)


def lost(flow: Flow, spec: ModelSpec, made: Artefact) -> float:
    """Return how many points of top-1 a form loses against FP32 on the worse split; 0 where that is not judged."""
    if not flow.settings.evaluate or _not_judged(flow, spec):
        return 0.0
    drops = []
    for split in SPLITS:
        labels = flow.data[split].labels
        before, after = (
            100 * accuracy.score(logits, labels)[0]["top1_ratio"]
            for logits in _logits(flow, [flow.onnx("fp32"), made], flow.data[split], spec)
        )
        drops.append(before - after)
    return max(drops)


def _not_judged(flow: Flow, spec: ModelSpec) -> str:
    """Return why top-1 means nothing here, or an empty string."""
    if spec.task != "classify":
        return f"task {spec.task}: there is no top-1"
    if flow.settings.weights == "random":
        return "random weights: top-1 means nothing"
    classes = len(flow.data["test"].classes)
    if classes != spec.num_classes:
        return f"the data has {classes} classes, the network {spec.num_classes}"
    return ""


def _score(flow: Flow, runnable: list[Artefact], spec: ModelSpec, split: str, judged: bool) -> None:
    """Every artefact on the same images; where top-1 means nothing a few are enough for the agreement."""
    data = flow.data[split] if judged else flow.data[split].head(UNJUDGED_IMAGES)
    logits = _logits(flow, runnable, data, spec)
    reference = logits[0]
    for made, found in zip(runnable, logits, strict=True):
        values: dict[str, Any] = {"images": len(data)}
        if judged:
            values["top1"] = 100 * accuracy.score(found, data.labels)[0]["top1_ratio"]
        if made is not runnable[0]:
            if spec.task in CHOOSING:
                values["agreement"] = 100 * float((found.argmax(1) == reference.argmax(1)).mean())
            values["sqnr_db"] = accuracy.sqnr_db(reference, found)
        made.results[split] = values


def _logits(flow: Flow, runnable: list[Artefact], data: Dataset, spec: ModelSpec) -> list[NDArray[np.float32]]:
    """Return each artefact's logits, float32 (N, classes); what was computed for a file is not computed again."""
    keys = [(str(made.path), made.path.stat().st_mtime_ns, f"{data.split} {len(data)}") for made in runnable]
    missing = [made for made, key in zip(runnable, keys, strict=True) if key not in flow.logits]
    if missing:
        computed = iter(_computed(missing, data, spec))
        flow.logits |= {key: next(computed) for key in keys if key not in flow.logits}
    return [flow.logits[key] for key in keys]


def _computed(runnable: list[Artefact], data: Dataset, spec: ModelSpec) -> list[NDArray[np.float32]]:
    """Compute logits.

    One thread for each core, each with an image of its own: small networks on small images spend more time on sharing
    one image between cores than on computing it. No more batches than two for each core are in memory.
    """
    cores = os.cpu_count() or 1
    rows: list[list[NDArray[np.float32]]] = []
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress(f"{data.split} images", len(data)))
        sessions: list[Session] = [
            stack.enter_context(ort.open(made.path, threads=1, **made.options)) for made in runnable
        ]
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(cores))
        batches = data.batches(spec)
        while chunk := list(itertools.islice(batches, 2 * cores)):
            rows += pool.map(lambda batch: _answers(sessions, batch, spec), chunk)
            advance(sum(map(len, chunk)))
    return [np.concatenate(part) for part in zip(*rows, strict=True)]


def _answers(sessions: list[Session], batch: NDArray[np.float32], spec: ModelSpec) -> list[NDArray[np.float32]]:
    feeds = {spec.input_name: batch}
    return [replay(session, feeds)[spec.output_names[0]].astype(np.float32) for session in sessions]


def _accuracy_check(made: Artefact, fp32: Artefact, max_drop: float, why_not: str) -> Check:
    name = f"accuracy {made.name}"
    agreement = ", ".join(_likeness(split, made.results[split]) for split in SPLITS)
    if why_not:
        return Check(name, None, f"{why_not}; {agreement}")
    drops = {split: fp32.results[split]["top1"] - made.results[split]["top1"] for split in SPLITS}
    worst = max(drops.values())
    said = ", ".join(f"{split} {0.0 - drop:+.2f}" for split, drop in drops.items())
    return Check(
        name, worst <= max_drop + 1e-9,
        f"top-1 against FP32: {said} points (allowed -{max_drop}); {agreement}{_kept(made, max_drop)}",
    )  # fmt: skip


def _kept(made: Artefact, max_drop: float) -> str:
    """Say how many layers stay in float, and what was lost with fewer."""
    first, *others = made.results.get("tried") or [None]
    if not others:
        return ""
    if others[-1]["lost_points"] > max_drop:
        return f"; up to {len(others[-1]['floats'])} layers in float did not help"
    return f"; {len(others[-1]['floats'])} layers stay in float: with none {first['lost_points']:.2f} points are lost"


def _likeness(split: str, found: dict[str, Any]) -> str:
    """Say how near to FP32 the answers on a split are: the same choices, or else signal to noise."""
    if "agreement" in found:
        return f"{split} agreement {found['agreement']:.2f} %"
    return f"{split} equal to FP32" if found["sqnr_db"] is None else f"{split} SQNR {found['sqnr_db']:.1f} dB"


def _time(runnable: list[Artefact], threads: int) -> None:
    targets = [Target(str(made.path), threads=threads) for made in runnable]
    for made, timing in zip(runnable, interleave.collect(targets, PLAN), strict=True):
        flat = [value for group in timing.samples for value in group]
        if timing.failure or not flat:
            made.results["latency_missing"] = timing.failure or "not measured"
            continue
        made.results["p50_s"] = stats.percentile(flat, 50)
        made.results["p99_s"] = stats.percentile(flat, 99)
        made.results["samples"] = len(flat)
