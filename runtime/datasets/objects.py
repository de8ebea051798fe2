"""Objects of images as annotation files give them, checked: what all formats of boxes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .truths import Instances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .listed_files import Listing

MOST_OBJECTS = 1_000_000  # in one data set; COCO's training images have 860,001
LARGEST = 1e6  # coordinate in pixels


@dataclass(frozen=True)
class AnnotatedParts:
    """The parts of a data set, which are read on demand.

    Attributes:
        folder: The folder that holds the data.
        parts: "train" and "test", or one of them alone: returns the images, their truths and the classes' names.
        kinds: What is known of each image, keys of `truths.KINDS`.
    """

    folder: Path
    parts: Mapping[str, Callable[[], Listing]]
    kinds: frozenset[str] = frozenset({"boxes"})


def instances(
    size: tuple[int, int], boxes: Sequence[Sequence[Any]], labels: Sequence[int], where: str, *,
    crowd: Sequence[bool] = (), areas: Sequence[float] = (), keypoints: NDArray[np.float64] | None = None,
) -> Instances:  # fmt: skip
    """Return the objects of one image.

    Args:
        size: Height and width of the image.
        boxes: x1, y1, x2, y2 in pixels; parts outside the image are cut off.
        labels: The class of each.
        where: The file and the image, for the error.
        crowd: Which boxes hold several objects; none by default.
        areas: Of the objects; of their boxes by default.
        keypoints: (M, K, 3).

    Raises:
        DataError: A box is not four finite numbers, is turned round, or lies outside the image.
    """
    try:
        corners = np.array([[float(edge) for edge in box] for box in boxes], np.float64).reshape(len(boxes), 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{where} has a box that is none", got=str(error)[:100], expected="four numbers") from error
    limit = np.array([size[1], size[0]] * 2, np.float64)
    with np.errstate(invalid="ignore"):
        right = np.isfinite(corners).all(1) & (corners[:, 2:] >= corners[:, :2]).all(1)
        right &= (corners[:, :2] < limit[:2]).all(1) & (corners[:, 2:] > 0).all(1) & (abs(corners) < LARGEST).all(1)
    if not right.all():
        wrong = corners[int(np.flatnonzero(~right)[0])].tolist()
        raise DataError(
            f"{where} has a box that cannot be", got=", ".join(f"{edge:g}" for edge in wrong),
            expected=f"x1, y1, x2, y2 in an image of {size[1]}x{size[0]} pixels",
        )  # fmt: skip
    corners = np.clip(corners, 0, limit)
    own = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    return Instances(
        size, corners, np.array(labels, np.int64).reshape(-1),
        np.array(crowd if len(crowd) else np.zeros(len(corners)), bool),
        np.array(areas, np.float64) if len(areas) else own, keypoints,
    )  # fmt: skip


def require_few(count: int, where: str) -> None:
    """Refuse more objects than fit into memory as one data set.

    Raises:
        DataError: There are more than MOST_OBJECTS.
    """
    if count > MOST_OBJECTS:
        do = "give a part of it: a few thousand images judge a network"
        raise DataError(f"{where} has too many objects", got=str(count), expected=f"at most {MOST_OBJECTS}", do=do)


def inside(folder: Path, name: Any, where: str) -> Path:
    """Return a path that a file names, relative to a folder.

    Raises:
        DataError: It leaves the folder, or is no path.
    """
    path = Path(str(name)) if isinstance(name, str) and name and "\0" not in name else None
    if path is None or path.is_absolute() or ".." in path.parts or "\\" in str(name):
        raise DataError(f"{where} names a file outside its folder", got=repr(name)[:120], expected=f"below {folder}")
    return folder / path
