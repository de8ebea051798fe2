"""Preprocessing of images as in torchvision: resize, centre crop, scale to [0, 1], normalise.

The input is NCHW or NHWC, of floating point, or uint8 where the graph itself normalises.

Arrays need numpy only; Pillow is used for files, and for resizing where it is installed (same result, faster).
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.files import unreadable
from ..common.packages import need
from ..errors import DataError
from .resize import INTERPOLATIONS, resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec, Preprocess

LAYOUTS, DTYPES = ("NCHW", "NHWC"), ("float32", "float16", "uint8")  # of the network's input
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
MOST_PIXELS = 1 << 27  # of a resized image, 400 MB: what Pillow opens has at most 89 million
_LUMA = (19595, 38470, 7471)  # ITU-R 601-2, 16 bits after the point, as Pillow's convert("L")


def apply(images: Iterable[Any], spec: ModelSpec) -> NDArray[Any]:
    """Return the network's input, C-contiguous: float32 NCHW, or what the spec's `layout` and `dtype` say.

    Args:
        images: uint8 RGB arrays (H, W, 3) or grey ones (H, W), paths of image files, or Pillow images.
        spec: Whose preprocessing and input shape to apply; uint8 inputs are resized only.

    Raises:
        DataError: An image cannot be read, is not a uint8 image, or the spec's preprocessing does not match its input.
    """
    settings = spec.preprocess
    channels = (CHANNELS.get(settings.channels, 0),)
    shape = (*settings.crop, *channels) if spec.layout == "NHWC" else (*channels, *settings.crop)
    if len(settings.mean) < CHANNELS.get(settings.channels, 0):
        got = f"{len(settings.mean)} means for {settings.channels}"
        raise DataError(f"the preprocessing of {spec.name} has too few means", got=got, expected="one per channel")
    if spec.layout not in LAYOUTS or spec.dtype not in DTYPES or shape != tuple(spec.input_shape):
        raise DataError(
            f"the preprocessing of {spec.name} does not produce its input",
            got=f"{settings.channels} {settings.crop}, {spec.layout} {spec.dtype}",
            expected=f"{tuple(spec.input_shape)}, channels out of {', '.join(CHANNELS)}, "
            f"{' or '.join(LAYOUTS)}, {' or '.join(DTYPES)}",
        )
    prepared = [_prepare(as_image(image), spec) for image in images]
    return np.ascontiguousarray(np.stack(prepared)) if prepared else np.zeros((0, *shape), spec.dtype)


def as_image(image: Any) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3) in RGB from a path, a Pillow image, or an array (H, W), (H, W, 1) or (H, W, 3).

    Raises:
        DataError: It is none of these.
    """
    if isinstance(image, (str, Path)):
        return read_image(image)
    if not isinstance(image, np.ndarray) and hasattr(image, "convert"):
        image = _decoded(image)
    if not isinstance(image, np.ndarray):
        raise DataError("this is not an image", got=type(image).__name__, expected="an array, a path or a Pillow image")
    if image.ndim == 2:
        image = image[..., None]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise DataError(
            "this array is not an image",
            got=f"{image.dtype} {image.shape}",
            expected="uint8 (height, width, 3) in RGB, or a float32 NCHW batch for the network's own input",
        )
    return np.broadcast_to(image, (*image.shape[:2], 3)) if image.shape[2] == 1 else image


def _decoded(image: Any) -> NDArray[np.uint8]:
    """Decode a Pillow image, which may be lazily opened and damaged."""
    try:
        return np.asarray(image.convert("RGB"))
    except Exception as error:
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError("this image cannot be decoded", got=got, expected="a complete image") from error


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to uint8 (H, W, 3) in RGB; the EXIF orientation is not applied, as in torchvision.

    Raises:
        DataError: There is no such file, it is not an image, is damaged, or exceeds Pillow's limit on pixels.
        NotAvailable: Pillow is not installed.
    """
    with decoding(path, "image"), need("PIL.Image").open(path) as image:
        return np.asarray(image.convert("RGB"))


@contextlib.contextmanager
def decoding(path: str | Path, kind: str) -> Iterator[None]:
    """Convert every exception of Pillow to a DataError, including that for too large an image.

    Raises:
        DataError: There is no such file, it is not a regular file, or Pillow cannot decode it.
        NotAvailable: Pillow is not installed.
    """
    pillow = need("PIL.Image")
    if why := unreadable(path):
        raise DataError(f"cannot read {kind} {str(path)[:300]}", got=why, do="check the path")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            yield
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise DataError(f"{kind} {path} is too large", got=str(error), do="scale it down first") from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to: struct.error, KeyError, …
        got = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"cannot read {kind} {path}", got=got, expected="a JPEG, PNG or similar") from error


def _prepare(image: NDArray[np.uint8], spec: ModelSpec) -> NDArray[Any]:
    settings = spec.preprocess
    image = centre_crop(_resized(image, settings), settings.crop)
    if settings.channels == "BGR":
        image = image[..., ::-1]
    elif settings.channels == "GRAY":
        image = ((image @ np.array(_LUMA) + 0x8000) >> 16).astype(np.uint8)[..., None]
    if spec.dtype == "uint8":
        return image if spec.layout == "NHWC" else image.transpose(2, 0, 1)
    table = _table(settings.mean, settings.std)
    values = [table[channel][image[..., channel]] for channel in range(image.shape[2])]
    return np.stack(values, axis=-1 if spec.layout == "NHWC" else 0).astype(spec.dtype, copy=False)


def _resized(image: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
    size = _new_size((image.shape[0], image.shape[1]), settings)
    if settings.interpolation not in INTERPOLATIONS:
        raise DataError("unknown interpolation", got=repr(settings.interpolation), expected=", ".join(INTERPOLATIONS))
    if size == image.shape[:2]:
        return image
    if importlib.util.find_spec("PIL") is None:
        return resize(image, size, settings.interpolation)
    pillow = need("PIL.Image")
    method = pillow.Resampling[settings.interpolation.upper()]
    return np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), method))


def _new_size(size: tuple[int, int], settings: Preprocess) -> tuple[int, int]:
    """Resize the shorter side to `resize`, keep the aspect ratio, truncate to whole pixels; 0 resizes to the crop."""
    if not settings.resize:
        return settings.crop
    short, long = min(size), max(size)
    other = int(settings.resize * long / short)
    if settings.resize * other > MOST_PIXELS:
        got = f"{size[1]}x{size[0]} pixels, {settings.resize} by {other} after resizing"
        raise DataError("the aspect ratio of this image is too large", got=got, do="crop it first")
    return (settings.resize, other) if size[0] <= size[1] else (other, settings.resize)


def centre_crop(image: NDArray[np.uint8], crop: tuple[int, int]) -> NDArray[np.uint8]:
    """Crop (height, width) from the centre of (H, W, C); a smaller image is first padded with black."""
    missing = [max(want - have, 0) for want, have in zip(crop, image.shape, strict=False)]
    if any(missing):
        image = np.pad(image, (*((gap // 2, (gap + 1) // 2) for gap in missing), (0, 0)))
    top, left = (round((have - want) / 2.0) for have, want in zip(image.shape, crop, strict=False))
    return image[top : top + crop[0], left : left + crop[1]]


@functools.lru_cache(maxsize=16)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return (pixel / 255 - mean) / std for every channel and pixel value, float32 (C, 256)."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    table: NDArray[np.float32] = (scaled - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
    return table
