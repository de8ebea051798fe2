"""Training images: preprocessed once into one tensor if they fit into memory, otherwise decoded batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ...runtime.datasets import Dataset
from ...runtime.errors import DataError
from ...runtime.images.preprocess import apply
from ...runtime.spec import ModelSpec

IN_MEMORY_BYTES = 1_000_000_000
EVAL_BATCH = 128
HELD_OUT = 10  # one image in so many


@dataclass(frozen=True)
class Batches:
    """Labelled images with one interface; `tensor` is float32 NCHW, or None if images are decoded on demand."""

    data: Dataset
    spec: ModelSpec
    chosen: torch.Tensor
    labels: torch.Tensor
    tensor: torch.Tensor | None

    @classmethod
    def of(cls, data: Dataset, spec: ModelSpec) -> Batches:
        """Preprocess a data set, or prepare to do so.

        Raises:
            DataError: Images cannot be read; the first ten are named.
        """
        fits = 4 * len(data) * math.prod(spec.input_shape) <= IN_MEMORY_BYTES
        try:
            tensor = torch.from_numpy(apply(data.images, spec)) if fits else None
        except DataError:
            _readable(data)
            raise
        if not fits:
            _readable(data)
        return cls(data, spec, torch.arange(len(data)), torch.from_numpy(data.labels.copy()), tensor)

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images, float32 (N, C, H, W), and labels, int64 (N,)."""
        chosen = self.chosen[positions]
        if self.tensor is not None:
            return self.tensor[chosen], self.labels[chosen]
        images = [self.data.images[int(at)] for at in chosen]
        with ThreadPoolExecutor(4) as pool:
            arrays = list(pool.map(lambda image: torch.from_numpy(apply([image], self.spec)), images))
        return torch.cat(arrays), self.labels[chosen]

    def all(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all batches once, in order."""
        for positions in torch.arange(len(self)).split(EVAL_BATCH):  # type: ignore[no-untyped-call]
            yield self.batch(positions)

    def held_out(self, wanted: bool) -> tuple[Batches, Batches | None]:
        """Split off every tenth image of each class for validation; return (all, None) without validation."""
        if not wanted:
            return self, None
        order = torch.argsort(self.labels[self.chosen], stable=True)
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[order[::HELD_OUT]] = True
        return self._part(~mask), self._part(mask)

    def _part(self, mask: torch.Tensor) -> Batches:
        return Batches(self.data, self.spec, self.chosen[mask], self.labels, self.tensor)


def black(spec: ModelSpec) -> torch.Tensor:
    """Return the normalised value of a black pixel, float32 (1, C, 1, 1)."""
    values = [-mean / std for mean, std in zip(spec.preprocess.mean, spec.preprocess.std, strict=True)]
    return torch.tensor(values).view(1, -1, 1, 1)


def _readable(data: Dataset) -> None:
    """Decode every image once, so that a damaged one is an error before training."""
    bad = []
    for index in range(len(data)):
        try:
            data.images[index]
        except DataError as error:
            bad.append(error.what)
    if bad:
        raise DataError(f"{len(bad)} images cannot be used", got="; ".join(bad[:10]), do="repair or remove them")
