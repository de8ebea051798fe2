"""COCO's average precision, by faster-coco-eval: objects of N images against what is known of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ._base import Score

if TYPE_CHECKING:
    from numpy.typing import NDArray

Records = list[dict[str, Any]]


def box_records(image: int, boxes: NDArray[Any], labels: NDArray[Any]) -> Records:
    """Return boxes (M, 4), x1, y1, x2, y2 in pixels, with their classes (M,) as COCO's records: `bbox` x, y, w, h."""
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
    return [
        {"image_id": image, "category_id": label + 1, "bbox": size}
        for size, label in zip(sizes, np.asarray(labels).tolist(), strict=True)
    ]


def average_precision(
    images: Records, truths: Records, objects: Records, classes: Sequence[int], kind: str = "bbox", **options: Any
) -> Score:
    """Return COCO's metrics: `map_ratio` over IoU 0.5 to 0.95, `map50_ratio`, `map75_ratio`, and each class's.

    Of keypoints they are over OKS, and begin with `oks_ap` in place of `map`.

    Args:
        images: COCO's records of the images: `id`, `height`, `width`.
        truths: Of the known objects; with `area` and `iscrowd`.
        objects: Of the found ones; with `score`.
        classes: The classes that are judged, as indices; `category_id` is one more.
        kind: "bbox", "segm" or "keypoints".
        options: Of `COCOeval_faster`.

    Raises:
        NotAvailable: faster-coco-eval is not installed.
    """
    library = need("faster_coco_eval")
    categories = [{"id": one + 1, "name": str(one)} for one in classes]
    numbered = [{"id": number, **one} for number, one in enumerate(truths, 1)]
    known = library.COCO({"images": images, "annotations": numbered, "categories": categories})
    judge = library.COCOeval_faster(known, known.loadRes(objects), iouType=kind, **options)
    judge.evaluate()
    judge.accumulate()
    precision = np.asarray(judge.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, class; all sizes, the most objects
    name = "oks_ap" if kind == "keypoints" else "map"
    values = {f"{name}{head}_ratio": _mean(part) for head, part in (
        ("", precision), ("50", precision[0]), ("75", precision[5])
    )}  # fmt: skip
    members: dict[int, set[int]] = {}
    for one in truths:
        members.setdefault(one["category_id"] - 1, set()).add(one["image_id"])
    by_class = [
        {
            "class": one,
            "images_count": len(members[one]),
            f"{name}_ratio": _mean(precision[:, :, at]),
            f"{name}50_ratio": _mean(precision[0, :, at]),
        }
        for at, one in enumerate(classes)
        if one in members
    ]
    return Score({**values, "images_count": float(len(images))}, {}, by_class)


def _mean(precision: NDArray[Any]) -> float:
    """Return the mean of what is known; -1 marks classes without truths."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else 0.0
