"""What `edgesmith run` does: a model over images, arrays or a stream, into plain rows, and pictures where wanted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import datasets
from ..runtime.datasets import array_files
from ..runtime.errors import DataError
from ..runtime.images.preprocess import as_image
from ..runtime.serving.frame_sources import frames, open_writer
from ..runtime.serving.stream import Stream

if TYPE_CHECKING:
    from ..runtime.model import Model
    from ..runtime.pipeline import Pipeline

BATCH = 16  # samples of a file of arrays that are run together


def run_images(model: Model | Pipeline, images: Sequence[str], top: int, out: Path | None) -> dict[str, Any]:
    """Run a model on files and folders, one after the other.

    Raises:
        DataError: An image cannot be used.
    """
    writer = open_writer(out) if out else None
    rows = []
    try:
        for index, file in enumerate(file for image in images for file in _files(image)):
            start = time.perf_counter()
            pixels = as_image(file)
            answer = model(pixels)
            rows.append({"image": str(file), "seconds": time.perf_counter() - start, **answer.show(top)})
            if writer:
                writer.add(index, answer.draw(pixels))
    finally:
        if writer:
            writer.close()
    return {"why": model.why(), "images": rows, "counts": {"answered": len(rows), "failed": 0}}


def run_arrays(model: Model, files: Sequence[str], top: int) -> dict[str, Any]:
    """Run a model on `.npy` and `.npz` files, which hold arrays (N, ...) by input name: one row for each sample.

    Raises:
        DataError: A file cannot be read, or its arrays are not what the network takes.
    """
    rows: list[dict[str, Any]] = []
    for file in files:
        arrays = datasets.Arrays.of(Path(file).name, "test", array_files.read_arrays(Path(file)))
        names = (f"{file} {number}" if len(arrays) > 1 else file for number in range(len(arrays)))
        for batch in arrays.batches(model.spec, BATCH):
            start = time.perf_counter()
            answers = model.answers(batch)
            seconds = (time.perf_counter() - start) / len(answers)
            rows += [{"image": next(names), "seconds": seconds, **answer.show(top)} for answer in answers]
    return {"why": model.why(), "images": rows, "counts": {"answered": len(rows), "failed": 0}}


def _files(image: str) -> list[Any]:
    return list(frames(image)) if Path(image).is_dir() else [image]


def run_stream(model: Model, source: str, policy: str, top: int, out: Path | None) -> dict[str, Any]:
    """Run a model on a stream; a frame that cannot be used is a row with its error.

    Raises:
        RunError: The backend or the source failed; the frames before the failure have been drawn.
    """
    writer = open_writer(out) if out else None
    rows = []
    start = time.perf_counter()
    try:
        with Stream(model, frames(source), policy=policy) as stream:
            for frame in stream:
                name = str(frame.image) if isinstance(frame.image, (str, Path)) else f"{source} frame {frame.index}"
                if isinstance(frame.error, DataError) or frame.answer is None:
                    rows.append({"image": name, "error": str(frame.error)})
                    continue
                rows.append({"image": name, **frame.answer.show(top)})
                if writer:
                    writer.add(frame.index, frame.answer.draw(as_image(frame.image)))
    finally:
        if writer:
            writer.close()
    seconds = time.perf_counter() - start
    return {"why": model.why(), "images": rows, "counts": asdict(stream.counts), "seconds": seconds}
