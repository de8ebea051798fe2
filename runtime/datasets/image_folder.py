"""A folder of images as a data set: by class folder, with a label file, or without labels. Decoded on access."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union, overload

import numpy as np

from ..errors import DataError
from ..images.preprocess import read_image
from .corruptions import perturb
from .sampling import rank_by_hash, stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

Images = Union[Sequence["NDArray[np.uint8]"], "NDArray[np.uint8]"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
LABEL_FILES = ("labels.txt", "labels.csv", "val.txt", "val_map.txt")
CLASS_FILE = "classes.txt"
TRAIN, TEST = ("train",), ("val", "test", "validation")
TEST_PERCENT, TEST_PERCENT_LABELLED = 20, 80
COPIES = 4


@dataclass(frozen=True)
class Files(Sequence["NDArray[np.uint8]"]):
    """Image files, which are decoded on access, and corrupted if they have a seed; rotated too if they may be."""

    paths: tuple[Path, ...]
    seeds: tuple[int, ...] = ()
    rotation: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, at: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, at: slice) -> Files: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.uint8] | Files:
        """Decode one image, uint8 (H, W, 3) in RGB, or return a slice of the files."""
        if isinstance(at, slice):
            return replace(self, paths=self.paths[at], seeds=self.seeds[at])
        image = read_image(self.paths[at])
        return perturb(image, self.seeds[at], self.rotation) if self.seeds else image


def raw(images: Images) -> Iterator[bytes]:
    """Yield the identity of the images: each file's name, bytes and seed, or each array's shape and bytes."""
    if not isinstance(images, Files):
        yield from (str(np.shape(image)).encode() + np.ascontiguousarray(image).tobytes() for image in images)
        return
    for at, path in enumerate(images.paths):
        yield f"{path.name}:{images.seeds[at] if images.seeds else ''}".encode()
        yield path.read_bytes()


def pick_images(images: Images, chosen: list[int]) -> Images:
    """Return the images at these indices, without decoding any."""
    if isinstance(images, Files):
        seeds = tuple(images.seeds[at] for at in chosen) if images.seeds else ()
        return replace(images, paths=tuple(images.paths[at] for at in chosen), seeds=seeds)
    if isinstance(images, np.ndarray):
        return images[chosen]
    return [images[at] for at in chosen]


def load_folder(folder: Path, split: str, calibration: int) -> tuple[Files, NDArray[np.int64], tuple[str, ...]]:
    """Return the files, the labels, int64 (N,), and the class names of a split; see `datasets.load`.

    Without `train/` and `val/` a file belongs to the test split by the SHA-256 of its path: 20 % of class folders, 80 %
    of labelled images, which are usually somebody's validation set, and 20 % of images without labels. These have no
    class names, and zeros as labels.

    Raises:
        DataError: No images, an empty class, or a label file that is not valid.
    """
    wanted = "test" if split in ("test", "hard") else "train"
    part = next((folder / name for name in (TEST if wanted == "test" else TRAIN) if (folder / name).is_dir()), None)
    paths, labels, classes, labelled = _listed(part or folder)
    if part is None:
        percent = TEST_PERCENT_LABELLED if labelled else TEST_PERCENT
        held_out = [rank_by_hash(str(path.relative_to(folder)), "test") % 100 < percent for path in paths]
        kept = [at for at, out in enumerate(held_out) if out == (wanted == "test")]
    else:
        kept = list(range(len(paths)))
    if not kept:
        raise DataError(f"{folder} has no images for the {wanted} split", got=f"{len(paths)} images", do="add more")
    paths, labels = [paths[at] for at in kept], [labels[at] for at in kept]
    if split == "calibration":
        names = [str(path.relative_to(folder)) for path in paths]
        places = stratified(names, labels, min(calibration, len(paths)), seed="calibration")
        paths, labels = [paths[at] for at in places], [labels[at] for at in places]
    copies = COPIES if split == "hard" else 1
    seeds = tuple(range(copies * len(paths))) if split == "hard" else ()
    return Files(tuple(paths) * copies, seeds), np.array(labels * copies, dtype=np.int64), tuple(classes)


def _listed(folder: Path) -> tuple[list[Path], list[int], list[str], bool]:
    label_file = next((folder / name for name in LABEL_FILES if (folder / name).is_file()), None)
    if label_file:
        return *_labelled(folder, label_file), True
    if not any(path.is_dir() and path.name[0] not in "._" for path in folder.iterdir()) and (files := _images(folder)):
        return files, [0] * len(files), [], False
    return *images_by_class(folder), False


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def images_by_class(folder: Path) -> tuple[list[Path], list[int], list[str]]:
    """Return the images of class folders, the class of each, and the classes' names.

    Raises:
        DataError: There are none, or a class is empty.
    """
    reserved = {*TRAIN, *TEST}
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")
    if not classes or set(classes) <= reserved:
        missing = f"only {', '.join(classes)}" if classes else "no images, no folders and no label file"
        raise DataError(
            f"{folder} contains no images",
            got=missing,
            expected="images; or one folder of images per class (also below train/ and val/); or images and labels.txt",
        )
    paths, labels, empty = [], [], []
    for index, name in enumerate(classes):
        files = _images(folder / name)
        empty += [] if files else [repr(name)]
        paths += files
        labels += [index] * len(files)
    if empty:
        what = f"the class {empty[0]} in {folder} is" if len(empty) == 1 else f"{', '.join(empty)} in {folder} are"
        raise DataError(f"{what} empty", got="no image files that can be read", do="add images or remove the folder")
    return paths, labels, classes


def _labelled(folder: Path, file: Path) -> tuple[list[Path], list[int], list[str]]:
    """Read `name label` lines (blank or comma between); a label is a class index, or a name in classes.txt."""
    class_file = folder / CLASS_FILE
    classes = _lines(class_file) if class_file.is_file() else []
    paths, words = [], []
    for number, line in enumerate(_lines(file), 1):
        parts = re.split(r"[,\s]+", line)
        path = folder / parts[0]
        if len(parts) != 2 or not path.is_file() or folder.resolve() not in path.resolve().parents:
            raise DataError(
                f"{file.name} line {number} is not valid",
                got=repr(line),
                expected="the name of an image file and its label",
            )
        paths.append(path)
        words.append(parts[1])
    if not paths:
        raise DataError(f"{file} is empty", expected="one `image label` a line")
    if not classes:
        numeric = all(word.isascii() and word.isdigit() for word in words)
        classes = [str(at) for at in range(max(map(int, words)) + 1)] if numeric else sorted(set(words))
    return paths, [_index(word, classes, file) for word in words], classes


def _index(word: str, classes: list[str], file: Path) -> int:
    if word in classes:
        return classes.index(word)
    if word.isascii() and word.isdigit() and int(word) < len(classes):
        return int(word)
    raise DataError(f"{file.name} has an unknown label", got=word, expected=f"one of {len(classes)} classes")


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", got=str(error), expected="lines of UTF-8 text") from error
