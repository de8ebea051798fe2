"""Files that a table or a second folder names: each is there, inside the folder, and has what belongs to it."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.packages import need
from ..errors import DataError
from ..images.preprocess import decoding
from .image_folder import SUFFIXES

Listing = tuple[list[Path], list[Any], list[str]]  # images, their truths, names of the classes


def text_of(path: Path) -> str:
    """Return a text file's content.

    Raises:
        DataError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", got=str(error), expected="UTF-8 text") from error


def image_inside(folder: Path, name: str, where: str) -> Path:
    """Return the image file that a table names.

    Args:
        folder: The table's folder.
        name: As it stands in the table, relative to the folder.
        where: The table and the line, for the error.

    Raises:
        DataError: There is no such file, or it is outside the folder.
    """
    path = folder / name
    try:
        inside = bool(name) and path.is_file() and folder.resolve() in path.resolve().parents
    except (OSError, ValueError):
        inside = False
    if not inside:
        raise DataError(f"{where} names no image", got=repr(name)[:200], expected=f"an image file below {folder}")
    return path


def image_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return the height and width of an image file, and Pillow's name of its mode; its pixels are not decoded.

    Raises:
        DataError: It is no image, or exceeds Pillow's limit on pixels.
        NotAvailable: Pillow is not installed.
    """
    status = path.stat()
    return _image_header(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1 << 17)
def _image_header(path: Path, time_ns: int, size: int) -> tuple[tuple[int, int], str]:
    """Read the header once as long as the file stays as it is: each split asks for it."""
    with decoding(path, "image"), need("PIL.Image").open(path) as image:
        return (image.height, image.width), image.mode


def table_rows(path: Path) -> list[tuple[str, list[str]]]:
    """Return the rows of a CSV file that are not empty, each with its place as text ("values.csv line 3").

    Raises:
        DataError: The file cannot be read, or is no CSV.
    """
    try:
        rows = [
            (f"{path.name} line {number}", [cell.strip() for cell in row])
            for number, row in enumerate(csv.reader(text_of(path).splitlines(), strict=True), 1)
            if any(cell.strip() for cell in row)
        ]
    except csv.Error as error:
        raise DataError(f"cannot read {path}", got=str(error), expected="comma-separated values") from error
    if not rows:
        raise DataError(f"{path} is empty", expected="one line for each image")
    return rows


def once(names: Sequence[str], file: Path) -> None:
    """Refuse a table that names an image twice.

    Raises:
        DataError: It does.
    """
    if twice := next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None:
        raise DataError(f"{file.name} names an image twice", got=twice, expected="one line for each image")


def beside(folder: Path, images: str, others: str, suffixes: Sequence[str]) -> list[tuple[Path, Path]]:
    """Return each image below `folder/images` with the file of the same stem below `folder/others`, sorted.

    Args:
        folder: The folder that holds both.
        images: Name of the images' folder.
        others: Name of the other one.
        suffixes: What files of the other folder may end in.

    Raises:
        DataError: An image has no such file or two, or a file has no image.
    """
    pictures = _by_stem(folder / images, tuple(SUFFIXES))
    partners = _by_stem(folder / others, tuple(suffixes))
    for one, two, kind in ((pictures, partners, others), (partners, pictures, images)):
        if alone := next((path for stem, path in one.items() if stem not in two), None):
            expected = f"a file of the same name in {folder / kind}"
            raise DataError(f"{alone} has no partner", got=f"{len(pictures)} files in {images}, {len(partners)} in "
                            f"{others}", expected=expected)  # fmt: skip
    if not pictures:
        raise DataError(f"{folder / images} contains no images", expected=f"images, and files in {folder / others}")
    return [(pictures[stem], partners[stem]) for stem in sorted(pictures)]


def _by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            if stem in files:
                raise DataError("two files have one name", got=f"{files[stem].name}, {path.name} in {folder}")
            files[stem] = path
    return files


def json_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises:
        DataError: It cannot be read, is no JSON, or holds something else.
    """
    try:
        content = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        got = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read {path}", got=got, expected="JSON") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} holds no table", got=type(content).__name__, expected="an object: file -> labels")
    return content


def is_number(cell: str) -> bool:
    """Return whether a cell is a number, finite or not."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def numbers(cells: Sequence[str], where: str) -> tuple[float, ...]:
    """Return cells as finite numbers.

    Raises:
        DataError: One is none.
    """
    if not cells or not all(is_number(cell) and math.isfinite(float(cell)) for cell in cells):
        got = repr(", ".join(cells))[:80]
        raise DataError(f"{where} is not valid", got=got, expected="the image's file, then numbers")
    return tuple(map(float, cells))
