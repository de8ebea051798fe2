"""COCO's JSON: `images`, `categories` and `annotations` with `bbox` x, y, width, height; keypoints where there are any.

FILE.json                                 one file, whose images lie beside it, in images/, or in a folder called as it
DIR/annotations/instances_val2017.json    as COCO itself: images in DIR/val2017 or DIR/images/val2017
DIR/valid/_annotations.coco.json          as Roboflow exports: images beside the file
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .listed_files import image_header, json_object
from .objects import AnnotatedParts, inside, instances, require_few

if TYPE_CHECKING:
    from .listed_files import Listing

HEAD_BYTES = 1 << 16
LARGEST_FILE = 1 << 30
PARTS = {"train": ("train",), "test": ("val", "test")}  # words in the names of files
PLACES = ("annotations/*.json", "*.json", "*/_annotations.coco.json")
WORDS = (b'"images"', b'"annotations"', b'"categories"')
Record = Mapping[str, Any]


def find_coco(source: Path) -> AnnotatedParts | None:
    """Return the parts of a COCO data set; None if it is none."""
    if source.is_file():
        if source.suffix.lower() != ".json" or not _is_coco(source):
            return None
        folder = source.parent.parent if source.parent.name == "annotations" else source.parent
        return AnnotatedParts(folder, {"test": functools.partial(read_coco, source)}, _kinds(source))
    files = sorted({path for pattern in PLACES for path in source.glob(pattern) if path.is_file() and _is_coco(path)})
    first = [path for path in files if path.name.startswith("instances")] or files
    parts = {part: path for part in PARTS if (path := _named(first, source, PARTS[part]))}
    if not parts and first:
        parts = {"test": first[0]}
    if not parts:
        return None
    readers = {part: functools.partial(read_coco, path) for part, path in parts.items()}
    return AnnotatedParts(source, readers, _kinds(next(iter(parts.values()))))


def _named(files: list[Path], folder: Path, words: tuple[str, ...]) -> Path | None:
    for word in words:
        if matches := [path for path in files if word in path.relative_to(folder).as_posix().lower()]:
            return matches[0]
    return None


def _is_coco(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    return head.lstrip()[:1] == b"{" and any(word in head for word in WORDS)


def _kinds(path: Path) -> frozenset[str]:
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            if b'"keypoints"' in block:
                return frozenset({"boxes", "keypoints"})
    return frozenset({"boxes"})


def read_coco(file: Path) -> Listing:
    """Return the images, the objects in each, and the categories' names in the order of their numbers.

    Raises:
        DataError: The file is not COCO's, names an image or a category that is not there, or has a box that cannot be.
    """
    status = file.stat()
    return _read_coco(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=2)
def _read_coco(file: Path, time_ns: int, size: int) -> Listing:
    if file.stat().st_size > LARGEST_FILE:
        raise DataError(f"{file} is too large", got=f"{file.stat().st_size} bytes", expected=f"at most {LARGEST_FILE}")
    content = json_object(file)
    lists = {name: _records(content, name, file) for name in ("images", "annotations", "categories")}
    require_few(len(lists["annotations"]), file.name)
    categories = {_number(one, "id", file): str(one.get("name")) for one in lists["categories"]}
    order = {number: at for at, number in enumerate(sorted(categories))}
    images = {_number(one, "id", file): one for one in lists["images"]}
    if not images or len(images) < len(lists["images"]) or len(categories) < len(lists["categories"]):
        got = f"{len(lists['images'])} images, {len(lists['categories'])} categories"
        raise DataError(f"{file.name} is not valid", got=got, expected="images and categories, each with its own id")
    members: dict[int, list[Record]] = {number: [] for number in images}
    for one in lists["annotations"]:
        number, kind = _number(one, "image_id", file), _number(one, "category_id", file)
        if number not in members or kind not in order:
            got = f"image_id {number}, category_id {kind}"
            raise DataError(f"{file.name} has an object of nothing", got=got, expected="an image and a category of it")
        members[number].append(one)
    root = _root(file, next(iter(images.values())))
    points = _keypoints_of(lists["annotations"])
    paths, truths = [], []
    for number in sorted(images):
        where = f"{file.name} image {number}"
        path = inside(root, images[number].get("file_name"), where)
        if not path.is_file():
            raise DataError(f"{where} is missing", got=str(path), expected="an image file")
        records = members[number]
        paths.append(path)
        truths.append(
            instances(
                image_header(path)[0], [_corners(one, where) for one in records],
                [order[one["category_id"]] for one in records], where,
                crowd=[one.get("iscrowd") == 1 for one in records], areas=[_area(one, where) for one in records],
                keypoints=_keypoints(records, points, where),
            )
        )  # fmt: skip
    return paths, truths, [categories[number] for number in sorted(categories)]


def _root(file: Path, first: Record) -> Path:
    """Return the folder that holds the images: the first usual one in which the first image is."""
    name = first.get("file_name")
    stems = [file.stem, file.stem.removeprefix("instances_"), file.stem.removeprefix("person_keypoints_")]
    bases = [file.parent, file.parent.parent] if file.parent.name == "annotations" else [file.parent]
    places = [base / inner for base in bases for inner in ("", "images", *stems, *(f"images/{stem}" for stem in stems))]
    for place in places:
        if isinstance(name, str) and inside(place, name, file.name).is_file():
            return place
    expected = " or ".join(dict.fromkeys(str(place) for place in places[:4]))
    raise DataError(f"the images of {file.name} are missing", got=repr(name)[:100], expected=f"below {expected}")


def _records(content: Mapping[str, Any], name: str, file: Path) -> list[Record]:
    records = content.get(name)
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        got, expected = f"{name}: {type(records).__name__}", "lists `images`, `annotations` and `categories`"
        raise DataError(f"{file.name} is not COCO's", got=got, expected=expected)
    return records


def _number(record: Record, key: str, file: Path) -> int:
    value = record.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise DataError(f"{file.name} is not valid", got=f"{key} {value!r}"[:80], expected="a whole number")
    return value


def _corners(one: Record, where: str) -> list[Any]:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(edge) for edge in box):
        raise DataError(f"{where} has a box that is none", got=str(box)[:80], expected="x, y, width, height")
    x, y, width, height = box
    return [x, y, x + width, y + height]


def _area(one: Record, where: str) -> float:
    area = one.get("area", one["bbox"][2] * one["bbox"][3])
    if not _is_number(area) or not 0 <= area < 1e12:
        raise DataError(f"{where} has an area that is none", got=str(area)[:80], expected="pixels")
    return float(area)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _keypoints_of(records: list[Record]) -> int:
    """Return the number of keypoints of each object; 0 if they have none."""
    lists = [one["keypoints"] for one in records if isinstance(one.get("keypoints"), list)]
    return max(map(len, lists), default=0) // 3


def _keypoints(records: list[Record], count: int, where: str) -> Any:
    if not count:
        return None
    points = np.zeros((len(records), count, 3))
    for at, one in enumerate(records):
        values = one.get("keypoints", [0] * 3 * count)
        right = isinstance(values, list) and len(values) == 3 * count and all(map(_is_number, values))
        if not right or not np.isfinite(values).all():
            raise DataError(f"{where} has keypoints that are none", got=str(values)[:80], expected=f"{count} x, y, v")
        points[at] = np.array(values, np.float64).reshape(count, 3)
    return points
