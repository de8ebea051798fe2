"""People with keypoints: `keypoints.json` in COCO's format beside the images, or beside a folder `images`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .listed_files import Listing, image_header, image_inside, json_object, once
from .truths import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = "keypoints.json"
EACH = 3  # numbers of a keypoint: x, y, visibility


@dataclass(frozen=True, eq=False)
class Poses(Truth):
    """The people or things in an image, in pixels of it.

    Attributes:
        keypoints: float64 (M, K, 3): x, y, and 0 where a keypoint is not labelled.
        boxes: float64 (M, 4): x1, y1, x2, y2.
        areas: float64 (M,), in pixels.
        crowd: bool (M,): several at once; an answer there is neither right nor wrong.
    """

    keypoints: NDArray[np.float64]
    boxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]


def read_keypoints(folder: Path) -> Listing:
    """Return the images of `keypoints.json`, each with its people; an image without any is one where nobody is.

    Raises:
        DataError: The file is not valid, names no image or one twice, or persons have different numbers of keypoints.
    """
    content = json_object(folder / FILE)
    images, annotations = (_rows(content, name) for name in ("images", "annotations"))
    names = [str(_field(row, "file_name", str, f"images[{at}]")) for at, row in enumerate(images)]
    once(names, folder / FILE)
    place = folder / "images" if (folder / "images").is_dir() else folder
    paths = [image_inside(place, name, f"{FILE} images[{at}]") for at, name in enumerate(names)]
    people: dict[Any, list[tuple[Any, ...]]] = {
        _identity(row, "id", f"images[{at}]"): [] for at, row in enumerate(images)
    }
    if len(people) < len(images):
        raise DataError(f"{FILE} is not valid", got="two images with one id", expected="one id for each image")
    for at, row in enumerate(annotations):
        image = _identity(row, "image_id", f"annotations[{at}]")
        if image not in people:
            raise DataError(f"{FILE} annotations[{at}] is of no image", got=f"image_id {image!r}"[:80])
        people[image].append(_person(row, f"annotations[{at}]"))
    lengths = {len(one[0]) for some in people.values() for one in some}
    if len(lengths) != 1:
        got = f"{len(annotations)} annotations, with {sorted(lengths)} keypoints"
        raise DataError(f"{FILE} is not valid", got=got, expected="annotations with the same number of keypoints")
    (count,) = lengths
    return (
        paths,
        [_poses(image_header(path)[0], some, count) for path, some in zip(paths, people.values(), strict=True)],
        [],
    )


def _poses(size: tuple[int, int], people: Sequence[tuple[Any, ...]], count: int) -> Poses:
    columns = list(zip(*people, strict=True)) or [(), (), (), ()]
    keypoints = np.array(columns[0], np.float64).reshape(-1, count, EACH)
    boxes = np.array(columns[1], np.float64).reshape(-1, 4)
    return Poses(size, keypoints, boxes, np.array(columns[2], np.float64), np.array(columns[3], bool))


def _person(row: Any, where: str) -> tuple[Any, ...]:
    """Return an annotation's keypoints (K, 3), box x1, y1, x2, y2, area, and whether it is a crowd."""
    flat = _numbers(row, "keypoints", where)
    if not flat or len(flat) % EACH:
        raise DataError(
            f"{FILE} {where} is not valid", got=f"{len(flat)} numbers in keypoints", expected="x, y, v of each"
        )
    points = np.array(flat, np.float64).reshape(-1, EACH)
    x, y, width, height = _numbers(row, "bbox", where, 4)
    (area,) = _numbers({"area": [row.get("area", width * height)]}, "area", where)
    return points, (x, y, x + width, y + height), area, bool(row.get("iscrowd", 0))


def _rows(content: dict[str, Any], name: str) -> list[Any]:
    rows = content.get(name)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{FILE} is not valid", got=f"{name}: {type(rows).__name__}", expected=f"COCO's list of {name}")
    return rows


def _field(row: dict[str, Any], name: str, kind: Any, where: str) -> Any:
    if not isinstance(row.get(name), kind):
        raise DataError(f"{FILE} {where} is not valid", got=f"{name} {row.get(name)!r}"[:80], expected="COCO's format")
    return row[name]


def _identity(row: dict[str, Any], name: str, where: str) -> Any:
    return _field(row, name, (int, str), where)


def _numbers(row: dict[str, Any], name: str, where: str, count: int | None = None) -> list[float]:
    values = _field(row, name, list, where)
    able = all(isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one) for one in values)
    if not able or (count is not None and len(values) != count):
        got = f"{name} {values!r}"[:80]
        raise DataError(f"{FILE} {where} is not valid", got=got, expected=f"{count or 'finite'} numbers")
    return list(map(float, values))
