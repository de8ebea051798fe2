"""Where an image lies in a network's input, and the way back: points, boxes and masks of the input in the image.

Points are (x, y) in pixels, (0, 0) the upper left corner of the upper left pixel, so (0.5, 0.5) is its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .settings import FILLED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .settings import Preprocess

MOST_PIXELS = 1 << 27  # of a resized image, 400 MB: what Pillow opens has at most 89 million
Size = tuple[int, int]


@dataclass(frozen=True)
class ImagePlacement:
    """Where an image lies in a network's input; sizes are (height, width) in pixels.

    Attributes:
        image: Size of the image.
        resized: Its size after resizing.
        offset: Row and column of the resized image's upper left corner in the input; negative where it is cropped.
        input: Size of the network's input.
    """

    image: Size
    resized: Size
    offset: Size
    input: Size

    def points_to_input(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points (..., 2) of the image as points of the network's input, float64."""
        return _points(points, 2) * self._scale + self._corner

    def points_to_image(self, points: NDArray[Any]) -> NDArray[np.float64]:
        """Return points (..., 2) of the network's input as points of the image, float64; some may lie outside.

        Raises:
            DataError: The last axis does not have two numbers.
        """
        return (_points(points, 2) - self._corner) / self._scale

    def boxes_to_input(self, boxes: NDArray[Any]) -> NDArray[np.float64]:
        """Return boxes (..., 4), x1, y1, x2, y2, of the image as boxes of the network's input, float64."""
        corners = _points(boxes, 4).reshape(*np.shape(boxes)[:-1], 2, 2)
        return self.points_to_input(corners).reshape(np.shape(boxes))

    def boxes_to_image(self, boxes: NDArray[Any], *, clip: bool = False) -> NDArray[np.float64]:
        """Return boxes (..., 4), x1, y1, x2, y2, of the network's input as boxes of the image, float64.

        Args:
            boxes: In pixels of the network's input; of shares multiply by its width and height first.
            clip: Move corners outside the image to its edge.

        Raises:
            DataError: The last axis does not have four numbers.
        """
        corners = _points(boxes, 4).reshape(*np.shape(boxes)[:-1], 2, 2)
        corners = self.points_to_image(corners)
        if clip:
            corners = np.clip(corners, 0, self.image[::-1])
        return corners.reshape(np.shape(boxes))

    def mask_to_image(self, mask: NDArray[Any], outside: Any = 0) -> NDArray[Any]:
        """Return a mask of the network's input at the image's size: each pixel has the value where its centre lies.

        Args:
            mask: (..., height, width), of any type: classes, scores. It covers the input, but may be coarser.
            outside: The value of the image's pixels that the network did not see, because they were cropped.

        Returns:
            (..., height, width) of the image, of the mask's type.

        Raises:
            DataError: It has no height and width.
        """
        mask = np.asarray(mask)
        if mask.ndim < 2 or 0 in mask.shape:
            raise DataError("this is no mask", got=str(mask.shape), expected="(..., height, width)")
        index, inside = [], []
        for axis in (0, 1):
            centre = np.arange(self.image[axis]) + 0.5
            at = centre * (self.resized[axis] / self.image[axis]) + self.offset[axis]
            cell = np.floor(at * (mask.shape[axis - 2] / self.input[axis])).astype(np.int64)
            inside.append((at >= 0) & (at < self.input[axis]))
            index.append(np.clip(cell, 0, mask.shape[axis - 2] - 1))
        result = mask[..., index[0][:, None], index[1]]
        result[..., ~(inside[0][:, None] & inside[1])] = outside
        return result

    @property
    def _scale(self) -> NDArray[np.float64]:
        return np.array(self.resized[::-1], np.float64) / self.image[::-1]

    @property
    def _corner(self) -> NDArray[np.float64]:
        return np.array(self.offset[::-1], np.float64)


def placement(size: Size, settings: Preprocess) -> ImagePlacement:
    """Return where an image of a size, (height, width), lies in the input that a preprocessing makes.

    Raises:
        DataError: The size is empty, the fit is unknown, or the image is so narrow that resizing makes it too large.
    """
    height, width = size
    if height < 1 or width < 1:
        raise DataError("this image has no pixels", got=f"{width}x{height}")
    fit, crop = settings.fits, (settings.crop[0], settings.crop[1])
    if fit == "stretch":
        return ImagePlacement((height, width), crop, (0, 0), crop)
    if fit == "crop" and settings.resize:
        resized = _shorter_side(size, settings.resize)
        offset = (_cropped(resized[0], crop[0]), _cropped(resized[1], crop[1]))
        return ImagePlacement((height, width), resized, offset, crop)
    if fit not in FILLED:
        got = f"fit {settings.fit!r}, resize {settings.resize}"
        raise DataError("the image cannot be brought to the input's size", got=got, expected="a fit of `Preprocess`")
    ratio = min(crop[0] / height, crop[1] / width)
    ratio = ratio if settings.enlarge else min(ratio, 1.0)
    resized = (max(round(height * ratio), 1), max(round(width * ratio), 1))
    if fit == "pad":
        return ImagePlacement((height, width), resized, (0, 0), crop)
    # As Ultralytics rounds: of an odd rest, the larger half stands below and on the right.
    top, left = (round((whole - part) / 2 - 0.1) for whole, part in zip(crop, resized, strict=True))
    return ImagePlacement((height, width), resized, (top, left), crop)


def _shorter_side(size: Size, side: int) -> Size:
    """Return the size whose shorter side is `side`, the ratio kept, truncated to whole pixels, as in torchvision."""
    short, long = min(size), max(size)
    other = int(side * long / short)
    if side * other > MOST_PIXELS:
        got = f"{size[1]}x{size[0]} pixels, {side} by {other} after resizing"
        raise DataError("the aspect ratio of this image is too large", got=got, do="crop it first")
    return (side, other) if size[0] <= size[1] else (other, side)


def _cropped(whole: int, part: int) -> int:
    """Return where the resized image begins in a crop from its centre; a smaller one is padded on all sides."""
    return (part - whole) // 2 if whole < part else -round((whole - part) / 2.0)


def _points(values: NDArray[Any], count: int) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    if not values.ndim or values.shape[-1] != count:
        expected = f"(..., {count}) in pixels"
        raise DataError(
            "these are no " + ("points" if count == 2 else "boxes"), got=str(values.shape), expected=expected
        )
    return values
