"""Look at calibration images before anything is computed: refuse what cannot be right, and warn of what may not be.

Refused    too few, too few different ones, noise, values that the model's own preprocessing cannot give
Warned of  copies, images of one colour, a narrow range of values, classes without images, one class in most of them
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.errors import DataError
from ...runtime.spec import ModelSpec, Preprocess
from .samples import Samples

MIN_IMAGES = 32
NARROW = 0.25
WORDNET = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Inspection:
    """What was found: images, their digest (SHA-256 of the preprocessed values, in order) and warnings."""

    images: int
    digest: str
    warnings: tuple[str, ...]


@dataclass
class _Seen:
    """Running counts over the images, (N, C, ...)."""

    images: int = 0
    even: int = 0
    low: np.ndarray | float = np.inf
    high: np.ndarray | float = -np.inf

    @property
    def width(self) -> int:
        """How many channels the images have."""
        return int(np.size(self.low))

    def add(self, batch: np.ndarray, count: int) -> None:
        inside = tuple(range(2, batch.ndim))
        low, high = batch.min(axis=inside), batch.max(axis=inside)
        self.images += count
        self.even += min(count, int((low.min(axis=1) == high.max(axis=1)).sum()))
        self.low, self.high = np.minimum(self.low, low.min(axis=0)), np.maximum(self.high, high.max(axis=0))


def inspect(
    samples: Samples, spec: ModelSpec | None, min_images: int = MIN_IMAGES, allow_random: bool = False
) -> Inspection:
    """Walk over the images once.

    Args:
        samples: Preprocessed images, or whatever the graph takes; its main input is looked at.
        spec: What the model says of its preprocessing, where it does.
        min_images: The fewest that are accepted.
        allow_random: Accept noise, and values of any size.

    Raises:
        DataError: With what to do.
    """
    seen, different, digest = _Seen(), set[bytes](), hashlib.sha256()
    for number, batch in enumerate(samples):
        images = samples.layout.images(batch)
        if number == 0 and not allow_random:
            _refuse_noise(images)
        seen.add(images, samples.layout.length(batch))
        each = [hashlib.blake2b(own, digest_size=16).digest() for own in samples.layout.own_bytes(batch)]
        different |= set(each)
        digest.update(b"".join(each))
    _refuse_few(seen, len(different), min_images)
    if spec is not None and (samples.layout.main.dtype != "float32" or spec.input_shape[_channel(spec)] != seen.width):
        spec = None  # its preprocessing is of another tensor: a camera's bytes, features
    if spec is not None and not allow_random:
        _refuse_values(seen, spec)
    return Inspection(seen.images, digest.hexdigest(), tuple(_warnings(seen, len(different), spec)))


def _channel(spec: ModelSpec) -> int:
    """Return where the number of channels stands in the input's shape without the batch."""
    return -1 if spec.layout == "NHWC" else 0


def _refuse_few(seen: _Seen, different: int, min_images: int) -> None:
    enough = f"at least {min_images}"
    if seen.images < min_images:
        do = "give more images (128 to 512 is usual)"
        raise DataError("too few calibration images", got=str(seen.images), expected=enough, do=do)
    if different - (seen.even > 0) < min_images:
        got = f"{different} among {seen.images}, {seen.even} of {seen.images} of one colour"
        raise DataError("too few different calibration images", got=got, expected=enough, do="give different images")


def _refuse_noise(batch: np.ndarray) -> None:
    if _looks_random(batch):
        raise DataError(
            "the calibration images look like random noise",
            expected="real images: neighbouring pixels alike",
            do="give real images, or allow random data (`--allow-random`)",
        )


def _looks_random(batch: np.ndarray) -> bool:
    """Say whether neighbouring pixels are uncorrelated (|r| < 0.1), as they never are in photographs or digits."""
    if batch.ndim != 4 or batch.shape[-1] < 8:
        return False
    one, two = batch[..., :-1].ravel().astype(np.float64), batch[..., 1:].ravel().astype(np.float64)
    if one.std() == 0 or two.std() == 0:
        return False
    return bool(abs(np.corrcoef(one, two)[0, 1]) < 0.1)


def bounds(settings: Preprocess, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the smallest and the largest value that each channel can have after preprocessing, (C,)."""
    mean, std = (np.resize(np.asarray(value, np.float64), channels) for value in (settings.mean, settings.std))
    return (0 - mean) / std, (1 - mean) / std


def _refuse_values(seen: _Seen, spec: ModelSpec) -> None:
    """Refuse values that preprocessing cannot give: another scale, another mean, no normalisation."""
    low, high = bounds(spec.preprocess, spec.input_shape[_channel(spec)])
    slack = 0.02 * (high - low)
    raw = bool(low.max() < -0.1) and np.min(seen.low) > -1e-3
    if raw or (seen.low < low - slack).any() or (seen.high > high + slack).any():
        raise DataError(
            f"the calibration images are not preprocessed as {spec.name} wants them",
            got=f"values from {np.min(seen.low):.2f} to {np.max(seen.high):.2f}",
            expected=f"values from {low.min():.2f} to {high.max():.2f}, (pixel / 255 - mean) / std",
            do="use edgesmith.runtime.images.preprocess.apply with the model's own spec",
        )


def _warnings(seen: _Seen, different: int, spec: ModelSpec | None) -> list[str]:
    problems = []
    if different < seen.images:
        problems.append(f"{seen.images - different} of {seen.images} images are copies of others")
    if seen.even:
        problems.append(f"{seen.even} of {seen.images} images are of one colour")
    if spec is not None:
        low, high = bounds(spec.preprocess, spec.input_shape[_channel(spec)])
        share = float(np.max(seen.high) - np.min(seen.low)) / float(high.max() - low.min())
        if share < NARROW:
            problems.append(f"the images use {100 * share:.0f} % of the range of values: dark, flat or badly scaled")
    return problems


def class_warnings(labels: np.ndarray, classes: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Return what is wrong with the mix of classes.

    Args:
        labels: The class of each image, indices into `classes`.
        classes: The data's classes.
        expected: The model's labels; empty where it has none.

    Raises:
        DataError: None of the data's classes is one of the model's.
    """
    counts = np.bincount(labels, minlength=len(classes))
    have = {name for name, count in zip(classes, counts.tolist(), strict=True) if count}
    if expected and all(WORDNET.fullmatch(name) for name in have):
        return []  # ImageNet's folders: the classes' numbers in WordNet, whatever the model calls them
    if expected and not have & set(expected):
        raise DataError(
            "the calibration images show none of the model's classes",
            got=", ".join(sorted(have)[:5]),
            expected=", ".join(list(expected)[:5]),
            do="give the data that the network was trained for",
        )
    missing = [name for name in (expected or classes) if name not in have]
    problems = []
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        problems.append(f"no calibration image of class {', '.join(missing[:5])}{more}")
    if len(classes) > 2 and counts.max() > 0.5 * counts.sum():
        problems.append(
            f"{int(counts.max())} of {int(counts.sum())} images are of class {classes[int(counts.argmax())]}"
        )
    return problems
