"""Calibration images as a stream: any number of images in the memory of one batch, read as often as needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import DataError
from .inputs import Batch, InputLayout

# Images computed at once where the model leaves it free: activations of so many pixels stay in the caches. Of images of
# 224x224 one at a time is a quarter faster than four, of 64x64 sixteen are a third faster than one.
BATCH, PIXELS = 16, 1 << 16


def at_once(shape: tuple[int, ...]) -> int:
    """Return how many images (N, C, ...) are computed at once where the model leaves it free."""
    return min(BATCH, max(1, PIXELS // max(1, int(np.prod(shape[2:])))))


class Samples:
    """Batches of a graph's inputs that can be walked through many times.

    Args:
        batches: What can be iterated again and again (a list, a Dataset's view): arrays of the only input, or dicts
            with an array for each input.
        layout: The graph's inputs, or the shape of the only one, float32; None is free, the first is the batch.
        cache: Where statistics of these images are kept; None: nowhere.
        digest: What names exactly these images there.
        size: Samples in one batch: None is free, 0 leaves batches as they are given; without it what the graph fixes.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        layout: InputLayout | tuple[int | None, ...],
        cache: Path | None = None,
        digest: str = "",
        size: int | None = -1,
    ) -> None:
        self.layout = layout if isinstance(layout, InputLayout) else InputLayout.of_shape(layout)
        self.batches, self.cache, self.digest = batches, cache, digest
        self.size = self.layout.size if size == -1 else size

    def __iter__(self) -> Iterator[Batch]:
        """Yield checked batches: of the model's size where that is fixed, else of up to 16 images.

        Raises:
            DataError: A batch that is not what the graph takes, holds NaN or infinity, or is of another size than the
                first where the model leaves that free; fewer images than the model's fixed batch.
        """
        if self.size == 0:
            yield from self._checked()
            return
        size, layout = self.size or 0, self.layout
        parts: list[Batch] = []
        filled = False
        for batch in self._checked():
            size = size or at_once(layout.main_of(batch).shape)
            if parts and not layout.joins(parts[0], batch):
                yield from [layout.join(parts)] if self.size is None and any(map(layout.length, parts)) else []
                parts = []
            parts.append(batch)
            if sum(map(layout.length, parts)) >= size:
                images = layout.join(parts)
                count, filled = layout.length(images), True
                whole = count // size * size
                yield from (layout.part(images, at, at + size) for at in range(0, whole, size))
                parts = [layout.part(images, whole, count)]
        if self.size is None and any(map(layout.length, parts)):
            yield layout.join(parts)
        elif not filled and parts:
            got = f"{sum(map(layout.length, parts))} images for a batch of {size}"
            raise DataError("the calibration images do not fill one batch", got=got, do="give more images")

    def _checked(self) -> Iterator[Batch]:
        first = None
        for number, batch in enumerate(self.batches):
            for part in self.layout.checked(number, batch):
                shape = self.layout.main_of(part).shape[1:]
                first = first or shape
                if shape != first and self.size != 0:
                    raise DataError(
                        "the calibration images differ in size",
                        got=f"{shape} in batch {number}",
                        expected=f"{first} as in the first",
                        do="bring them to one size: the model leaves it free, and ranges depend on it",
                    )
                yield part

    def count(self) -> int:
        """Return the number of images (one walk)."""
        return sum(map(self.layout.length, self))

    def split(self, every: int) -> tuple[Samples, Samples]:
        """Return two streams of the same inputs: all samples but each `every`-th, and these alone."""
        first, second = (
            Samples(_Share(self, every, alone), self.layout, self.cache, f"{self.digest}/{every}/{alone}", self.size)
            for alone in (False, True)
        )
        return first, second

    def cut(self, images: Batch, most: int) -> list[Batch]:
        """Return images in batches of the size that is fixed, what is left over without; else of at most `most`."""
        step, count = self.size or most, self.layout.length(images)
        if self.size == 0 or step >= count:
            return [images]
        return [self.layout.part(images, at, at + step) for at in range(0, count // step * step, step)]


class _Share:
    """Each `every`-th sample of a stream, or all others."""

    def __init__(self, samples: Samples, every: int, alone: bool) -> None:
        self.samples, self.every, self.alone = samples, every, alone

    def __iter__(self) -> Iterator[Batch]:
        layout, at = self.samples.layout, 0
        for batch in self.samples._checked():
            count = 1 if self.samples.size == 0 else layout.length(batch)
            mine = [place for place in range(count) if ((at + place + 1) % self.every == 0) is self.alone]
            at += count
            if len(mine) == count:
                yield batch
            elif mine:
                yield layout.join([layout.part(batch, place, place + 1) for place in mine])


class AugmentedSamples:
    """Samples, each batch followed by the same images with sensor noise, half of those partly covered.

    Calibration images are cleaner than what a camera sees. Without noise the first layers' ranges are too narrow for
    users' images, and without hard edges in unusual places the later ones are; clipping there is the largest error of
    all (docs/quantisation.md).

    Args:
        samples: The images.
        noise: Standard deviation of the Gaussian noise, as a share of each image's own; 0 for clean images alone.
        cover: Sides of the rectangle that covers something, as a share of the image's; 0 for none.
    """

    def __init__(self, samples: Samples, noise: float, cover: float = 0.0) -> None:
        self.samples, self.noise, self.cover = samples, noise, cover
        self.layout, self.size = samples.layout, samples.size
        floats = [one for one in self.layout.inputs if one.dtype == "float32" and one.name in self.layout.batched]
        alone = len(self.layout.inputs) == 1
        self.noisy = [one.name for one in floats if alone or len(one.shape) > 2] if noise else []

    def __iter__(self) -> Iterator[Batch]:
        """Yield each batch and its noisy copy; an image's noise depends only on its place in the stream."""
        at = 0
        for batch in self.samples:
            yield batch
            if self.noisy:
                yield self._disturbed(at, batch)
            at += self.layout.length(batch)

    def pick(self, count: int) -> Batch:
        """Return up to `count` images as one batch, taken evenly: clean ones in their order, then noisy ones.

        Of inputs that only whole batches share the first one's are taken.
        """
        total = self.samples.count()
        every = total * (2 if self.noisy else 1)
        chosen = set(np.linspace(0, every - 1, min(count, every)).astype(int).tolist())
        images: dict[int, Batch] = {}
        at = 0
        for batch in self.samples:
            for place in range(at, at + self.layout.length(batch)):
                image = self.layout.part(batch, place - at, place - at + 1)
                if place in chosen:
                    images[place] = image
                if place + total in chosen:
                    images[place + total] = self._disturbed(place, image)
            at += self.layout.length(batch)
        return self.layout.join([images[place] for place in sorted(images)])

    def picked(self, count: int) -> list[Batch]:
        """Return about `count` images, taken evenly, in batches that the graph can run."""
        fixed = [one.name for one in self.layout.inputs if one.name not in self.layout.batched]
        if self.size != 0 and not fixed:
            return self.samples.cut(self.pick(max(count, self.size or 0)), count)
        batches = list(self)
        most = max(1, count // max(1, self.layout.length(batches[0])))
        return [batches[at] for at in np.linspace(0, len(batches) - 1, min(most, len(batches))).astype(int)]

    def _disturbed(self, at: int, batch: Batch) -> Batch:
        """Return a batch with noise on what looks like images; `at` is the place of its first image."""
        if not isinstance(batch, dict):
            return np.stack([self._with_noise([at + index, 0], image) for index, image in enumerate(batch)])
        return batch | {
            name: np.stack([self._with_noise([at + index, number], image) for index, image in enumerate(batch[name])])
            for number, name in enumerate(self.noisy)
        }

    def _with_noise(self, seed: Sequence[int], image: np.ndarray) -> np.ndarray:
        if self.layout.channels_last and image.ndim == 3:
            return np.ascontiguousarray(np.moveaxis(self._noisy(seed, np.moveaxis(image, -1, 0)), 0, -1))
        return self._noisy(seed, image)

    def _noisy(self, seed: Sequence[int], image: np.ndarray) -> np.ndarray:
        random = np.random.default_rng(seed)
        normal = random.standard_normal(image.shape, dtype=np.float32)
        spread, axes = self.noise * image.std(), tuple(range(1, image.ndim)) or None
        black, white = image.min(axis=axes, keepdims=True), image.max(axis=axes, keepdims=True)
        if self.cover and random.random() < 0.5 and image.ndim == 3:
            high, wide = (int(self.cover * side) for side in image.shape[1:])
            top, left = random.integers(image.shape[1] - high + 1), random.integers(image.shape[2] - wide + 1)
            value = random.uniform(image.min(), image.max())
            image = image.copy()
            image[:, top : top + high, left : left + wide] = value
        # A sensor stops at black and white; what lies beyond them would only widen the first ranges.
        return np.asarray(np.clip(image + normal * spread, black, white), np.float32)


@contextmanager
def repeatable(batches: Iterable[Any]) -> Iterator[Iterable[Any]]:
    """Yield `batches` as something that can be walked again: a generator is spooled to a temporary file."""
    if not isinstance(batches, Iterator):
        yield batches
        return
    with tempfile.TemporaryFile(prefix="edgesmith-") as file:
        spooled: list[tuple[bool, list[tuple[str, tuple[int, ...], np.dtype[Any]]]]] = []
        for batch in batches:
            parts = dict(batch) if isinstance(batch, Mapping) else {"": batch}
            arrays = {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in parts.items()}
            if any(values.dtype.hasobject for values in arrays.values()):
                raise ValueError("objects are no images")
            kinds = [(name, values.shape, values.dtype) for name, values in arrays.items()]
            spooled.append((isinstance(batch, Mapping), kinds))
            for values in arrays.values():
                file.write(values.reshape(-1).view(np.uint8).data)

        class Spool:
            def __iter__(self) -> Iterator[Any]:
                at = 0
                for by_name, kinds in spooled:
                    file.seek(at)
                    arrays = {}
                    for name, shape, kind in kinds:
                        arrays[name] = np.empty(shape, kind)
                        file.readinto(arrays[name].reshape(-1).view(np.uint8).data)
                        at += arrays[name].nbytes
                    yield arrays if by_name else arrays[""]

        yield Spool()
