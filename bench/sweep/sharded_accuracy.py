"""Accuracy on data of any size, in shards; each shard is a cell of a sweep.

A shard is every n-th image. It is processed 64 images at a time, so that memory does not grow with the folder, and
returns counts, whose sum over the shards of one artefact is one reading. An INT8 file may give other outputs on another
type of processor, so there is one reading per type of machine. Without labels the counts are of the likeness to FP32
alone: the agreement and the SQNR of the first output.
"""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime import batch_axes, datasets
from ...runtime.backends._base import Session
from ...runtime.bundle.bundle import Bundle, read_bundle
from ...runtime.errors import EdgesmithError, RunError, UsageError
from ...runtime.selection.candidates import open_artefact
from ...runtime.spec import ModelSpec
from ...runtime.tasks import CLASS, DecodeContext, Task, find
from ...runtime.tasks.classify import TASK as CLASSIFY
from .. import stats, suite
from ..measure import environment
from ..measure.workload import FILES
from ..metrics import accuracy
from ..result import Reading, Result, Run
from .sweep import Store, SweepCell, content_digest

IMAGES = 64
SUMS = ("images", "right1", "right5", "agree", "signal", "noise")
Tally = dict[str, float]


def shard_cells(
    paths: Iterable[str], data: str, split: str, shards: int, precisions: Sequence[str] = (), settings: str = ""
) -> list[SweepCell]:
    """List the cells: every shard of the images, with its digest, for every form of every bundle.

    Raises:
        EdgesmithError: A path is not a bundle with an artefact that runs here.
        DataError: The images cannot be read.
    """
    paths, cells = list(paths), []
    for path in paths:
        if Path(path).suffix in FILES:
            raise UsageError(
                f"{path} has no accuracy",
                got="a file without a bundle does not describe its images",
                do="give a bundle",
            )
    images = datasets.load(data, split)
    parts = [images.pick(shard_indices(len(images), shard, shards)).digest for shard in range(shards)]
    for path in paths:
        digest = content_digest(path)
        for context, shard in itertools.product(suite.contexts(path, precisions=precisions, data=data), range(shards)):
            one = context.subject
            cell = SweepCell(str(path), one.form, one.backend, one.threads, 1, digest, data, split, shard, shards)
            cells.append(replace(cell, settings=settings, data_sha256=parts[shard]))
    return cells


def shard_indices(count: int, shard: int, shards: int) -> list[int]:
    """Return which of `count` images are in a shard."""
    return list(range(shard, count, shards))


def require_images(cell: SweepCell, part: datasets.Dataset) -> None:
    """Compare the images and labels of a shard, which may be on another machine, with those of the cell.

    Raises:
        EdgesmithError: They are others.
    """
    if part.digest != cell.data_sha256:
        raise EdgesmithError(
            f"the images of {cell.data} are not those of this sweep", got=f"digest {part.digest[:12]}…",
            expected=f"{cell.data_sha256[:12]}…", do="copy them to the worker, or start the sweep again",
        )  # fmt: skip


def measure_shard(cell: SweepCell) -> dict[str, Any]:
    """Evaluate one shard and return a run as plain JSON values; the first row of its reading is the counts.

    Raises:
        EdgesmithError: The bundle or an image cannot be read or is not that of the cell, or the classes do not match.
    """
    cell.check()
    every = suite.contexts(cell.path, threads=cell.threads)
    chosen = [one for one in every if (one.subject.form, one.subject.backend) == (cell.form, cell.backend)]
    if not chosen:
        raise EdgesmithError(f"{cell.path} no longer has {cell.form} for {cell.backend}", do="start a new sweep")
    bundle, artefact = read_bundle(cell.path), chosen[0].target.artefact
    unlabelled, task = suite.unjudged(bundle.spec, datasets.load(cell.data, cell.split)), find(bundle.spec.task)
    if not unlabelled and task.truth != CLASS:
        unlabelled = f"{task.title} is not a sum over shards (`edgesmith bench --data` measures it)"
    tally, classes = _tally(bundle, artefact, cell, not unlabelled)
    reading = reading_of(tally, classes, cell.split, accuracy.left_out(unlabelled, task))
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    result = Result(chosen[0].subject, {"accuracy": reading})
    return Run(created, environment.command_line(), environment.here(), (result,)).to_dict()


def reading_of(tally: Tally, classes: dict[int, list[int]], split: str, notes: tuple[str, ...] = ()) -> Reading:
    """Return the accuracy from counts; `classes` has the total and correct images of each class."""
    count, shares = tally["images"], dict[str, float]()
    if not count:
        return Reading("accuracy", missing="the shard has no images: fewer images than shards")
    if tally["right1"] >= 0:
        shares["top1_ratio"] = tally["right1"] / count
    if tally["right5"] >= 0:
        shares["top5_ratio"] = tally["right5"] / count
    intervals = {name: stats.wilson(round(value * count), int(count)) for name, value in shares.items()}
    values = {**shares, "images_count": count}
    if tally["agree"] >= 0:
        values["agreement_ratio"] = tally["agree"] / count
    if tally["noise"] and tally["signal"]:
        values["sqnr_db"] = 10 * math.log10(tally["signal"] / tally["noise"])
    by_class: list[dict[str, Any]] = [
        {"split": split, "class": one, "images_count": images, "top1_ratio": right / images}
        for one, (images, right) in sorted(classes.items())
    ]
    if by_class:
        values["worst_class_top1_ratio"] = min(row["top1_ratio"] for row in by_class)
    return Reading("accuracy", values, intervals, notes=notes, rows=({"counts": tally}, *by_class))


def gather_shards(cells: Sequence[SweepCell], store: Store) -> list[Run]:
    """Sum the finished shards: one run per type of machine, with a note if shards are missing."""
    groups: dict[tuple[str, str], list[tuple[SweepCell, Run]]] = {}
    for cell in dict.fromkeys(cells):
        if store.has(cell):
            run = store.get(cell)
            key = run.environment.machine(), f"{cell.path} {run.results[0].subject.key}"
            groups.setdefault(key, []).append((cell, run))
    machines: dict[str, Run] = {}
    for (machine, _), parts in groups.items():
        (cell, first), runs = parts[0], [run for _, run in parts]
        whole = replace(first.results[0], readings={"accuracy": merge_shards(runs, cell.split, cell.shards)})
        seen = machines.setdefault(machine, replace(first, results=()))
        machines[machine] = replace(seen, results=(*seen.results, whole))
    return list(machines.values())


def merge_shards(runs: Sequence[Run], split: str, shards: int) -> Reading:
    """Return the combined accuracy of several shards."""
    readings = [run.results[0].readings["accuracy"] for run in runs]
    tallies = [reading.rows[0]["counts"] for reading in readings if not reading.missing]
    if not tallies:
        return readings[0]
    tally = {name: float(sum(one[name] for one in tallies)) for name in SUMS}
    classes: dict[int, list[int]] = {}
    for row in itertools.chain.from_iterable(reading.rows[1:] for reading in readings):
        one = classes.setdefault(int(row["class"]), [0, 0])
        one[0] += row["images_count"]
        one[1] += round(row["images_count"] * row["top1_ratio"])
    missing = shards - len(runs)
    notes = (f"{missing} of {shards} shards are missing; do: run the same command again",) if missing else ()
    return reading_of(tally, classes, split, (*readings[0].notes, *notes))


def _tally(bundle: Bundle, artefact: str, cell: SweepCell, labelled: bool) -> tuple[Tally, dict[int, list[int]]]:
    data = datasets.load(cell.data, cell.split)
    chosen = shard_indices(len(data), cell.shard, cell.shards)
    part = data.pick(chosen)
    require_images(cell, part)
    labels = data.truths_for(bundle.spec, CLASS)[chosen] if labelled else None
    own = next(item for item in bundle.artefacts if item.name == artefact)
    first = next((item for item in bundle.artefacts if item.precision == "fp32" and item.role == "onnx"), own)
    tally: Tally = dict.fromkeys(SUMS, 0.0)
    classes: dict[int, list[int]] = {}
    with open_artefact(bundle, own, cell.backend) as session, open_artefact(bundle, first, "ort") as reference:
        other = None if first is own else reference
        for logits, exact, truth, count in _batches(part, labels, bundle.spec, session, other):
            if truth is None:
                _count_unlabelled(tally, logits, exact, find(bundle.spec.task), count)
            else:
                _count(tally, classes, logits, exact, truth)
    return tally, classes


def _batches(
    part: datasets.Dataset, labels: Any, spec: ModelSpec, session: Session, reference: Session | None
) -> Iterator[tuple[Any, Any, Any, int]]:
    """Yield the first output, the reference's or None, the labels (N,) or None, and N, a batch at a time."""
    compute = _first_output if labels is None else outputs
    for start, batch in zip(itertools.count(0, IMAGES), part.batches(spec, IMAGES)):
        exact = None if reference is None else compute(reference, spec, batch)
        truth = None if labels is None else labels[start : start + IMAGES]
        yield compute(session, spec, batch), exact, truth, min(IMAGES, len(part) - start)


def _first_output(session: Session, spec: ModelSpec, batch: Any) -> Any:
    """Return the first output of samples, whatever it holds."""
    of = batch_axes.axes(session, spec)
    return batch_axes.run(session, spec.feeds(batch), of)[spec.output_names[0]].astype(np.float32)


def outputs(session: Session, spec: ModelSpec, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the logits (N, classes) of images (N, C, H, W); a fixed batch is padded with the last image.

    Raises:
        RunError: The output is not one finite row of logits per image.
    """
    name = spec.output_names[0]
    logits = batch_axes.run(session, spec.feeds(images), {tensor.name: 0 for tensor in session.outputs}, finite=True)[
        name
    ]
    if len(logits) != len(images) or not np.isfinite(logits).all():
        expected = f"finite numbers of shape ({len(images)}, classes)"
        raise RunError(f"output {name!r} has no class scores", got=f"shape {logits.shape}", expected=expected)
    return logits.astype(np.float32)


def _count(tally: Tally, classes: dict[int, list[int]], logits: Any, exact: Any, truth: NDArray[np.int64]) -> None:
    """Add one batch; -1 marks a missing top-5 or agreement count."""
    score, count = CLASSIFY.score({"": logits}, truth, DecodeContext()), len(truth)
    values = score.values
    tally["images"] += count
    tally["right1"] += round(values["top1_ratio"] * count)
    tally["right5"] += round(values["top5_ratio"] * count) if "top5_ratio" in values else -count
    if exact is None:
        tally["agree"] -= count
    else:
        tally["agree"] += round(count * (CLASSIFY.agreement({"": logits}, {"": exact}, DecodeContext()) or 0.0))
        _add_noise(tally, logits, exact)
    for row in score.by_class:
        one = classes.setdefault(row["class"], [0, 0])
        one[0] += row["images_count"]
        one[1] += round(row["images_count"] * row["top1_ratio"])


def _count_unlabelled(tally: Tally, output: Any, exact: Any, task: Task, count: int) -> None:
    """Add one batch of which only the likeness to FP32 is known; -1 marks what is not counted."""
    first_decides = exact is not None and task.truth in ("", CLASS)
    share = task.agreement({"": output}, {"": exact}, DecodeContext()) if first_decides else None
    tally["images"] += count
    tally["right1"] -= count
    tally["right5"] -= count
    tally["agree"] += -count if share is None else round(count * share)
    if exact is not None:
        _add_noise(tally, output, exact)


def _add_noise(tally: Tally, output: Any, exact: Any) -> None:
    tally["signal"] += float(np.square(exact.astype(np.float64)).sum())
    tally["noise"] += float(np.square(exact.astype(np.float64) - output).sum())
