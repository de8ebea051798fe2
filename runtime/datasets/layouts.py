"""Folders with a truth for each image besides its class: which kind, told by their files, and the images of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from . import class_truths, image_pairs, tables
from .image_folder import COPIES, TEST, TRAIN, Files
from .listed_files import Listing
from .sampling import rank_by_hash, stratified

TEST_PERCENT = 50


@dataclass(frozen=True)
class Layout:
    """A way to say what images show.

    Attributes:
        kind: The kind of truth, a key of `truths.KINDS`.
        marks: Files or folders, all of which are in a folder of this layout.
        read: Returns the images, their truths and the names of the classes.
        spatial: The truth is about places in the image, which a rotation would move.
    """

    kind: str
    marks: tuple[str, ...]
    read: Callable[[Path], Listing]
    spatial: bool = False


LAYOUTS = (
    Layout("masks", (image_pairs.IMAGES, image_pairs.MASKS), image_pairs.read_masks, spatial=True),
    Layout("targets", (image_pairs.IMAGES, image_pairs.TARGETS), image_pairs.read_targets, spatial=True),
    Layout("depth", (image_pairs.IMAGES, image_pairs.DEPTHS), image_pairs.read_depths, spatial=True),
    Layout("values", (tables.VALUES,), tables.read_values),
    Layout("label sets", (tables.LABEL_TABLE,), tables.read_label_sets),
    Layout("label sets", (tables.LABEL_OBJECT,), tables.read_label_sets),
    Layout("text", (tables.TEXTS,), tables.read_texts),
    Layout("anomalies", (class_truths.BANK,), class_truths.read_anomalies),
    Layout("identity", (tables.PAIRS,), tables.read_pairs),
)


def find_layout(folder: Path) -> Layout | None:
    """Return the layout of a folder, or of its parts `train` and `val`; None if it has none of these.

    Raises:
        DataError: It has two.
    """
    places = [folder, *(folder / part for part in (*TRAIN, *TEST))]
    able = [one for one in LAYOUTS if any(all((place / mark).exists() for mark in one.marks) for place in places)]
    if len(able) > 1:
        got = " and ".join("/".join(one.marks) for one in able)
        raise DataError(f"{folder} says in two ways what its images show", got=got, do="give each a folder of its own")
    return able[0] if able else None


def load_layout(folder: Path, layout: Layout, split: str, calibration: int) -> tuple[Files, list[Any], list[str]]:
    """Return the images of a split, their truths and the names of the classes.

    Without `train/` and `val/` a file belongs to the test split by the SHA-256 of its path, half of them.

    Raises:
        DataError: There are none, or a truth is not valid.
    """
    wanted = "test" if split in ("test", "hard") else "train"
    part = next((folder / name for name in (TEST if wanted == "test" else TRAIN) if (folder / name).is_dir()), None)
    paths, truths, classes = layout.read(part or folder)
    files, chosen = pick_split(folder, paths, split, calibration, divided=part is not None, rotation=not layout.spatial)
    return files, [truths[at] for at in chosen], classes


def pick_split(
    folder: Path, paths: Sequence[Path], split: str, calibration: int, *, divided: bool, rotation: bool,
    copies: int = COPIES,
) -> tuple[Files, list[int]]:  # fmt: skip
    """Return the files of a split out of these, and their indices.

    Args:
        folder: The folder that holds all files.
        paths: The files of the part, or of all parts.
        split: As for `load`.
        calibration: The number of images that "calibration" draws.
        divided: These are the files of one part; otherwise half of them, by the SHA-256 of their paths, are the test's.
        rotation: The hard split may rotate them.
        copies: Of each file in the hard split.

    Raises:
        DataError: There are none.
    """
    wanted = "test" if split in ("test", "hard") else "train"
    chosen = list(range(len(paths)))
    names = [path.relative_to(folder).as_posix() for path in paths]
    if not divided:
        ranks = [rank_by_hash(name, "test") % 100 < TEST_PERCENT for name in names]
        chosen = [at for at, out in enumerate(ranks) if out == (wanted == "test")]
    if not chosen:
        raise DataError(f"{folder} has no images for the {wanted} split", got=f"{len(paths)} images", do="add more")
    if split == "calibration" and calibration < len(chosen):
        own = [names[at] for at in chosen]
        chosen = [chosen[at] for at in stratified(own, [0] * len(own), calibration, seed="calibration")]
    chosen = chosen * (copies if split == "hard" else 1)
    seeds = tuple(range(len(chosen))) if split == "hard" else ()
    return Files(tuple(paths[at] for at in chosen), seeds, rotation=rotation), chosen
