"""Truths that follow from class folders, and from the images themselves.

DIR/<class>/*         embed: images of one class are alike (recall@1)
DIR/good/*, DIR/<fault>/*, DIR/bank.npy
                      anomaly: what is not `good` is anomalous; the bank has the vectors of normal images
any images            reconstruct: what a network should give back
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from ..images.preprocess import fitted
from .array_files import read_arrays
from .image_folder import COPIES, Files, Images, images_by_class
from .listed_files import Listing, image_header
from .tables import Identity
from .truths import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..images.settings import Preprocess

BANK, NORMAL = "bank.npy", "good"


@dataclass(frozen=True, eq=False)
class AnomalyTruth(Truth):
    """Whether an image is anomalous, and the file of the bank that it is compared with."""

    anomalous: bool
    path: Path

    def bank(self) -> NDArray[np.float32]:
        """Return the vectors of normal images, (M, numbers).

        Raises:
            DataError: The file cannot be read.
        """
        bank: NDArray[np.float32] = next(iter(read_arrays(self.path).values()))
        return bank


@dataclass(frozen=True)
class OwnImage:
    """An image as its own truth: image `at` of some, as a preprocessing brings it to the network's input."""

    images: Images
    at: int
    settings: Preprocess

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image."""
        height, width = self.images[self.at].shape[:2]
        return height, width

    def pixels(self) -> NDArray[np.uint8]:
        """Return what the network sees of it, uint8 (H, W, 3): the part of the input that shows it, not normalised."""
        return fitted(self.images[self.at], self.settings)


def identities(images: Images, labels: Sequence[int], split: str) -> tuple[Identity, ...]:
    """Return who each image shows, by its class; copies of an image have one name.

    Args:
        images: Files, or arrays; of the hard split each stands COPIES times, one round after the other.
        labels: The class of each.
        split: Of the data.
    """
    if isinstance(images, Files):
        names = [str(path) for path in images.paths]
    else:
        count = len(labels) // (COPIES if split == "hard" else 1)
        names = [str(at % max(count, 1)) for at in range(len(labels))]
    return tuple(Identity((0, 0), name, int(label)) for name, label in zip(names, labels, strict=True))


def read_anomalies(folder: Path) -> Listing:
    """Return the images of class folders, each with whether it is anomalous; the bank stands here or one folder up.

    Raises:
        DataError: There is no bank or it is no matrix of numbers, or no folder `good`.
    """
    bank = next((place / BANK for place in (folder, folder.parent) if (place / BANK).is_file()), folder / BANK)
    vectors = next(iter(read_arrays(bank).values()))
    if vectors.ndim != 2 or vectors.dtype.kind != "f":
        got = f"{vectors.dtype} {vectors.shape}"
        raise DataError(f"{bank} is no bank", got=got, expected="float (M, numbers): the vectors of M normal images")
    paths, labels, classes = images_by_class(folder)
    if NORMAL not in classes:
        got, expected = ", ".join(classes)[:80], f"a folder {NORMAL!r} with the normal images"
        raise DataError(f"{folder} says of no image that it is normal", got=got, expected=expected)
    return paths, [AnomalyTruth(image_header(path)[0], classes[label] != NORMAL, bank)
                   for path, label in zip(paths, labels, strict=True)], []  # fmt: skip
