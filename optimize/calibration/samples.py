"""Calibration images as a stream: any number of images in the memory of one batch, read as often as needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.errors import DataError, ModelError

if TYPE_CHECKING:
    import onnx

# Images computed at once where the model leaves it free: activations of so many pixels stay in the caches. Of images of
# 224x224 one at a time is a quarter faster than four, of 64x64 sixteen are a third faster than one.
BATCH, PIXELS = 16, 1 << 16


def at_once(shape: tuple[int, ...]) -> int:
    """Return how many images (N, C, ...) are computed at once where the model leaves it free."""
    return min(BATCH, max(1, PIXELS // max(1, int(np.prod(shape[2:])))))


class Samples:
    """Batches of NCHW float32 that can be walked through many times.

    Args:
        batches: What can be iterated again and again (a list, a Dataset's view).
        shape: The model's input shape; None or a negative number is free, the first is the batch.
        cache: Where statistics of these images are kept; None: nowhere.
        digest: What names exactly these images there.
    """

    def __init__(
        self,
        batches: Iterable[np.ndarray],
        shape: tuple[int | None, ...],
        cache: Path | None = None,
        digest: str = "",
    ) -> None:
        self.batches, self.shape, self.cache, self.digest = batches, shape, cache, digest

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield checked batches: of the model's size where that is fixed, else of up to 16 images.

        Raises:
            DataError: A batch that is no float32 array of the model's shape, holds NaN or infinity, or is of another
                size than the first where the model leaves that free; fewer images than the model's fixed batch.
        """
        size = self.shape[0] or 0
        parts: list[np.ndarray] = []
        filled = False
        for batch in self._checked():
            size = size or at_once(batch.shape)
            parts.append(batch)
            if sum(len(part) for part in parts) >= size:
                images = parts[0] if len(parts) == 1 else np.concatenate(parts)
                whole, filled = len(images) // size * size, True
                yield from (images[at : at + size] for at in range(0, whole, size))
                parts = [images[whole:]]
        if self.shape[0] is None and any(len(part) for part in parts):
            yield np.concatenate(parts)
        elif not filled and parts:
            got = f"{sum(len(part) for part in parts)} images for a batch of {size}"
            raise DataError("the calibration images do not fill one batch", got=got, do="give more images")

    def _checked(self) -> Iterator[np.ndarray]:
        first = None
        for number, batch in enumerate(self.batches):
            self._check(number, batch)
            first = first or batch.shape[1:]
            if batch.shape[1:] != first:
                raise DataError(
                    "the calibration images differ in size",
                    got=f"{batch.shape[1:]} in batch {number}",
                    expected=f"{first} as in the first",
                    do="bring them to one size: the model leaves it free, and ranges depend on it",
                )
            yield batch

    def count(self) -> int:
        """Return the number of images (one walk)."""
        return sum(len(batch) for batch in self)

    def _check(self, number: int, batch: Any) -> None:
        wanted = "x".join("?" if dim is None else str(dim) for dim in self.shape)
        fits = isinstance(batch, np.ndarray) and batch.dtype == np.float32 and batch.ndim == len(self.shape)
        if fits:
            pairs = zip(batch.shape[1:], self.shape[1:], strict=True)
            fits = all(want is None or have == want for have, want in pairs)
        if not fits:
            got = f"{getattr(batch, 'dtype', type(batch).__name__)} {getattr(batch, 'shape', '')}"
            raise DataError(
                f"calibration batch {number} does not fit the model",
                got=got,
                expected=f"float32 {wanted}",
                do="use the model's own preprocessing",
            )
        if not np.isfinite(batch).all():
            raise DataError(f"calibration batch {number} holds NaN or infinity", do="check the preprocessing")


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
        self.samples, self.noise, self.cover, self.shape = samples, noise, cover, samples.shape

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each batch and its noisy copy; an image's noise depends only on its place in the stream."""
        at = 0
        for batch in self.samples:
            yield batch
            if self.noise:
                yield np.stack([self._noisy(at + index, image) for index, image in enumerate(batch)])
            at += len(batch)

    def pick(self, count: int) -> np.ndarray:
        """Return up to `count` images as one array, taken evenly: clean ones in their order, then noisy ones."""
        total = self.samples.count()
        every = total * (2 if self.noise else 1)
        chosen = set(np.linspace(0, every - 1, min(count, every)).astype(int).tolist())
        images: dict[int, np.ndarray] = {}
        at = 0
        for batch in self.samples:
            for place, image in enumerate(batch, at):
                if place in chosen:
                    images[place] = image
                if place + total in chosen:
                    images[place + total] = self._noisy(place, image)
            at += len(batch)
        return np.stack([images[place] for place in sorted(images)])

    def _noisy(self, place: int, image: np.ndarray) -> np.ndarray:
        random = np.random.default_rng([place, 0])
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
def repeatable(batches: Iterable[np.ndarray]) -> Iterator[Iterable[np.ndarray]]:
    """Yield `batches` as something that can be walked again: a generator is spooled to a temporary file."""
    if not isinstance(batches, Iterator):
        yield batches
        return
    with tempfile.TemporaryFile(prefix="edgesmith-") as file:
        spooled: list[tuple[tuple[int, ...], np.dtype[Any]]] = []
        for batch in batches:
            values = np.ascontiguousarray(batch)
            if values.dtype.hasobject:
                raise ValueError("objects are no images")
            spooled.append((values.shape, values.dtype))
            file.write(values.reshape(-1).view(np.uint8).data)

        class Spool:
            def __iter__(self) -> Iterator[np.ndarray]:
                at = 0
                for shape, kind in spooled:
                    file.seek(at)
                    batch = np.empty(shape, kind)
                    file.readinto(batch.reshape(-1).view(np.uint8).data)
                    at += batch.nbytes
                    yield batch

        yield Spool()


def input_shape(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the shape of the only input that is no initializer; None for a free dimension.

    Raises:
        ModelError: There is not exactly one float32 input of known rank.
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constant]
    kind = inputs[0].type.tensor_type if inputs else None
    if len(inputs) != 1 or kind is None or kind.elem_type != 1 or len(kind.shape.dim) < 2:
        raise ModelError(
            "calibration needs a graph with one float32 input",
            got=f"inputs {[item.name for item in inputs]}",
            expected="one float32 tensor, batch first",
        )
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
