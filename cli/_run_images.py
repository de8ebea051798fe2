"""What `edgesmith run` does: a model over images, arrays or a stream, into plain rows, and pictures where wanted."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime import datasets
from ..runtime.datasets import array_files
from ..runtime.errors import DataError, UsageError
from ..runtime.images.preprocess import as_image
from ..runtime.pipeline import load_pipeline
from ..runtime.serving.frame_sources import frames, open_writer
from ..runtime.serving.stream import Stream

if TYPE_CHECKING:
    from ..runtime.model import Model
    from ..runtime.pipeline import Pipeline
    from ..runtime.spec import ModelSpec

BATCH = 16  # samples of a file of arrays that are run together


def run_images(model: Model | Pipeline, images: Sequence[str], top: int, out: Path | None) -> dict[str, Any]:
    """Run a model on files and folders, one after the other.

    Raises:
        DataError: An image cannot be used.
    """
    writer = open_writer(out) if out else None
    rows: list[dict[str, Any]] = []
    try:
        for index, file in enumerate(file for image in images for file in _files(image)):
            if not rows:
                model(as_image(file))  # the first call takes longer: libraries are loaded, threads are started
            start = time.perf_counter()
            pixels = as_image(file)
            answer = model(pixels)
            row = {"image": str(file), "seconds": time.perf_counter() - start, "size": list(pixels.shape[:2])}
            rows.append(row | answer.show(top))
            if writer:
                rows[-1]["picture"] = str(writer.add(index, answer.draw(pixels), Path(file).stem))
    finally:
        if writer:
            writer.close()
    return _value(model, rows, {"answered": len(rows), "failed": 0})


def run_pipeline(
    folder: Path, chosen: tuple[str, str, int | None], images: Sequence[str], others: Sequence[str],
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], ModelSpec]:  # fmt: skip
    """Run a pipeline of bundles on files and folders; return the rows, and the first bundle's spec.

    Args:
        folder: The pipeline's folder.
        chosen: Device, precision and threads, for each bundle.
        images: Files and folders.
        others: Arrays and streams, which it does not take.
        options: `top` and `out`.

    Raises:
        UsageError: There are arrays or a stream.
        DataError: An image cannot be used.
    """
    if others:
        raise UsageError("a pipeline runs on images", got=others[0], expected="image files, or folders of them")
    with load_pipeline(folder, *chosen) as pipeline:
        return run_images(pipeline, images, options["top"], options["out"]), pipeline.spec


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
    return _value(model, rows, {"answered": len(rows), "failed": 0})


def _value(model: Model | Pipeline, rows: list[dict[str, Any]], counts: dict[str, int]) -> dict[str, Any]:
    chosen = getattr(model, "chosen", None)
    ran = f"{chosen.artefact.name} on {chosen.backend}" if chosen else "a pipeline of bundles"
    return {"ran": ran, "why": model.why(), "images": rows, "counts": counts}


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
                pixels = as_image(frame.image)
                row: dict[str, Any] = {"image": name, "size": list(pixels.shape[:2])}
                rows.append(row | frame.answer.show(top))
                if writer:
                    stem = Path(name).stem if isinstance(frame.image, (str, Path)) else ""
                    rows[-1]["picture"] = str(writer.add(frame.index, frame.answer.draw(pixels), stem))
    finally:
        if writer:
            writer.close()
    seconds = time.perf_counter() - start
    return {**_value(model, rows, asdict(stream.counts)), "seconds": seconds}
