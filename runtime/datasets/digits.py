"""The embedded digits: 1797 handwritten digits, split and upsampled identically on every machine.

All arithmetic is on integers and every random choice uses SHA-256 or the raw PCG64 stream, so the arrays are bit-exact
with every NumPy version. Source and licence: data/README.md.
"""

from __future__ import annotations

import functools
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .corruptions import perturb
from .sampling import stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILE = Path(__file__).parent / "data" / "digits.npz"
CLASSES = tuple("0123456789")
SIDE, UPSAMPLED, DARKEST = 8, 64, 16
TEST, COPIES = 360, 4


@functools.lru_cache(maxsize=1)
def originals() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 (1797, 8, 8) with values 0 to 16, and their labels, int64 (1797,).

    Raises:
        DataError: The file that comes with the package is missing or damaged.
    """
    try:
        with np.load(FILE, allow_pickle=False) as archive:
            images, labels = archive["images"], archive["labels"].astype(np.int64)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("the embedded digits cannot be read", got=str(error), do="install edgesmith again") from error
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


def upsample(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge digits eight times, bilinear with half-pixel centres, white on black: (N, 8, 8) to (N, 64, 64, 3)."""
    factor = UPSAMPLED // SIDE
    position = 2 * np.arange(UPSAMPLED) + 1 - factor  # in 1/(2 * factor) of a source pixel
    low, weight = position // (2 * factor), position % (2 * factor)
    first, second = np.clip(low, 0, SIDE - 1), np.clip(low + 1, 0, SIDE - 1)
    wide = images.astype(np.int64)
    wide = wide[:, :, first] * (2 * factor - weight) + wide[:, :, second] * weight
    weight = weight[:, None]
    tall = wide[:, first] * (2 * factor - weight) + wide[:, second] * weight
    scale = DARKEST * (2 * factor) ** 2
    grey = ((tall * 255 * 2 + scale) // (2 * scale)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


@functools.lru_cache(maxsize=1)
def parts() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the 1437 training and 360 test images: stratified, identical on every machine."""
    labels = originals()[1]
    test = stratified([str(index) for index in range(len(labels))], labels.tolist(), TEST, seed="digits test")
    return tuple(sorted(set(range(len(labels))) - set(test))), tuple(test)


@functools.lru_cache(maxsize=8)
def load_digits(split: str, calibration: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 (N, 64, 64, 3), and labels, int64 (N,), of a split; read-only and cached.

    `hard` is four differently corrupted copies of the test images: see `corruptions.perturb`.
    """
    images, labels = originals()
    train, test = parts()
    chosen: tuple[int, ...] = {"train": train, "calibration": train, "test": test, "hard": test * COPIES}[split]
    if split == "calibration":
        ids = [str(index) for index in train]
        places = stratified(ids, labels[list(train)].tolist(), calibration, seed="digits calibration")
        chosen = tuple(train[at] for at in places)
    big = upsample(images[list(chosen)])
    if split == "hard":
        big = np.repeat(np.stack([perturb(image[..., :1], seed) for seed, image in enumerate(big)]), 3, axis=3)
    truth = labels[list(chosen)]
    big.flags.writeable = truth.flags.writeable = False
    return big, truth
