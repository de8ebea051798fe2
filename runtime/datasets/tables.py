"""Images whose truths stand in one file: numbers, sets of labels, texts, or pairs that are the same or not.

values.csv     file,number[,number...]                     regress
multilabel.csv file,label,label,... then 0 or 1 for each   multi_label
multilabel.json {"file": ["label", ...]}                   multi_label
texts.txt      file<TAB>text                               text
pairs.txt      file<TAB>file<TAB>1 or 0                    embed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .listed_files import (
    Listing,
    image_header,
    image_inside,
    is_number,
    json_object,
    numbers,
    once,
    table_rows,
    text_of,
)
from .truths import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

VALUES, LABEL_TABLE, LABEL_OBJECT = "values.csv", "multilabel.csv", "multilabel.json"
TEXTS, PAIRS = "texts.txt", "pairs.txt"


@dataclass(frozen=True, eq=False)
class Numbers(Truth):
    """The numbers that a network should give for an image."""

    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class LabelSet(Truth):
    """The labels that an image has, int64 indices; it may have none."""

    labels: NDArray[np.int64]

    def relabelled(self, order: NDArray[np.int64]) -> LabelSet:
        """Return it with class i called `order[i]`."""
        return replace(self, labels=order[self.labels])


@dataclass(frozen=True, eq=False)
class ImageText(Truth):
    """The text in an image."""

    text: str


@dataclass(frozen=True, eq=False)
class Identity(Truth):
    """Who or what an image shows.

    Attributes:
        name: The image's own name.
        label: Index of who it is; -1 if only pairs are known.
        same: For other images by name, whether they show the same.
    """

    name: str
    label: int = -1
    same: tuple[tuple[str, bool], ...] = ()


def read_values(folder: Path) -> Listing:
    """Return the images of `values.csv`, each with its numbers; a first line without numbers is a heading.

    Raises:
        DataError: A line is not valid, names no image or one twice, or has another number of values than the others.
    """
    rows = table_rows(folder / VALUES)
    if len(rows[0][1]) > 1 and not any(map(is_number, rows[0][1][1:])):
        rows = rows[1:]
    values = [numbers(cells[1:], where) for where, cells in rows]
    for (where, _), one in zip(rows, values, strict=True):
        if len(one) != len(values[0]):
            raise DataError(f"{where} is not valid", got=f"{len(one)} numbers", expected=f"{len(values[0])}")
    paths = _images(folder, VALUES, [(where, cells[0]) for where, cells in rows])
    return paths, [Numbers(image_header(path)[0], one) for path, one in zip(paths, values, strict=True)], []


def read_label_sets(folder: Path) -> Listing:
    """Return the images of `multilabel.csv` or `multilabel.json`, each with the labels that it has.

    Raises:
        DataError: A line is not valid, or names no image or one twice.
    """
    table = (folder / LABEL_TABLE).is_file()
    names, sets, classes = (_label_table if table else _label_object)(folder)
    paths = _images(folder, LABEL_TABLE if table else LABEL_OBJECT, names)
    truths = [LabelSet(image_header(path)[0], np.array(one, np.int64)) for path, one in zip(paths, sets, strict=True)]
    return paths, truths, classes


def _label_table(folder: Path) -> tuple[list[tuple[str, str]], list[list[int]], list[str]]:
    (_, heading), *rows = table_rows(folder / LABEL_TABLE)
    classes = heading[1:]
    if not rows or not classes or len(set(classes)) < len(classes) or not all(classes) or all(map(is_number, classes)):
        expected = "a heading: file, then every label once; below it 0 or 1 for each label"
        raise DataError(f"{LABEL_TABLE} is not valid", got=", ".join(heading)[:80], expected=expected)
    for where, cells in rows:
        if len(cells) != len(heading) or not set(cells[1:]) <= {"0", "1"}:
            expected = f"a file, and 0 or 1 for each of {len(classes)} labels"
            raise DataError(f"{where} is not valid", got=", ".join(cells)[:80], expected=expected)
    sets = [[at for at, cell in enumerate(cells[1:]) if cell == "1"] for _, cells in rows]
    return [(where, cells[0]) for where, cells in rows], sets, classes


def _label_object(folder: Path) -> tuple[list[tuple[str, str]], list[list[int]], list[str]]:
    content = json_object(folder / LABEL_OBJECT)
    for name, labels in content.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
            got = repr(labels)[:80]
            raise DataError(f"{LABEL_OBJECT} is not valid at {name!r}", got=got, expected="a list of labels")
    classes = sorted({label for labels in content.values() for label in labels})
    if not classes:
        raise DataError(f"{LABEL_OBJECT} is not valid", got="no labels", expected='{"file": ["label", ...]}')
    sets = [sorted({classes.index(label) for label in labels}) for labels in content.values()]
    return [(LABEL_OBJECT, name) for name in content], sets, classes


def read_texts(folder: Path) -> Listing:
    """Return the images of `texts.txt`, each with its text, as `file<TAB>text` lines.

    Raises:
        DataError: A line has no tab or no text, or names no image or one twice.
    """
    rows = _tabbed(folder / TEXTS, 2, "an image's file, a tab, its text")
    paths = _images(folder, TEXTS, [(where, cells[0]) for where, cells in rows])
    return paths, [ImageText(image_header(path)[0], cells[1]) for path, (_, cells) in zip(paths, rows, strict=True)], []


def read_pairs(folder: Path) -> Listing:
    """Return the images that `pairs.txt` names, each with the others that it is compared with.

    Raises:
        DataError: A line is not valid, or names no image.
    """
    partners: dict[str, list[tuple[str, bool]]] = {}
    paths: dict[str, Path] = {}
    for where, (one, two, same) in _tabbed(folder / PAIRS, 3, "two images' files and 1 or 0, with tabs between"):
        if same not in ("0", "1") or one == two:
            got = f"{one}, {two}, {same}"[:200]
            raise DataError(f"{where} is not valid", got=got, expected="two files, and 1 (the same) or 0")
        for name in (one, two):
            paths[name] = paths.get(name) or image_inside(folder, name, where)
            partners.setdefault(name, [])
        partners[one].append((two, same == "1"))
    truths = [Identity(image_header(paths[name])[0], name, -1, tuple(same)) for name, same in partners.items()]
    return [paths[name] for name in partners], truths, []


def _tabbed(path: Path, count: int, expected: str) -> list[tuple[str, list[str]]]:
    rows = []
    for number, line in enumerate(text_of(path).splitlines(), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != count or not all(cells):
            got = repr(line)[:200]
            raise DataError(f"{path.name} line {number} is not valid", got=got, expected=expected)
        rows.append((f"{path.name} line {number}", cells))
    if not rows:
        raise DataError(f"{path} is empty", expected=expected)
    return rows


def _images(folder: Path, file: str, names: Sequence[tuple[str, Any]]) -> list[Path]:
    if not names:
        raise DataError(f"{folder / file} names no images", expected="one line for each image")
    once([name for _, name in names], folder / file)
    return [image_inside(folder, name, where) for where, name in names]
