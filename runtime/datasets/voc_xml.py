"""PASCAL VOC: Annotations/*.xml, images in JPEGImages/ or images/, and ImageSets/Main/train.txt, val.txt, test.txt.

Pixels are counted from 1, and a box contains its last pixel: x1 is xmin - 1, x2 is xmax. `difficult` objects count
neither as right nor as wrong. The classes are the names in the files, sorted.
"""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .listed_files import image_header, text_of
from .objects import AnnotatedParts, inside, instances, require_few

if TYPE_CHECKING:
    from .listed_files import Listing

FOLDER, IMAGES, LISTS = "Annotations", ("JPEGImages", "images", "."), "ImageSets/Main"
LARGEST_FILE = 1 << 22
SIDES = ("xmin", "ymin", "xmax", "ymax")


def find_voc(source: Path) -> AnnotatedParts | None:
    """Return the parts of a VOC folder; None if it is none."""
    if not (source / FOLDER).is_dir() or not any((source / FOLDER).glob("*.xml")):
        return None
    lists = {part: next((path for word in words if (path := source / LISTS / f"{word}.txt").is_file()), None)
             for part, words in (("train", ("train",)), ("test", ("val", "test")))}  # fmt: skip
    parts = {part: functools.partial(read_voc, source, path) for part, path in lists.items() if path}
    return AnnotatedParts(source, parts or {"test": functools.partial(read_voc, source, None)})


def read_voc(folder: Path, split: Path | None) -> Listing:
    """Return the images that a list names (all without one), the objects in each, and the names of all classes.

    Raises:
        DataError: A file is no such XML, has a box that cannot be, or its image is missing.
    """
    every = sorted((folder / FOLDER).glob("*.xml"))
    roots = {file.stem: _parsed(file) for file in every}
    require_few(sum(len(root.findall("object")) for root in roots.values()), FOLDER)
    classes = sorted({_text(one, "name", stem) for stem, root in roots.items() for one in root.findall("object")})
    stems = [line.split()[0] for line in text_of(split).splitlines() if line.strip()] if split else list(roots)
    paths, truths = [], []
    for stem in stems:
        if stem not in roots:
            raise DataError(f"{split} names an image without a file in {FOLDER}", got=stem[:80])
        root, where = roots[stem], f"{stem}.xml"
        path = _image(folder, root, stem)
        members = root.findall("object")
        paths.append(path)
        truths.append(
            instances(
                image_header(path)[0], [_box(one, where) for one in members],
                [classes.index(_text(one, "name", where)) for one in members], where,
                crowd=[(one.findtext("difficult") or "").strip() == "1" for one in members],
            )
        )  # fmt: skip
    if not paths:
        raise DataError(f"{folder} has no images", got=str(split), expected="names of images")
    return paths, truths, classes


def _parsed(file: Path) -> ET.Element:
    """Return the root of an XML file; one that declares a document type, and with it entities, is refused unread."""
    if file.stat().st_size > LARGEST_FILE:
        raise DataError(f"{file} is too large", got=f"{file.stat().st_size} bytes", expected=f"at most {LARGEST_FILE}")
    text = text_of(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{file} declares a document type", got="<!DOCTYPE", expected="plain XML without entities")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise DataError(f"cannot read {file}", got=str(error)[:120], expected="VOC's XML") from error


def _image(folder: Path, root: ET.Element, stem: str) -> Path:
    name = (root.findtext("filename") or f"{stem}.jpg").strip()
    tries = [inside(folder / part, name, f"{stem}.xml") for part in IMAGES]
    tries += [path.with_suffix(suffix) for path in tries for suffix in (".jpg", ".jpeg", ".png")]
    if path := next((path for path in tries if path.is_file()), None):
        return path
    raise DataError(f"the image of {stem}.xml is missing", got=name[:120], expected=f"below {folder / IMAGES[0]}")


def _box(one: ET.Element, where: str) -> list[float]:
    box = one.find("bndbox")
    try:
        x1, y1, x2, y2 = (float(box.findtext(side, "") if box is not None else "") for side in SIDES)
    except ValueError as error:
        raise DataError(f"{where} has a box that is none", got=str(error)[:80], expected=", ".join(SIDES)) from error
    return [x1 - 1, y1 - 1, x2, y2]


def _text(one: ET.Element, key: str, where: str) -> str:
    text = (one.findtext(key) or "").strip()
    if not text:
        raise DataError(f"{where} has an object without a {key}", expected=f"<{key}>")
    return text
