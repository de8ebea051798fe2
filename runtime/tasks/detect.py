"""Detection of objects: boxes, scores and classes from the outputs of any head in `_heads.py`.

Answers are judged by COCO's mean average precision over IoU 0.5 to 0.95, in pixels of the images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..images.boxes import iou, nms
from ..images.drawing import draw_boxes
from ._base import Region, Score, Task
from ._coco import average_precision, box_records
from ._head_guess import guess
from ._head_settings import check, complete
from ._heads import read

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs, Size
    from ._head_guess import Shapes

LEAST_SCORE = 0.001  # of an object that the metric counts
MOST_CANDIDATES = 30_000  # best scores that are compared with each other
FOUND = 0.5  # IoU from which two forms found the same object
NEAR = 0.1  # above the score threshold by so much, an object is one that a small change of the score does not remove


@dataclass(frozen=True)
class Detections:
    """The objects in an image, best first.

    Attributes:
        boxes: float64 (N, 4): x1, y1, x2, y2 in pixels of the image.
        scores: float64 (N,), 0 to 1.
        labels: int64 (N,): classes.
        names: The classes' names.
    """

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.scores)


class Detect(Task):
    """The boxes of objects with their classes; mAP."""

    has_regions = True
    truth = "boxes"
    metric = "map_ratio"
    title = "mAP"
    package = "faster_coco_eval"
    needs_decoder = True

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the head of the spec can read the outputs."""
        try:
            read(outputs, context)
        except DataError:
            return False
        return True

    def decode(self, outputs: Outputs, context: DecodeContext) -> Detections:
        """Return the objects above the score threshold, each box with its best class.

        Raises:
            DataError: The outputs do not fit the head.
        """
        settings = complete(context.decoder)
        objects = _select(outputs, context, settings["score_threshold"], several=False)
        objects = {name: value[: context.most] for name, value in objects.items()}
        place = context.place
        boxes = objects["boxes"] if place is None else place.boxes_to_image(objects["boxes"], clip=True)
        names = tuple(context.label(label) for label in objects["labels"].tolist())
        return Detections(boxes, objects["scores"], objects["labels"], names)

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the objects under "objects", as COCO writes them: `bbox` is x, y, width, height."""
        answer = self.decode(outputs, replace(context, most=None))
        records = box_records(0, answer.boxes, answer.labels)
        objects = [
            {"category_id": label, "category": name, "bbox": [round(edge, 2) for edge in one["bbox"]],
             "score": round(score, 5)}
            for one, label, name, score in zip(
                records, answer.labels.tolist(), answer.names, answer.scores.tolist(), strict=True
            )
        ]  # fmt: skip
        return {"objects": objects}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the number of objects, and the best of them."""
        best = ", ".join(f"{one['category']} {100 * one['score']:.0f} %" for one in row["objects"][:5])
        more = f" and {len(row['objects']) - 5} more" if len(row["objects"]) > 5 else ""
        count = len(row["objects"])
        return f"{count} object{'s' * (count != 1)}{': ' * bool(best)}{best}{more}"

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with each box, its class and its score."""
        texts = [f"{name} {score:.2f}" for name, score in zip(answer.names, answer.scores.tolist(), strict=True)]
        return draw_boxes(image, answer.boxes, answer.labels.tolist(), texts)

    def regions(self, answer: Any, size: Size) -> list[Region]:
        """Return the boxes."""
        rows = zip(answer.boxes, answer.scores.tolist(), answer.names, strict=True)
        return [Region(box, score, name) for box, score, name in rows]

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return `boxes`, in pixels of the input, `scores` and `labels` of what the metric counts, best first.

        Every class of a box counts, as in the evaluations that networks are published with.
        """
        return _select(outputs, context, LEAST_SCORE, several=True)

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of the objects above the score threshold that both found.

        Both found an object of the same class with an IoU of at least 0.5; each counts once. What only one of them
        found counts against the form where its score is above the threshold by more than NEAR; of an image, the
        larger of what is lost and what is new counts, of the larger number of objects.
        """
        threshold = complete(context.decoder)["score_threshold"]
        lost = total = 0
        for one, two in zip(_images(batch), _images(reference), strict=True):
            (mine, my_clear), (theirs, their_clear) = (
                [{name: value[side["scores"] >= least] for name, value in side.items()}
                 for least in (threshold, threshold + NEAR)] for side in (one, two)
            )  # fmt: skip
            missing = len(their_clear["scores"]) - _pairs(mine, their_clear)
            lost += max(missing, len(my_clear["scores"]) - _pairs(theirs, my_clear))
            total += max(len(mine["scores"]), len(theirs["scores"]))
        return 1 - lost / total if total else None

    def score(self, batch: Batch, truths: Any, context: DecodeContext) -> Score:
        """Return COCO's metrics; `truths` are `Instances` with the network's classes.

        Raises:
            DataError: There are not as many answers as truths, or none.
            NotAvailable: faster-coco-eval is not installed.
        """
        answers = list(_images(batch))
        if len(answers) != len(truths) or not truths:
            raise DataError("mAP cannot be computed", got=f"{len(answers)} answers, {len(truths)} truths")
        images, known, objects = [], [], []
        for number, (answer, truth) in enumerate(zip(answers, truths, strict=True), 1):
            images.append({"id": number, "height": truth.size[0], "width": truth.size[1]})
            place = replace(context, size=truth.size).place
            boxes = answer["boxes"] if place is None else place.boxes_to_image(answer["boxes"], clip=True)
            records = box_records(number, boxes, answer["labels"])
            objects += [{**one, "score": score} for one, score in zip(records, answer["scores"].tolist(), strict=True)]
            facts = zip(box_records(number, truth.boxes, truth.labels), truth.areas.tolist(), truth.crowd.tolist(),
                        strict=True)  # fmt: skip
            known += [{**one, "area": area, "iscrowd": int(crowd)} for one, area, crowd in facts]
        return average_precision(images, known, objects, range(context.classes))

    def guess_decoder(self, shapes: Shapes, classes: int) -> tuple[dict[str, Any], int]:
        """Return the head that the outputs' names and shapes look like, and the number of classes."""
        return guess(shapes, classes)

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Check the settings of the head."""
        if settings:
            check(settings)


def _select(outputs: Outputs, context: DecodeContext, threshold: float, several: bool) -> dict[str, NDArray[Any]]:
    """Return `boxes` in pixels of the input, `scores` and `labels` of the selected candidates, best first.

    Args:
        outputs: Of one image.
        context: With the head's settings.
        threshold: The least score.
        several: A box may count for several classes.
    """
    settings, candidates = complete(context.decoder), read(outputs, context)
    if candidates.labels is not None:
        known = (candidates.labels >= 0) & (candidates.labels < context.classes)
        at = np.flatnonzero((candidates.scores >= threshold) & known)
        at = at[np.argsort(-candidates.scores[at], kind="stable")][: settings["most"]]
        labels, scores = candidates.labels[at], candidates.scores[at]
        return {"boxes": candidates.boxes(at), "scores": scores.astype(np.float64), "labels": labels}
    at, labels, scores = _above(candidates.scores, threshold, several)
    boxes = candidates.boxes(at)
    kept = nms(boxes, scores, settings["iou_threshold"], None if settings["agnostic"] else labels, settings["most"])
    return {"boxes": boxes[kept], "scores": scores[kept].astype(np.float64), "labels": labels[kept]}


def _above(
    scores: NDArray[Any], threshold: float, several: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Return candidate, class and score of scores (classes, N) above a threshold, of the MOST_CANDIDATES best."""
    if several:
        labels, at = np.nonzero(scores >= threshold)
        best = scores[labels, at]
    else:
        best = scores.max(0, initial=-np.inf)
        at = np.flatnonzero(best >= threshold)
        labels, best = scores[:, at].argmax(0) if len(at) else at, best[at]
    if len(best) > MOST_CANDIDATES:
        top = np.sort(np.argpartition(-best, MOST_CANDIDATES)[:MOST_CANDIDATES])
        at, labels, best = at[top], labels[top], best[top]
    return at, labels, best


def _images(batch: Batch) -> Any:
    """Yield what `reduce` left of each image."""
    return ({name: values[at] for name, values in batch.items()} for at in range(len(batch["scores"])))


def _pairs(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> int:
    """Return how many objects of the same class can be paired, best scores first, at an IoU of at least FOUND."""
    overlaps = iou(theirs["boxes"], mine["boxes"])
    overlaps[theirs["labels"][:, None] != mine["labels"]] = 0
    pairs = 0
    for row in overlaps:
        if row.size and row[best := int(row.argmax())] >= FOUND:
            overlaps[:, best] = 0
            pairs += 1
    return pairs


TASK = Detect()
