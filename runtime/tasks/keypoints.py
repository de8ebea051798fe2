"""Keypoints of people or things: heatmaps (N, K, h, w), or rows of YOLO-pose, suppressed or not.

heatmaps   one instance an image, a map for each keypoint: its highest cell, moved a quarter of a cell to the higher
           neighbour, times the cells' size (Newell et al., 2016; so HRNet, and MMPose without UDP)
rows       (4 + classes + K·d, M), also transposed: centre x, centre y, width, height, scores, then of each keypoint x,
           y (and a confidence if d is 3), in pixels of the input; non-maximum suppression follows
detected   (M, 6 + K·d): x1, y1, x2, y2, score, class, keypoints

Decoder: `dimensions`, d, 3 by default; `threshold` of the score, 0.25, and `iou` of the suppression, 0.7, by default;
`offset`, where in a cell of a heatmap its point lies: 0 (its corner), or 0.5 where maps were made by centres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ..images.boxes import nms
from ..images.drawing import colour
from ..images.geometry import placement
from ._base import Region, Score, Task
from ._keypoint_ap import People, keypoint_ap, oks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..images.geometry import ImagePlacement
    from ._base import Batch, DecodeContext, Outputs, Size

SETTINGS = {"dimensions": 3, "threshold": 0.25, "iou": 0.7, "offset": 0.0}
SCORED_FROM, MOST = 0.001, 100  # of the instances that a metric looks at, as Ultralytics' validation
MOST_KEYPOINTS = 512
ALIKE = 0.9  # object keypoint similarity, from which two forms give the same instance
VISIBLE = 0.3  # confidence from which a keypoint is drawn
# COCO's 17 keypoints: which two a limb joins.
LIMBS = (
    (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
    (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Instance:
    """One person or thing, in pixels: `points` float64 (K, 3) x, y, confidence; `box` float64 (4,) x1, y1, x2, y2."""

    score: float
    box: NDArray[np.float64]
    points: NDArray[np.float64]


class Keypoints(Task):
    """The instances with their keypoints, in pixels of the image where its size is known; OKS AP."""

    has_regions = True
    truth = "keypoints"
    metric = "oks_ap_ratio"
    title = "OKS AP"
    package = "faster_coco_eval"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is heatmaps, or rows with at least one keypoint."""
        output = next(iter(outputs.values()))
        if output.ndim == 3:
            return bool(output.size)
        return output.ndim == 2 and _row_layout(output, context) is not None

    def decode(self, outputs: Outputs, context: DecodeContext) -> tuple[Instance, ...]:
        """Return the instances whose score reaches the threshold, best first; of heatmaps the one there is."""
        points, boxes, scores = _instances(next(iter(outputs.values())), context, float(_setting(context, "threshold")))
        points, boxes = _in_image(points, boxes, context.place)
        count = len(scores) if context.most is None else context.most
        return tuple(
            Instance(float(score), box, one)
            for score, box, one in zip(scores[:count], boxes[:count], points[:count], strict=True)
        )

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the instances under "instances": score, box, keypoints."""
        return {
            "instances": [
                {"score": one.score, "box": one.box.tolist(), "keypoints": one.points.tolist()}
                for one in self.decode(outputs, context)
            ]
        }

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the number of instances, and of each how many keypoints are confident."""
        seen = [sum(point[2] >= VISIBLE for point in one["keypoints"]) for one in row["instances"]]
        scores = [
            f"{100 * one['score']:.0f} % with {count} keypoints"
            for one, count in zip(row["instances"], seen, strict=True)
        ]
        return f"{len(seen)} found" + (": " + ", ".join(scores) if scores else "")

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with each instance's keypoints, and its limbs where they are COCO's 17."""
        picture = need("PIL.Image").fromarray(np.ascontiguousarray(image))
        canvas, radius = need("PIL.ImageDraw").Draw(picture), max(2, min(picture.size) // 120)
        for number, one in enumerate(answer):
            seen = one.points[:, 2] >= VISIBLE
            for start, end in LIMBS if len(seen) == 17 else ():
                if seen[start] and seen[end]:
                    canvas.line([tuple(one.points[at, :2]) for at in (start, end)], fill=colour(number), width=radius)
            for x, y in one.points[seen, :2]:
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour(number), outline="white")
        return np.asarray(picture)

    def regions(self, answer: Any, size: Size) -> list[Region]:
        """Return the boxes of the instances."""
        return [Region(one.box, one.score) for one in answer]

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return points (M, K, 3), boxes (M, 4) in pixels of the input, and scores (M,), best first."""
        points, boxes, scores = _instances(next(iter(outputs.values())), context, SCORED_FROM)
        return {"points": points[:MOST], "boxes": boxes[:MOST], "scores": scores[:MOST]}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of instances above the threshold that both forms give, with an OKS of at least 0.9."""
        total, same, threshold = 0, 0, float(_setting(context, "threshold"))
        for at in range(len(batch["scores"])):
            (one, _), (two, boxes) = (
                [
                    np.asarray(some[name][at])[np.asarray(some["scores"][at]) >= threshold]
                    for name in ("points", "boxes")
                ]
                for some in (batch, reference)
            )
            total += max(len(one), len(two))
            if len(one) and len(two):
                areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1.0)
                crowd = np.zeros(len(two), bool)
                people = People(np.dstack([two[..., :2], np.ones(two.shape[:2])]), boxes, areas, crowd)
                same += min(int((oks(one, people).max(axis=side) >= ALIKE).sum()) for side in (0, 1))
        return same / total if total else None

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return COCO's metrics of keypoints: `oks_ap_ratio` over OKS from .50 to .95, `oks_ap50_ratio`, and others.

        Raises:
            DataError: Nobody is annotated, or the numbers of keypoints differ.
            NotAvailable: faster-coco-eval is not installed.
        """
        answers = []
        for points, boxes, scores, truth in zip(batch["points"], batch["boxes"], batch["scores"], truths, strict=True):
            place = placement(truth.size, context.preprocess) if context.preprocess else None
            answers.append((_in_image(points, boxes, place)[0], scores))
        return keypoint_ap(answers, truths)

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings other than `dimensions`, `threshold`, `iou` and `offset`.

        Raises:
            TypeError: A setting is unknown, or its value cannot be.
        """
        numbers = [
            value for value in settings.values() if isinstance(value, (int, float)) and not isinstance(value, bool)
        ]
        shares = [settings.get(name, 0) for name in ("threshold", "iou", "offset")]
        if (
            set(settings) - set(SETTINGS) or len(numbers) < len(settings) or settings.get("dimensions", 3) not in (2, 3)
            or not all(0 <= share <= 1 for share in shares)
        ):  # fmt: skip
            raise TypeError(
                f"decoder {dict(settings)}: expected dimensions, 2 or 3; threshold, iou, offset, from 0 to 1"
            )


def _setting(context: DecodeContext, name: str) -> Any:
    return context.decoder.get(name, SETTINGS[name])


def _in_image(points: NDArray[Any], boxes: NDArray[Any], place: ImagePlacement | None) -> tuple[Any, Any]:
    """Return points (M, K, 3) and boxes (M, 4) of the input as those of the image."""
    points, boxes = np.array(points, np.float64), np.array(boxes, np.float64)
    if place is not None:
        points[..., :2] = place.points_to_image(points[..., :2])
        boxes = place.boxes_to_image(boxes, clip=True)
    return points, boxes


def _instances(output: NDArray[Any], context: DecodeContext, least: float) -> tuple[Any, Any, Any]:
    """Return points float64 (M, K, 3), boxes (M, 4) in pixels of the input, scores (M,), best first."""
    if output.ndim == 3:
        return _from_heatmaps(output.astype(np.float64), context)
    rows, detected = _row_layout(output, context) or (output, True)
    rows = rows.astype(np.float64)
    start = 6 if detected else 4 + max(context.classes, 1)
    scores = rows[:, 4] if detected else rows[:, 4:start].max(axis=1)
    kept = np.flatnonzero(scores >= least)
    rows, scores = rows[kept], scores[kept]
    boxes = rows[:, :4]
    if detected:
        order = np.argsort(-scores, kind="stable")
    else:
        boxes = np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])
        classes = rows[:, 4:start].argmax(axis=1) if len(rows) else np.zeros(0, np.int64)
        order = nms(boxes, scores, float(_setting(context, "iou")), classes)
    each = _setting(context, "dimensions")
    points = rows[order, start:].reshape(len(order), (rows.shape[1] - start) // each, each)
    if points.shape[2] == 2:
        points = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2)
    return points, boxes[order], scores[order]


def _row_layout(output: NDArray[Any], context: DecodeContext) -> tuple[NDArray[Any], bool] | None:
    """Return the rows (M, columns) and whether they were suppressed; None if their length cannot be that of rows."""
    each = int(_setting(context, "dimensions"))
    raw, detected = 4 + max(context.classes, 1), 6
    able = [
        (rows, after)
        for rows, start, after in (
            (output.T, raw, False), (output, raw, False), (output, detected, True),
        )
        if (rows.shape[1] - start) % each == 0 and 0 < (rows.shape[1] - start) // each <= MOST_KEYPOINTS
    ]  # fmt: skip
    # Of a matrix that can be read in two ways the longer side counts the rows.
    return max(able, key=lambda one: len(one[0]) >= one[0].shape[1], default=None)


def _from_heatmaps(maps: NDArray[np.float64], context: DecodeContext) -> tuple[Any, Any, Any]:
    count, height, width = maps.shape
    best = maps.reshape(count, -1).argmax(axis=1)
    y, x = np.divmod(best, width)
    every, points = np.arange(count), np.stack([x, y], axis=1).astype(np.float64)
    inside = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    left, right = np.maximum(x - 1, 0), np.minimum(x + 1, width - 1)
    above, below = np.maximum(y - 1, 0), np.minimum(y + 1, height - 1)
    across, down = maps[every, y, right] - maps[every, y, left], maps[every, below, x] - maps[every, above, x]
    slope = np.stack([across, down], axis=1)
    points += 0.25 * np.sign(slope) * inside[:, None]
    size = context.preprocess.crop if context.preprocess else (height, width)
    offset = float(_setting(context, "offset"))
    points = (points + offset) * [size[1] / width, size[0] / height] - offset
    chances = maps[every, y, x]
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    return np.column_stack([points, chances])[None], box[None], chances.mean()[None]


TASK = Keypoints()
