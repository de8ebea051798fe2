"""Images with a second file each: a mask of classes, the image as it should be, a map of depths.

images/*.jpg + masks/*.png      segment: the class of each pixel, 255 where nobody judges; classes.txt names them
images/*.png + targets/*.png    super_resolve, reconstruct: what the network should make of the image
images/*.jpg + depth/*.npy      depth: float metres, 0 where unknown; or 16-bit PNG in 1/256 metre, as KITTI
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..common.packages import need
from ..errors import DataError
from ..images.preprocess import decoding, read_image
from ..tasks._formulas import IGNORED
from .array_files import read_arrays
from .image_folder import CLASS_FILE, SUFFIXES
from .listed_files import Listing, beside, image_header, text_of
from .truths import Truth

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES, MASKS, TARGETS, DEPTHS = "images", "masks", "targets", "depth"
INDEX_MODES = ("L", "P", "1", "I;16", "I")  # Pillow's, of one number a pixel
CHECKED = 64  # masks whose classes are compared with classes.txt before any work
KITTI_UNITS = 256.0  # of a metre in 16-bit PNG files


@dataclass(frozen=True, eq=False)
class TruthFile(Truth):
    """A file that says what is right for one image; it is read when it is wanted."""

    path: Path

    def raw(self) -> Iterator[bytes]:
        """Yield the file's name and content."""
        yield self.path.name.encode()
        yield self.path.read_bytes()


@dataclass(frozen=True, eq=False)
class Mask(TruthFile):
    """The class of each pixel; `order`, if there is one, has the network's class for each of the data."""

    order: NDArray[np.int64] | None = None

    def relabelled(self, order: NDArray[np.int64]) -> Mask:
        """Return it with class i called `order[i]`."""
        return replace(self, order=order)

    def pixels(self) -> NDArray[np.int64]:
        """Return the class of each pixel, int64 (H, W), or IGNORED; a palette's colours mean nothing.

        Raises:
            DataError: It cannot be read, holds colours, or a class that has no name in classes.txt.
        """
        with decoding(self.path, "mask"), need("PIL.Image").open(self.path) as image:
            classes = np.asarray(image).astype(np.int64)
        if classes.ndim != 2:
            got = f"shape {classes.shape}"
            raise DataError(f"the mask {self.path} holds no classes", got=got, expected="(height, width)")
        if self.order is None:
            return classes
        judged = classes != IGNORED
        if judged.any() and not 0 <= classes[judged].min() <= classes[judged].max() < len(self.order):
            got, expected = f"class {classes[judged].max()}", f"0 to {len(self.order) - 1}, or {IGNORED}: {CLASS_FILE}"
            raise DataError(f"the mask {self.path} has an unknown class", got=got, expected=expected)
        return np.where(judged, self.order[np.where(judged, classes, 0)], IGNORED)


@dataclass(frozen=True, eq=False)
class TargetImage(TruthFile):
    """The image that a network should make of another one."""

    def pixels(self) -> NDArray[np.uint8]:
        """Return it, uint8 (H, W, 3) in RGB.

        Raises:
            DataError: It cannot be read.
        """
        return read_image(self.path)


@dataclass(frozen=True, eq=False)
class DepthMap(TruthFile):
    """The depth of each pixel."""

    def metres(self) -> NDArray[np.float64]:
        """Return it, float64 (H, W), 0 where it is not known.

        Raises:
            DataError: It cannot be read, or is no map.
        """
        if self.path.suffix.lower() == ".png":
            with decoding(self.path, "depth map"), need("PIL.Image").open(self.path) as image:
                values = np.asarray(image).astype(np.float64) / KITTI_UNITS
        else:
            values = np.squeeze(next(iter(read_arrays(self.path).values())))
        if values.ndim != 2 or values.dtype.kind not in "fiu":
            got = f"{values.dtype} {values.shape}"
            raise DataError(f"{self.path} holds no map of depths", got=got, expected="numbers (height, width), metres")
        return values.astype(np.float64)


def read_masks(folder: Path) -> Listing:
    """Return images with their masks.

    Raises:
        DataError: A file has no partner; a mask is no map of numbers, has another size than its image, or (of some
            that are looked into) a class that has no name.
    """
    truths, paths = [], []
    for image, path in beside(folder, IMAGES, MASKS, [".png"]):
        (size, _), (other, mode) = image_header(image), image_header(path)
        if mode not in INDEX_MODES:
            expected = "one number a pixel: a grey or palette PNG, whose values are class indices"
            raise DataError(f"the mask {path} holds no classes", got=f"colours ({mode})", expected=expected)
        if size != other:
            got, expected = ("{1}x{0}".format(*one) for one in (other, size))
            raise DataError(f"the mask {path} has another size than its image", got=got, expected=expected)
        paths.append(image)
        truths.append(Mask(size, path))
    names = folder / CLASS_FILE
    classes = [line.strip() for line in text_of(names).splitlines() if line.strip()] if names.is_file() else []
    for at in np.linspace(0, len(truths) - 1, CHECKED).astype(np.int64).tolist() if classes else ():
        truths[at].relabelled(np.arange(len(classes))).pixels()
    return paths, truths, classes


def _depth_size(path: Path) -> tuple[int, ...]:
    """Return the height and width that a file of depths says it has, without reading its values."""
    if path.suffix.lower() == ".png":
        size, mode = image_header(path)
        if mode not in ("I;16", "I"):
            raise DataError(f"{path} holds no depths", got=f"a PNG of mode {mode}", expected="16 bits, grey; or .npy")
        return size
    try:
        shape = np.lib.format.open_memmap(path, mode="r").shape
    except (OSError, ValueError, EOFError) as error:
        got = " ".join(str(error).split())[:200]
        raise DataError(f"cannot read {path}", got=got, expected="an array as numpy.save writes it") from error
    return shape if len(shape) == 2 else tuple(side for side in shape if side > 1)


def read_targets(folder: Path) -> Listing:
    """Return images with the images that a network should make of them.

    Raises:
        DataError: A file has no partner, or is no image.
    """
    pairs = beside(folder, IMAGES, TARGETS, sorted(SUFFIXES))
    for _, path in pairs:
        image_header(path)
    return [image for image, _ in pairs], [TargetImage(image_header(image)[0], path) for image, path in pairs], []


def read_depths(folder: Path) -> Listing:
    """Return images with their depths.

    Raises:
        DataError: A file has no partner, is no map, or has another size than its image; or a PNG is not of 16 bits.
    """
    pairs = beside(folder, IMAGES, DEPTHS, [".npy", ".png"])
    for image, path in pairs:
        size = _depth_size(path)
        if size != image_header(image)[0]:
            got, expected = ("x".join(map(str, one[::-1])) for one in (size, image_header(image)[0]))
            raise DataError(f"the map of depths {path} has another size than its image", got=got, expected=expected)
    return [image for image, _ in pairs], [DepthMap(image_header(image)[0], path) for image, path in pairs], []
