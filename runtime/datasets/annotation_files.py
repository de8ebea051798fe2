"""Objects in images, from annotation files of any format: which format a source has, and the images of a split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .coco_json import find_coco
from .layouts import pick_split
from .voc_xml import find_voc
from .yolo_folder import find_yolo

if TYPE_CHECKING:
    from .image_folder import Files
    from .objects import AnnotatedParts

FINDERS = (find_yolo, find_coco, find_voc)


def find_annotations(source: Path) -> AnnotatedParts | None:
    """Return the parts of an annotated data set: a folder, FILE.json or data.yaml; None if it is none.

    Raises:
        DataError: It is one that is not valid.
    """
    return next((parts for find in FINDERS if (parts := find(source)) is not None), None)


def load_annotations(data: AnnotatedParts, split: str, calibration: int) -> tuple[Files, list[Any], list[str]]:
    """Return the images of a split, the objects in each, and the names of the classes.

    Where there is only one part, a file belongs to the test split by the SHA-256 of its path, half of them.

    Raises:
        DataError: There are no images, or a file is not valid.
    """
    part = "test" if split in ("test", "hard") else "train"
    whole = part not in data.parts or len(data.parts) == 1
    paths, truths, classes = data.parts[part if part in data.parts else next(iter(data.parts))]()
    files, chosen = pick_split(data.folder, paths, split, calibration, divided=not whole, rotation=False, copies=1)
    return files, [truths[at] for at in chosen], classes
