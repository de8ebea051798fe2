"""A network's output as a picture, and how like another picture it is: for super-resolution and reconstruction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ._base import Score
from ._image_quality import psnr_db, ssim

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..images.geometry import ImagePlacement
    from ._base import DecodeContext

RANGES = ("input", "unit", "signed", "byte")
MOST_DB = 100.0  # of equal pictures, whose PSNR is infinite
CLOSE = 1  # grey levels by which two forms may differ and still be called equal


def is_picture(output: NDArray[Any]) -> bool:
    """Return whether an output is an image of one or three channels: (C, H, W), (H, W, C) or (H, W)."""
    return bool(output.size) and (
        output.ndim == 2 or (output.ndim == 3 and (output.shape[0] in (1, 3) or output.shape[2] in (1, 3)))
    )


def as_picture(output: NDArray[Any], context: DecodeContext) -> NDArray[np.uint8]:
    """Return an output as uint8 (H, W, 3) in RGB.

    The decoder's `range` says what its values are: "input", as the network's input (the preprocessing is undone, the
    default), "unit", 0 to 1, "signed", -1 to 1, or "byte", 0 to 255. Whole numbers are bytes.
    """
    pixels = output[None] if output.ndim == 2 else output
    pixels = pixels if pixels.shape[0] in (1, 3) else pixels.transpose(2, 0, 1)
    if output.dtype.kind in "iu":
        values = pixels.astype(np.float64)
    else:
        scale, shift = _scale(len(pixels), context)
        values = pixels.astype(np.float64) * scale[:, None, None] + shift[:, None, None]
    picture = np.clip(np.rint(values), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if context.preprocess and context.preprocess.channels == "BGR":
        picture = picture[..., ::-1]
    return np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], 3)))


def _scale(channels: int, context: DecodeContext) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    kind, settings = context.decoder.get("range", "input"), context.preprocess
    if kind == "input" and settings:
        mean, std = (np.resize(np.array(values, np.float64), channels) for values in (settings.mean, settings.std))
        return 255 * std, 255 * mean
    factor, shift = {"signed": (127.5, 127.5), "byte": (1.0, 0.0)}.get(kind, (255.0, 0.0))
    return np.full(channels, factor), np.full(channels, shift)


def check_range(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a decoder other than `range`.

    Raises:
        TypeError: A setting is unknown, or the range is none of RANGES.
    """
    if set(settings) - {"range"} or settings.get("range", "input") not in RANGES:
        raise TypeError(f"decoder {dict(settings)}: expected range, one of {', '.join(RANGES)}")


def visible(picture: NDArray[Any], place: ImagePlacement | None) -> NDArray[Any]:
    """Return the part of a picture of the input, at any scale, that shows the image; what was filled is cut off."""
    if place is None:
        return picture
    spans = []
    for axis in (0, 1):
        scale = picture.shape[axis] / place.input[axis]
        ends = max(place.offset[axis], 0), min(place.offset[axis] + place.resized[axis], place.input[axis])
        spans.append(slice(*(round(end * scale) for end in ends)))
    return picture[tuple(spans)]


def alike(batch: Any, reference: Any) -> float | None:
    """Return the share of values of N pictures that differ by at most a grey level; None if their sizes differ."""
    pairs = [(one.astype(np.int64), two) for one, two in zip(batch, reference, strict=True)]
    if not pairs or any(one.shape != two.shape for one, two in pairs):
        return None
    near = sum(int((np.abs(one - two) <= CLOSE).sum()) for one, two in pairs)
    return near / sum(int(one.size) for one, _ in pairs)


def quality(pictures: Sequence[NDArray[Any]], targets: Sequence[NDArray[Any]]) -> Score:
    """Return `psnr_db` and `ssim_ratio`, the means over N pairs of pictures, uint8 (H, W, 3).

    Raises:
        DataError: There are none, or the sizes of a pair differ.
    """
    decibels, ratios = [], []
    for at, (picture, target) in enumerate(zip(pictures, targets, strict=True)):
        if picture.shape != target.shape:
            sizes = ["{1}x{0}".format(*one.shape) for one in (target, picture)]
            raise DataError(f"the target of image {at} has another size than what the network makes", got=sizes[0],
                            expected=sizes[1])  # fmt: skip
        decibels.append(min(psnr_db(picture, target, 255), MOST_DB))
        ratios.append(ssim(picture.transpose(2, 0, 1), target.transpose(2, 0, 1), 255))
    if not decibels:
        raise DataError("PSNR cannot be computed", got="no images")
    values = {"psnr_db": float(np.mean(decibels)), "ssim_ratio": float(np.mean(ratios))}
    return Score({**values, "images_count": float(len(decibels))})
