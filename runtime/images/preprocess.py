"""Preprocessing of images: bring to the input's size (`geometry.py`), scale to [0, 1], normalise.

The input is NCHW or NHWC, of floating point, or uint8 where the graph itself normalises.

Arrays need numpy only; torch's tensors are taken without importing torch. Pillow is used for files, and for its own
ways of resizing where it is installed (same result, faster).
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
from .geometry import placement
from .resize import INTERPOLATIONS, PILLOW, resize
from .settings import FILLED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec
    from .geometry import ImagePlacement
    from .settings import Preprocess

LAYOUTS, DTYPES = ("NCHW", "NHWC"), ("float32", "float16", "uint8")  # of the network's input
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}
ORDERS = ("RGB", "BGR")  # of an array's channels
_LUMA = (19595, 38470, 7471)  # ITU-R 601-2, 16 bits after the point, as Pillow's convert("L")


def apply(images: Iterable[Any], spec: ModelSpec, channels: str = "RGB") -> NDArray[Any]:
    """Return the network's input, C-contiguous: float32 NCHW, or what the spec's `layout` and `dtype` say.

    Args:
        images: uint8 images as numpy arrays or torch tensors: (H, W, 3), (3, H, W), grey (H, W); paths of image files;
            or Pillow images. A batch (N, H, W, 3) or (N, 3, H, W) is N images.
        spec: Whose preprocessing and input shape to apply; uint8 inputs are resized only.
        channels: Order of the colours in arrays and tensors, "RGB" or "BGR" (OpenCV's); files are RGB once decoded.

    Raises:
        DataError: An image cannot be read, is not a uint8 image, or the spec's preprocessing does not match its input.
    """
    return from_pixels((as_image(image, channels) for image in images), spec)


def from_pixels(images: Iterable[NDArray[np.uint8]], spec: ModelSpec) -> NDArray[Any]:
    """Return the network's input from images that `as_image` made: uint8 (H, W, 3) in RGB; see `apply`.

    Raises:
        DataError: The spec's preprocessing does not match its input.
    """
    settings = spec.preprocess
    colours = (CHANNELS.get(settings.channels, 0),)
    shape = (*settings.crop, *colours) if spec.layout == "NHWC" else (*colours, *settings.crop)
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
    prepared = [_prepare(image, spec) for image in images]
    return np.ascontiguousarray(np.stack(prepared)) if prepared else np.zeros((0, *shape), spec.dtype)


def as_array(value: Any) -> Any:
    """Return a torch tensor as a numpy array, on the CPU and without its gradient; anything else as it is.

    Raises:
        DataError: numpy has no such type (bfloat16), or the tensor cannot be read.
    """
    if isinstance(value, np.ndarray) or not (hasattr(value, "detach") and hasattr(value, "numpy")):
        return value
    try:
        tensor = value.detach()
        return np.asarray((tensor.cpu() if hasattr(tensor, "cpu") else tensor).numpy())
    except (TypeError, RuntimeError, ValueError) as error:
        got = " ".join(str(error).split())[:200]
        raise DataError("this tensor cannot be read", got=got, expected="uint8, float32 or float16, dense") from error


def as_image(image: Any, channels: str = "RGB") -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3) in RGB from a path, a Pillow image, or an array or torch tensor.

    Args:
        image: An array is (H, W), (H, W, 1), (H, W, 3), (1, H, W) or (3, H, W), uint8.
        channels: Order of the colours of an array, "RGB" or "BGR".

    Raises:
        DataError: It is none of these, or could be read in two ways: (3, 480, 3).
    """
    if channels not in ORDERS:
        raise DataError("unknown order of the colours", got=repr(channels)[:80], expected=" or ".join(ORDERS))
    if isinstance(image, (str, Path)):
        return read_image(image)
    image = as_array(image)
    if isinstance(image, np.ndarray):
        pixels = _as_hwc(image)
        return pixels[..., ::-1] if channels == "BGR" else pixels
    if hasattr(image, "convert"):
        return _decoded(image)
    expected = "an array, a torch tensor, a path or a Pillow image"
    raise DataError("this is not an image", got=type(image).__name__, expected=expected)


def _as_hwc(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Return (H, W, 3) from an array; the axis of one or three values is that of the colours."""
    last = image.ndim == 3 and image.shape[2] in (1, 3)
    first = image.ndim == 3 and image.shape[0] in (1, 3)
    if image.dtype != np.uint8 or not (image.ndim == 2 or last or first) or 0 in image.shape:
        raise DataError(
            "this array is not an image", got=f"{image.dtype} {image.shape}",
            expected="uint8 (height, width, 3) or (3, height, width), or a float batch for the network's own input",
        )  # fmt: skip
    if last and first:
        raise DataError(
            "this array can be read as an image in two ways", got=f"{image.dtype} {image.shape}",
            expected="(height, width, 3) or (3, height, width), with one axis of 1 or 3",
            do="give a Pillow image, or a larger one",
        )  # fmt: skip
    image = image[..., None] if image.ndim == 2 else image.transpose(1, 2, 0) if first else image
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
    place = placement((image.shape[0], image.shape[1]), settings)
    image = _resized(image, place.resized, settings.interpolation)
    if settings.channels == "BGR":
        image = image[..., ::-1]
    elif settings.channels == "GRAY":
        image = _grey(image)
    last = spec.layout == "NHWC"
    canvas = np.empty((*place.input, image.shape[2]) if last else (image.shape[2], *place.input), spec.dtype)
    pixels = canvas if last else canvas.transpose(1, 2, 0)
    source, window = _overlap(place)
    if pixels[window].shape != pixels.shape:
        pixels[...] = _filling(settings, spec.dtype)[: image.shape[2]]
    image = image[source]
    if spec.dtype == "uint8":
        pixels[window] = image
        return canvas
    table = _table(settings.mean, settings.std)
    for channel in range(image.shape[2]):
        pixels[(*window, channel)] = table[channel][image[..., channel]]
    return canvas


def fitted(image: NDArray[np.uint8], settings: Preprocess) -> NDArray[np.uint8]:
    """Return the part of the input that shows an image, uint8 (H, W, 3) in RGB, or grey, before it is normalised."""
    place = placement((image.shape[0], image.shape[1]), settings)
    part = _resized(image, place.resized, settings.interpolation)[_overlap(place)[0]]
    return np.broadcast_to(_grey(part), part.shape) if settings.channels == "GRAY" else part


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luma of an image (H, W, 3), uint8 (H, W, 1)."""
    luma: NDArray[np.uint8] = ((image @ np.array(_LUMA) + 0x8000) >> 16).astype(np.uint8)[..., None]
    return luma


def _overlap(place: ImagePlacement) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the part of the resized image that the input shows, and the part of the input that shows it."""
    starts = [max(at, 0) for at in place.offset]
    ends = [min(at + side, whole) for at, side, whole in zip(place.offset, place.resized, place.input, strict=True)]
    window = slice(starts[0], ends[0]), slice(starts[1], ends[1])
    top, left = place.offset
    return (slice(starts[0] - top, ends[0] - top), slice(starts[1] - left, ends[1] - left)), window


def _filling(settings: Preprocess, dtype: str) -> NDArray[Any]:
    """Return what stands beside the image for each channel: `fill`, and black beside one too small to be cropped."""
    pixel = np.array(settings.fills if settings.fits in FILLED else (0,) * len(settings.mean), np.float32)
    if dtype == "uint8":
        return np.rint(pixel).astype(np.uint8)
    mean, std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
    return (pixel / np.float32(255) - mean) / std


def _resized(image: NDArray[np.uint8], size: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Resize (H, W, 3), with Pillow where it is installed and the way is its own."""
    if interpolation not in INTERPOLATIONS:
        raise DataError("unknown interpolation", got=repr(interpolation), expected=", ".join(INTERPOLATIONS))
    if size == image.shape[:2]:
        return image
    if interpolation not in PILLOW or importlib.util.find_spec("PIL") is None:
        return resize(image, size, interpolation)
    pillow = need("PIL.Image")
    method = pillow.Resampling[interpolation.upper()]
    return np.asarray(pillow.fromarray(np.ascontiguousarray(image)).resize((size[1], size[0]), method))


@functools.lru_cache(maxsize=16)
def _table(mean: tuple[float, ...], std: tuple[float, ...]) -> NDArray[np.float32]:
    """Return (pixel / 255 - mean) / std for every channel and pixel value, float32 (C, 256)."""
    scaled = np.arange(256, dtype=np.float32) / np.float32(255)
    table: NDArray[np.float32] = (scaled - np.array(mean, np.float32)[:, None]) / np.array(std, np.float32)[:, None]
    return table
