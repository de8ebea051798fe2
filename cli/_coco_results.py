"""What a detector or a network of keypoints answered, as a COCO file: images, categories, annotations with a score.

Format: COCO's "Data format" page (cocodataset.org); `annotations` alone are what `loadRes` of pycocotools takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..runtime.tasks.keypoints import VISIBLE

FORMAT = "edgesmith-coco"
TASKS = ("detect", "keypoints")


def coco_results(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """Return the rows of `run_images` or `run_stream` as the content of a COCO file.

    Args:
        rows: Each with `image`, `size` (height, width) and `objects` or `instances`; images that could not be used
            have none of these, and stay out.
        labels: The names of the classes; a category's id is the index of its class.
    """
    images, annotations = list[dict[str, Any]](), list[dict[str, Any]]()
    for row in rows:
        if "size" not in row:
            continue
        image = {"id": len(images) + 1, "file_name": row["image"], "height": row["size"][0], "width": row["size"][1]}
        images.append(image)
        for one in (*row.get("objects", ()), *map(_instance, row.get("instances", ()))):
            area = one["bbox"][2] * one["bbox"][3]
            record = {key: value for key, value in one.items() if key != "category"}
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image["id"], **record, "area": area, "iscrowd": 0}
            )
    names = labels or [str(at) for at in range(max((one["category_id"] for one in annotations), default=-1) + 1)]
    categories = [{"id": at, "name": name} for at, name in enumerate(names)]
    return {"format": FORMAT, "images": images, "categories": categories, "annotations": annotations}


def _instance(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return an instance of keypoints as COCO has it: x, y and 2 if visible, else 1; one category."""
    left, top, right, bottom = one["box"]
    points = [value for x, y, confidence in one["keypoints"] for value in (x, y, 2 if confidence >= VISIBLE else 1)]
    visible = sum(point[2] >= VISIBLE for point in one["keypoints"])
    box = [left, top, right - left, bottom - top]
    return {"category_id": 0, "bbox": box, "score": one["score"], "keypoints": points, "num_keypoints": visible}
