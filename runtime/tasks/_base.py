"""Base class of tasks; the file of a task overrides what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..images.geometry import ImagePlacement, placement

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..images.settings import Preprocess

    Outputs = Mapping[str, NDArray[Any]]
    Batch = Mapping[str, Any]
    Size = tuple[int, int]

SMALL = 8  # numbers of an output that are shown
CLASS = "class"  # the truth of an image that is one class


@dataclass(frozen=True)
class DecodeContext:
    """What decoding needs besides the outputs; `ModelSpec.context` makes it.

    Attributes:
        labels: Names of the classes; may be empty.
        scores: What the spec says of the first output: "logits", "probabilities", "" if nothing.
        classes: Number of classes.
        decoder: The spec's settings of the task's decoder.
        preprocess: How an image becomes the input; None for networks that take no images.
        size: Height and width of the image; None if unknown: places are then pixels of the network's input.
        most: Of a list, only so many of the best; None for all.
    """

    labels: Sequence[str] = ()
    scores: str = ""
    classes: int = 0
    decoder: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Preprocess | None = None
    size: Size | None = None
    most: int | None = None

    @property
    def place(self) -> ImagePlacement | None:
        """Where the image lies in the network's input; None if its size is unknown."""
        return placement(self.size, self.preprocess) if self.size and self.preprocess else None

    def label(self, index: int) -> str:
        """Return the name of a class, or its index."""
        return self.labels[index] if 0 <= index < len(self.labels) else str(index)


@dataclass(frozen=True, eq=False)
class Region:
    """A part of an image that an answer names: `box` float64 (4,), x1, y1, x2, y2 in pixels, its score and label."""

    box: NDArray[Any]
    score: float = 1.0
    label: str = ""


@dataclass(frozen=True)
class Score:
    """The metrics of the answers for N images.

    Attributes:
        values: By name: the task's metric, others, and `images_count`.
        intervals: The 95 % intervals of those that have one.
        by_class: One row for each class: its index `class`, `images_count`, and the task's metric.
    """

    values: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    by_class: list[dict[str, Any]] = field(default_factory=list)


class Task:
    """One task; this base class returns the outputs unchanged.

    `outputs` are the outputs of one image by name, without the batch axis. `batch` has what `reduce` leaves of the
    outputs of N images: by name an array (N, ...), or a list of N arrays if their sizes differ.

    Attributes:
        has_regions: Answers name parts of the image (`regions`), on which the next stage of a pipeline can run.
        batch_first: A network of this task gives one answer per image, batch axis first.
        has_classes: The first output holds class scores, one set per image or pixel.
        truth: The kind of truth of an image that `score` compares answers with, a key of `datasets.truths.KINDS`:
            "class" (class folders can train and score it), "boxes", ...; "" if there is none.
        metric: The key of the task's metric in `Score.values`; "" if there is none. A share ends in `_ratio`.
        title: Display name of that metric.
        scale: Points of the metric for a value of 1: 100 for a share.
        unit: The unit of the metric times `scale`, for headings.
        points: What differences of it are called.
        higher_is_better: The direction of the metric.
        package: The optional package that `score` needs; "" if none.
        needs_decoder: Outputs can be decoded only with settings (`ModelSpec.decoder`).
        max_drop: Points of the metric that a lower precision may lose by default.
    """

    has_regions = False
    batch_first = True
    has_classes = False
    truth = ""
    metric = ""
    title = "score"
    scale = 100.0
    unit = "%"
    points = "points"
    higher_is_better = True
    max_drop = 0.5
    package = ""
    needs_decoder = False

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether outputs have the shapes that `decode` needs."""
        return True

    def decode(self, outputs: Outputs, context: DecodeContext) -> Any:
        """Return the answer for one image; of a list only as many of the best as the context asks for."""
        return outputs

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the answer as plain values under the key that names it: here shapes, and what small outputs hold."""
        small = {name: value.tolist() for name, value in outputs.items() if value.size <= SMALL}
        shapes = {name: list(value.shape) for name, value in outputs.items()}
        return {"outputs": shapes, **({"values": small} if small else {})}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the result of `show` as text on one line."""
        small = row.get("values", {})
        return ", ".join(f"{name} {small.get(name, shape)}" for name, shape in row["outputs"].items())

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return a copy of an image, uint8 (H, W, 3), with its decoded answer drawn on it; None if impossible."""
        return None

    def regions(self, answer: Any, size: Size) -> list[Region]:
        """Return the parts of an image of a size, height and width, that a decoded answer names, best first."""
        return []

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return what `score` and `agreement` need of the outputs of one image, so that thousands fit into memory."""
        return outputs

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of equal choices, 0 to 1; None if the task has no choices, or the shapes differ."""
        return None

    def score(self, batch: Batch, truths: Any, context: DecodeContext) -> Score:
        """Return metrics of the answers for N images, whose truths are of the kind `truth`: int64 (N,) for "class".

        Raises:
            DataError: Truths cannot score this task, or the shapes do not match.
        """
        from ..errors import DataError

        raise DataError("accuracy cannot be computed", got="a task that has no metric")

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Check the settings of the decoder in a spec.

        Raises:
            TypeError: A setting is unknown, or its value cannot be.
        """
        if settings:
            raise TypeError(f"decoder {sorted(settings)}: the task decodes without settings")

    def guess_decoder(self, shapes: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], int]:
        """Guess the settings of the decoder and the number of classes from the outputs.

        Args:
            shapes: Of each output, by name, without the batch; None for free sizes.
            classes: The number of classes; 0 if it is unknown.
        """
        return {}, classes

    def lost(self, before: float, after: float) -> float:
        """Return the points of the metric that were lost from one value to another; negative if it became better."""
        return self.scale * (before - after) * (1 if self.higher_is_better else -1)


def first(batch: Batch) -> NDArray[Any]:
    """Return the first output of N images as one array (N, ...); of length 0 if their sizes differ."""
    import numpy as np

    values = next(iter(batch.values()))
    if isinstance(values, np.ndarray):
        return values
    return np.stack(list(values)) if len({np.shape(value) for value in values}) == 1 else np.zeros(0)
