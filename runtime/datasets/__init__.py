"""Labelled images by source and split: the embedded digits, or a folder. Needs no torch and downloads nothing.

train        for training
calibration  a stratified sample of train for quantisation, 128 images by default
test         held out
hard         four differently corrupted copies of each test image (rotation, occlusion, noise)
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.plugins import did_you_mean
from ..errors import DataError, UsageError
from ..images.preprocess import apply
from . import digits, image_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec

SPLITS = ("train", "calibration", "test", "hard")
CALIBRATION = 128


@dataclass(frozen=True)
class Dataset:
    """Images with their labels.

    `images` is a sequence of uint8 arrays (H, W, 3) in RGB: one array (N, H, W, 3) for the digits, decoded on access
    for files. `labels` is int64 (N,), an index into `classes`.
    """

    name: str
    split: str
    images: image_folder.Images
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over the classes, the labels and every image (files: name and bytes), which identifies the data."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for chunk in image_folder.raw(self.images):
            digest.update(chunk)
        return digest.hexdigest()

    def batches(self, spec: ModelSpec, size: int = 32) -> Iterator[NDArray[np.float32]]:
        """Yield preprocessed batches, NCHW float32, at most `size` images each."""
        for start in range(0, len(self), size):
            yield apply([self.images[at] for at in range(start, min(start + size, len(self)))], spec)

    def head(self, count: int) -> Dataset:
        """Return `count` images, spread evenly over the split so that all classes are included."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).astype(np.int64)
        return replace(self, images=image_folder.pick_images(self.images, chosen.tolist()), labels=self.labels[chosen])


@dataclass(frozen=True)
class Noise(Dataset):
    """Standard normal inputs, float32 (N, *shape), for networks whose inputs are not images: sounds, videos.

    They have no classes, so accuracy is undefined.
    """

    @classmethod
    def draw(cls, spec: ModelSpec, split: str, count: int) -> Noise:
        """Draw `count` inputs; a split always gives the same inputs."""
        rng = np.random.default_rng(SPLITS.index(split))
        values: Any = rng.standard_normal((count, *spec.input_shape), dtype=np.float32)
        return cls("noise", split, values, np.zeros(count, np.int64), ())

    def batches(self, spec: ModelSpec, size: int = 32) -> Iterator[NDArray[np.float32]]:
        """Yield the inputs unchanged, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield np.asarray(self.images[start : start + size], np.float32)


def held_back(source: str | Path, data: Dataset, wanted: int) -> str:
    """Return why a calibration split has fewer images than requested; an empty string if it has enough."""
    if len(data) >= wanted:
        return ""
    start = f"{len(data)} calibration images, {wanted} requested: "
    try:
        test = len(load(source, "test"))
    except DataError:
        return f"{start}the data has no more"
    return f"{start}of all {len(load(source, 'train')) + test}, {test} are held out to evaluate the result"


def load(source: str | Path, split: str, *, calibration: int = CALIBRATION) -> Dataset:
    """Load one split.

    Args:
        source: "digits", or a folder: `DIR/class/*.jpg`, the same below `DIR/train` and `DIR/val`, or images with a
            label file (see docs/data.md).
        split: "train", "calibration", "test" or "hard".
        calibration: Number of images that "calibration" draws from "train".

    Raises:
        UsageError: No such split or source.
        DataError: The folder has no images, an empty class, or a label file that is not valid.
    """
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", expected=", ".join(SPLITS), do=did_you_mean(split, SPLITS))
    if str(source) == "digits":
        return Dataset("digits", split, *digits.load_digits(split, calibration), digits.CLASSES)
    folder = Path(source)
    if not folder.is_dir():
        raise UsageError(f"unknown data {str(source)!r}", expected="digits, or a folder of images", do="check the path")
    files, labels, classes = image_folder.load_folder(folder, split, calibration)
    return Dataset(folder.name, split, files, labels, classes)
