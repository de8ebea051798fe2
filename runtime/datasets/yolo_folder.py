"""YOLO folders: data.yaml, images/ and, beside it, labels/ with one text file for each image.

A line of labels is `class centre-x centre-y width height` as shares of the image, or `class x1 y1 x2 y2 x3 y3 ...`, an
outline, whose box counts. Where data.yaml has `kpt_shape`, keypoints follow the box: x and y as shares, and whether it
is labelled if there are three numbers each. An image without a file of labels has no objects.
"""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .image_folder import SUFFIXES
from .listed_files import image_header, text_of
from .objects import AnnotatedParts, inside, instances, require_few
from .truths import Instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .listed_files import Listing

    Shape = tuple[int, int] | None

NAMES = ("data.yaml", "data.yml", "dataset.yaml")
LARGEST_TEXT = 1 << 22
MOST_CLASSES, MOST_KEYPOINTS = 100_000, 512
POSE_AREA = 0.53  # of its box, which a person covers, where no area is known: as Ultralytics
_KEY = re.compile(r"(\s*)(?:-\s+)?([\w.-]+|'[^']*'|\"[^\"]*\")\s*:(?:\s+(.*))?$")


def find_yolo(source: Path) -> AnnotatedParts | None:
    """Return the parts of a YOLO folder, or of its data.yaml; None if it is none.

    Raises:
        DataError: data.yaml is not valid, or a part is not there.
    """
    file = source if source.is_file() else next((source / name for name in NAMES if (source / name).is_file()), None)
    if file is None or file.suffix.lower() not in (".yaml", ".yml"):
        return None
    values = read_yaml(file)
    if "names" not in values:
        if source.is_dir():
            return None
        raise DataError(f"{file} has no names", expected="data.yaml with names, train and val")
    classes, shape = _classes(values, file), _keypoint_shape(values, file)
    parts = {}
    for part, keys in (("train", ("train",)), ("test", ("val", "test"))):
        if place := next((values[key] for key in keys if values.get(key)), None):
            parts[part] = functools.partial(
                _read, file, _places(file, values.get("path"), place), tuple(classes), shape
            )
    if not parts:
        raise DataError(f"{file} names no images", got=", ".join(values), expected="train and val")
    if len(parts) == 2 and values.get("train") == (values.get("val") or values.get("test")):
        del parts["train"]  # one folder for both: it is divided
    return AnnotatedParts(file.parent, parts, frozenset({"boxes", *(["keypoints"] if shape else [])}))


def _read(file: Path, places: tuple[Path, ...], classes: tuple[str, ...], shape: Shape) -> Listing:
    paths: list[Path] = []
    for place in places:
        paths += _listed(place) if place.is_file() else [one for one in sorted(place.rglob("*")) if _is_image(one)]
    if not paths:
        raise DataError(f"{file} names no images", got=", ".join(map(str, places))[:200], expected="image files")
    folder, truths, count, labelled = file.parent.resolve(), [], 0, False
    for path in paths:
        if folder not in path.resolve().parents:
            raise DataError(f"{file} names a file outside its folder", got=str(path)[:120], expected=f"below {folder}")
        labels = _labels_of(path)
        labelled |= labels.is_file()
        truths.append(_objects(path, labels, len(classes), shape))
        count += len(truths[-1].labels)
        require_few(count, file.name)
    if not labelled:
        got = f"no file like {_labels_of(paths[0])}"
        raise DataError(f"the images of {file} have no labels", got=got, expected="labels/ beside images/")
    return paths, truths, list(classes)


def _labels_of(image: Path) -> Path:
    """Return the file of labels of an image: the last folder `images` in its path is `labels`."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at] == "images":
            parts[at] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _objects(image: Path, labels: Path, classes: int, shape: Shape) -> Instances:
    height, width = image_header(image)[0]
    boxes, numbers, points = [], [], []
    lines = _lines(labels) if labels.is_file() else []
    require_few(len(lines), labels.name)
    for number, line in enumerate(lines, 1):
        where = f"{labels.name} line {number}"
        if shape:
            line, keypoints = _cut(line, where, shape)
            points.append(keypoints * (width, height, 1))
        label, box = _object(line, where, classes)
        numbers.append(label)
        boxes.append([box[0] * width, box[1] * height, box[2] * width, box[3] * height])
    if not shape:
        return instances((height, width), boxes, numbers, labels.name)
    areas = [POSE_AREA * (box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
    people = np.array(points, np.float64).reshape(len(points), shape[0], 3)
    return instances((height, width), boxes, numbers, labels.name, areas=areas, keypoints=people)


def _cut(line: str, where: str, shape: tuple[int, int]) -> tuple[str, NDArray[np.float64]]:
    """Return the class and the box of a line, and its keypoints, float64 (K, 3): x, y as shares, 0 if not labelled."""
    words = line.split()
    try:
        values = np.array([float(word) for word in words[5:]])
    except ValueError:
        values = np.array([np.nan])
    if len(values) != shape[0] * shape[1] or not np.isfinite(values).all():
        expected = f"class, box, and {shape[1]} numbers for each of {shape[0]} keypoints"
        raise DataError(f"{where} is not valid", got=repr(line)[:80], expected=expected)
    points = values.reshape(shape)
    if shape[1] == 2:  # without a third number a keypoint at 0, 0 is none
        points = np.column_stack([points, points.any(axis=1)])
    return " ".join(words[:5]), points


def _object(line: str, where: str, classes: int) -> tuple[int, tuple[float, float, float, float]]:
    try:
        label, *values = (float(word) for word in line.split())
    except ValueError as error:
        got, expected = repr(line)[:80], "class centre-x centre-y width height"
        raise DataError(f"{where} is not valid", got=got, expected=expected) from error
    box = len(values) == 4
    if not (box or (len(values) >= 6 and len(values) % 2 == 0)) or not all(-0.01 <= one <= 1.01 for one in values):
        expected = "class centre-x centre-y width height, shares of the image from 0 to 1"
        raise DataError(f"{where} is not valid", got=repr(line)[:80], expected=expected)
    if not (0 <= label < classes and label == math.floor(label)):
        raise DataError(f"{where} has an unknown class", got=f"{label:g}", expected=f"0 to {classes - 1}")
    if box:
        x, y, width, height = values
        return int(label), (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return int(label), (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))


def _lines(path: Path) -> list[str]:
    if path.stat().st_size > LARGEST_TEXT * 16:
        raise DataError(f"{path} is too large", got=f"{path.stat().st_size} bytes", expected=f"{LARGEST_TEXT * 16}")
    return [line for line in map(str.strip, text_of(path).splitlines()) if line]


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _listed(file: Path) -> list[Path]:
    """Return the images that a text file names, one on a line."""
    paths = [inside(file.parent, line.removeprefix("./"), file.name) for line in _lines(file)]
    if gone := next((path for path in paths if not path.is_file()), None):
        raise DataError(f"{file.name} names an image that is missing", got=str(gone), expected="an image file")
    return paths


def _places(file: Path, base: Any, place: Any) -> tuple[Path, ...]:
    """Return the folders or lists of a part, inside the folder of data.yaml.

    `path` may be where the data lay when the file was written, and Roboflow writes `../train/images` for
    `train/images`: what lies in the folder itself counts.
    """
    chosen = []
    for one in place if isinstance(place, list) else [place]:
        name = re.sub(r"^(\.\.?/)+", "", str(one))
        tries = [file.parent / name, *([file.parent / str(base) / name] if isinstance(base, str) else [])]
        folder = file.parent.resolve()
        there = [path for path in tries if path.exists() and folder in (path.resolve(), *path.resolve().parents)]
        if not there:
            do = "put data.yaml into the folder of the data, with paths relative to it"
            expected = f"below {file.parent}"
            raise DataError(f"{file} names what is not in its folder", got=str(one)[:120], expected=expected, do=do)
        chosen.append(there[0])
    return tuple(chosen)


def _classes(values: dict[str, Any], file: Path) -> list[str]:
    names = values["names"]
    if isinstance(names, dict):
        numbers = sorted(int(key) for key in names if str(key).isdigit())
        names = [names[str(number)] for number in numbers] if numbers == list(range(len(names))) else None
    classes: list[str] = [one for one in names if isinstance(one, str)] if isinstance(names, list) else []
    right = 0 < len(classes) <= MOST_CLASSES and len(classes) == len(set(classes)) == len(names)
    if not right or str(values.get("nc", len(classes))) != str(len(classes)):
        got = f"names {names!r}, nc {values.get('nc')!r}"[:120]
        raise DataError(f"{file} has no list of classes", got=got, expected="names: [cat, dog], or 0: cat below names")
    return classes


def _keypoint_shape(values: dict[str, Any], file: Path) -> Shape:
    """Return how many keypoints an object has, and how many numbers each; None if it has none."""
    shape = values.get("kpt_shape")
    if shape is None:
        return None
    able = isinstance(shape, list) and len(shape) == 2 and shape[1] in ("2", "3") and shape[0].isdecimal()
    if not able or not 0 < int(shape[0]) <= MOST_KEYPOINTS:
        raise DataError(f"{file} is not valid", got=f"kpt_shape {shape!r}"[:80], expected="kpt_shape: [17, 3]")
    return int(shape[0]), int(shape[1])


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the top level of a simple YAML file: texts, lists of texts, and tables of texts.

    Values that are nested deeper, such as scripts that fetch the data, are left out.

    Raises:
        DataError: It cannot be read, or is too large.
    """
    if file.stat().st_size > LARGEST_TEXT:
        raise DataError(f"{file} is too large", got=f"{file.stat().st_size} bytes", expected=f"at most {LARGEST_TEXT}")
    values: dict[str, Any] = {}
    key = ""
    for line in text_of(file).splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _KEY.match(_without_comment(line))
        indent = len(line) - len(line.lstrip())
        if match and not indent and not line.startswith("-"):
            key, text = _scalar(match[2]), (match[3] or "").strip()
            values[key] = _value(text) if text else None
        elif key and line.lstrip().startswith("- ") and not isinstance(values[key], (str, dict)):
            values[key] = [*(values[key] or []), _scalar(_without_comment(line).strip()[2:].strip())]
        elif key and match and not isinstance(values[key], (str, list)):
            values[key] = {**(values[key] or {}), _scalar(match[2]): _scalar((match[3] or "").strip())}
    return values


def _value(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [_scalar(one) for one in _split(text[1:-1])]
    if text.startswith("{") and text.endswith("}"):
        pairs = [one.partition(":") for one in _split(text[1:-1])]
        return {_scalar(key.strip()): _scalar(value.strip()) for key, _, value in pairs}
    return _scalar(text)


def _split(text: str) -> list[str]:
    """Return the parts between commas outside quotes."""
    parts = [match[0].strip() for match in re.finditer(r"(?:'[^']*'|\"[^\"]*\"|[^,'\"])+", text)]
    return [part for part in parts if part]


def _scalar(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _without_comment(line: str) -> str:
    match = re.match(r"(?:'[^']*'|\"[^\"]*\"|(?!\s#).)*", line)
    return match[0] if match else line
