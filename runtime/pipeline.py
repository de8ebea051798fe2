"""Several bundles as one: a detector, then a classifier or a recogniser on what it detected, and so on.

A pipeline is a folder with `pipeline.json` and the bundles that it names, folders or .zip files:

{"stages": [{"bundle": "detector"},
            {"bundle": "reader", "labels": ["plate"], "least": 0.4, "margin": 0.05, "most": 20}],
 "sample": "street.jpg"}

Each stage after the first runs on crops of the image: the boxes that the stage before it answered.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .common.closeable import Closeable
from .common.files import existing_file
from .common.names import is_path, is_text
from .errors import DataError, UsageError
from .images.drawing import draw_boxes
from .images.preprocess import as_image
from .model import Model, load
from .tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .answer import Answer
    from .tasks import Region

FILE = "pipeline.json"
MOST_STAGES, MOST_PARTS = 8, 1000
LARGEST = 1 << 20  # bytes of pipeline.json
LEAST_SIDE = 4  # pixels of a crop that is worth an answer


@dataclass(frozen=True)
class Stage:
    """One stage: which bundle runs, and on which parts of the image.

    Attributes:
        bundle: The bundle's path, relative to the pipeline's folder.
        labels: Only boxes with these labels; all if empty.
        least: Only boxes with at least this score.
        margin: The box is made larger by this share of its width and height on each side.
        most: Of the boxes at most so many, the best.
    """

    bundle: str
    labels: tuple[str, ...] = ()
    least: float = 0.0
    margin: float = 0.0
    most: int = 20


@dataclass(frozen=True)
class Part:
    """A part of an image, and what the next stage answered for it."""

    region: Region
    answer: PipelineAnswer


@dataclass(frozen=True)
class PipelineAnswer:
    """The answer of a stage for an image or a part of one, and of the next stages for its parts."""

    answer: Answer
    parts: tuple[Part, ...] = ()

    def show(self, most: int | None = None) -> dict[str, Any]:
        """Return the answers as plain values: that of the stage, and `parts`, each with its box, and `text`."""
        parts = []
        for part in self.parts:
            row = part.answer.show(most)
            text = find(part.answer.answer.task).line(row) if "outputs" not in row else ""
            box = [round(edge, 2) for edge in part.region.box.tolist()]
            parts.append({"box": box, "label": part.region.label, "score": part.region.score, "text": text, **row})
        return {**self.answer.show(most), **({"parts": parts} if parts else {})}

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of the image, uint8 (H, W, 3), with the parts, each with what the next stage says of it."""
        if not self.parts:
            return self.answer.draw(image)
        rows = self.show(1)["parts"]
        boxes = np.stack([part.region.box for part in self.parts])
        labels = sorted({row["label"] for row in rows})
        texts = [f"{row['label']} {row['text']}".strip() for row in rows]
        return draw_boxes(image, boxes, [labels.index(row["label"]) for row in rows], texts)


class Pipeline(Closeable):
    """Loaded bundles that run one after the other; use it as a context manager, or call `close`."""

    def __init__(self, stages: Sequence[Stage], models: Sequence[Model]) -> None:
        self.stages, self.models = tuple(stages), tuple(models)
        self.spec = self.models[0].spec

    def __call__(self, image: Any) -> PipelineAnswer:
        """Run the stages on one image: a path, a Pillow image, or an array as `Model` takes it.

        Raises:
            DataError: The image cannot be used.
            RunError: A backend failed.
        """
        pixels = as_image(image)
        return self._then(pixels, self.models[0](pixels), 1)

    def _then(self, pixels: NDArray[np.uint8], answer: Answer, at: int) -> PipelineAnswer:
        """Run the stages from number `at` on what a stage answered for an image."""
        if at == len(self.stages):
            return PipelineAnswer(answer)
        stage, height, width = self.stages[at], *pixels.shape[:2]
        regions = find(answer.task).regions(answer.decode(), (height, width))
        chosen = [
            one for one in regions if one.score >= stage.least and (not stage.labels or one.label in stage.labels)
        ]
        pairs = [
            (one, crop)
            for one in chosen[: stage.most]
            if min((crop := _cut(pixels, one, stage.margin)).shape[:2]) >= LEAST_SIDE
        ]
        answers = self.models[at]([crop for _, crop in pairs])
        parts = [Part(one, self._then(crop, own, at + 1)) for (one, crop), own in zip(pairs, answers, strict=True)]
        return PipelineAnswer(answer, tuple(parts))

    def why(self) -> str:
        """Return what runs, and why, for each stage; lines."""
        return "\n".join(
            f"{stage.bundle}: {model.why()}" for stage, model in zip(self.stages, self.models, strict=True)
        )

    def close(self) -> None:
        """Close every stage's model; a second call does nothing."""
        for model in self.models:
            model.close()


def is_pipeline(folder: str | Path) -> bool:
    """Return whether a path is the folder of a pipeline."""
    return (Path(folder) / FILE).is_file()


def load_pipeline(
    folder: str | Path, device: str = "auto", precision: str = "auto", threads: int | None = None
) -> Pipeline:
    """Load the bundles of a pipeline; the arguments are those of `load`, for each.

    Raises:
        UsageError: There is no such pipeline, or `pipeline.json` is not valid.
        DataError: A stage cannot follow the one before it.
        BundleError, NotAvailable: A bundle cannot be loaded; see `load`.
    """
    folder = Path(folder)
    stages = read_stages(folder / FILE)
    models: list[Model] = []
    try:
        for stage in stages:
            models.append(load(folder / stage.bundle, device, precision, threads))
            models[-1].spec.require_images()
        for stage, model in zip(stages[:-1], models, strict=False):
            if not find(model.spec.task).has_regions:
                raise DataError(
                    f"nothing can follow {stage.bundle}", got=f"task {model.spec.task}, which gives no boxes"
                )
    except BaseException:
        for model in models:
            model.close()
        raise
    return Pipeline(stages, models)


def sample_of(folder: Path) -> Path:
    """Return the image that a pipeline names as its `sample`: what `bench` measures it on.

    Raises:
        UsageError: It names none, or there is no such file.
    """
    name = _content(folder / FILE).get("sample")
    if not is_path(name) or not (folder / str(name)).is_file():
        do = "add an image on which every stage has work to do"
        raise UsageError(
            f"{folder / FILE} names no sample", got=repr(name)[:80], expected='"sample": "photo.jpg"', do=do
        )
    return folder / str(name)


def _content(path: Path) -> dict[str, Any]:
    try:
        if existing_file(path, "pipeline").stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) - {"stages", "sample"}:
            raise ValueError(f"{type(content).__name__} {list(content)[:5]}")
    except (OSError, ValueError, RecursionError, TypeError) as error:
        got = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot read {path}", got=got, expected='{"stages": [{"bundle": ...}, ...]}') from error
    return content


def read_stages(path: Path) -> list[Stage]:
    """Return the stages of a `pipeline.json`.

    Raises:
        UsageError: It does not exist, or is not valid.
    """
    content = _content(path)
    try:
        rows = content["stages"]
        stages = [Stage(**{**row, "labels": tuple(row.get("labels", ()))}) for row in rows]
    except (TypeError, KeyError, AttributeError) as error:
        got = " ".join(str(error).split())[:200]
        raise UsageError(f"cannot read {path}", got=got, expected='{"stages": [{"bundle": ...}, ...]}') from error
    if not 2 <= len(stages) <= MOST_STAGES:
        raise UsageError(f"{path} is not valid", got=f"{len(stages)} stages", expected=f"2 to {MOST_STAGES}")
    for at, stage in enumerate(stages):
        if problem := _problem(stage):
            raise UsageError(
                f"stage {at} of {path} is not valid", got=problem[:200], expected="as docs/runtime.md says"
            )
    return stages


def _problem(stage: Stage) -> str:
    """Return what is wrong with a stage; "" if nothing."""
    if not is_path(stage.bundle):
        return f"bundle {stage.bundle!r}, not a path below the folder"
    if not all(map(is_text, stage.labels)):
        return f"labels {stage.labels!r}"
    for name in ("least", "margin"):
        value = getattr(stage, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            return f"{name} {value!r}, not a number from 0 to 1"
    whole = isinstance(stage.most, int) and not isinstance(stage.most, bool)
    return "" if whole and 1 <= stage.most <= MOST_PARTS else f"most {stage.most!r}, not 1 to {MOST_PARTS}"


def _cut(pixels: NDArray[np.uint8], region: Region, margin: float) -> NDArray[np.uint8]:
    """Return the pixels of a box with its margin, as far as they lie in the image; whole pixels."""
    x1, y1, x2, y2 = region.box.tolist()
    wide, high = margin * (x2 - x1), margin * (y2 - y1)
    rows = slice(max(math.floor(y1 - high), 0), max(math.ceil(y2 + high), 0))
    columns = slice(max(math.floor(x1 - wide), 0), max(math.ceil(x2 + wide), 0))
    return np.ascontiguousarray(pixels[rows, columns])
