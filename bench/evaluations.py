"""What the artefacts of a bundle answer on a data set, beside the truths and what FP32 answers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..runtime import datasets
from ..runtime.bundle.bundle import Bundle, read_bundle
from ..runtime.bundle.manifest import Artefact
from ..runtime.selection.candidates import open_artefact
from ..runtime.tasks import find
from .measure.evaluation import AnswerCollector, Evaluated

BATCH = 64
KEPT_BYTES = 1 << 30  # of preprocessed images, kept for the next form
LIKENESS_IMAGES = 256  # where no truths judge: 1 % of the answers is then two or three images


def evaluate(
    bundle: Bundle, artefact: Artefact, backend: str, source: str, split: str, labelled: bool = True
) -> tuple[Evaluated, Any, Evaluated | None]:
    """Return the answers, the truths of N images or None, and the answers of the FP32 artefact unless this is it."""
    truths = None
    if labelled:
        truths = _data(source, split).truths_for(bundle.spec, find(bundle.spec.task).truth)
    first = next((item for item in bundle.artefacts if item.precision == "fp32" and item.role == "onnx"), None)
    reference = None
    if first is not None and first.name != artefact.name:
        reference = _answers(bundle.source, first.name, "ort", source, split, labelled)
    return _answers(bundle.source, artefact.name, backend, source, split, labelled), truths, reference


@functools.lru_cache(maxsize=4)
def _data(source: str, split: str) -> datasets.Dataset:
    return datasets.load(source, split)


@functools.lru_cache(maxsize=4)
def _kept_batches(path: Path, source: str, split: str, labelled: bool) -> list[Any]:
    """Return the network's inputs, a batch at a time; without truths LIKENESS_IMAGES are enough."""
    return list(_batches(path, source, split, labelled))


def _batches(path: Path, source: str, split: str, labelled: bool) -> Iterator[Any]:
    data = _data(source, split) if labelled else _data(source, split).head(LIKENESS_IMAGES)
    return data.batches(read_bundle(path).spec, BATCH)


@functools.lru_cache(maxsize=8)
def _answers(path: Path, name: str, backend: str, source: str, split: str, labelled: bool) -> Evaluated:
    bundle = read_bundle(path)
    artefact = next(item for item in bundle.artefacts if item.name == name)
    count = len(_data(source, split)) if labelled else LIKENESS_IMAGES
    sample = sum(math.prod(one.shape) for one in bundle.spec.inputs)
    batches = _kept_batches if 4 * count * sample <= KEPT_BYTES else _batches  # inputs of millions are made again
    with open_artefact(bundle, artefact, backend) as session:
        collector = AnswerCollector(bundle.spec, [session])
        collector.run(batches(path, source, split, labelled))
    return collector.results()[0]
