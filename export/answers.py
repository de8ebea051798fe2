"""What the files of a run answer on the images of a split, each computed once; can it be decoded at all?"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
from typing import Any

from ..bench.measure.evaluation import AnswerCollector, Evaluated
from ..runtime import batch_axes
from ..runtime.backends import ort
from ..runtime.backends._base import Session
from ..runtime.common.progress import progress
from ..runtime.datasets import Dataset
from ..runtime.errors import DataError, UsageError
from ..runtime.selection.candidates import open_file
from ..runtime.spec import ModelSpec
from ..runtime.tasks import find
from .settings import ExportedArtefact, Flow


def answers_key(artefact: ExportedArtefact, data: Dataset) -> tuple[str, int, str, str]:
    """Return what identifies the answers of a file on these images."""
    return str(artefact.path), artefact.path.stat().st_mtime_ns, artefact.backend, f"{data.split} {len(data)}"


def answers_on(flow: Flow, runnable: list[ExportedArtefact], data: Dataset, spec: ModelSpec) -> list[Evaluated]:
    """Return what each artefact answers; cached results of a file are not computed again."""
    keys = [answers_key(one, data) for one in runnable]
    missing = [artefact for artefact, key in zip(runnable, keys, strict=True) if key not in flow.answers]
    if missing:
        answers = iter(_computed(missing, data, spec))
        flow.answers |= {key: next(answers) for key in keys if key not in flow.answers}
    return [flow.answers[key] for key in keys]


def _computed(runnable: list[ExportedArtefact], data: Dataset, spec: ModelSpec) -> list[Evaluated]:
    """Compute answers.

    One thread per core, each with its own image: for small networks and images, sharing one image between cores takes
    longer than computing it. At most two batches per core are in memory.
    """
    cores = os.cpu_count() or 1
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress(f"{data.split} images", len(data)))
        sessions: list[Session] = [
            stack.enter_context(open_file(artefact.path, artefact.backend, threads=1, **artefact.options))
            for artefact in runnable
        ]
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(cores))
        collector, batches = AnswerCollector(spec, sessions), data.batches(spec)
        while chunk := list(itertools.islice(batches, 2 * cores)):
            collector.run(chunk, pool, advance)
        return collector.results()


def require_decodable(artefact: ExportedArtefact, spec: ModelSpec, batch: Any) -> None:
    """Refuse outputs that the task's decoder cannot read, where it needs settings for that.

    Raises:
        UsageError: They do not have its shapes.
    """
    if not find(spec.task).needs_decoder:
        return
    with ort.open(artefact.path, **artefact.options) as session:
        (outputs, *_) = batch_axes.answers(session, spec.feeds(batch), batch_axes.axes(session, spec))
    try:
        find(spec.task).decode({name: outputs[name] for name in spec.output_names}, spec.context())
    except DataError as error:
        do = "correct [decoder] in the file of --spec (`edgesmith spec -o` writes one)"
        raise UsageError(error.what, got=error.got, expected=error.expected, do=do) from error
