"""Training images: preprocessed once into one tensor if they fit into memory, otherwise decoded batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...runtime.datasets import Dataset
from ...runtime.errors import DataError
from ...runtime.images.preprocess import apply
from ...runtime.spec import ModelSpec
from ...runtime.tasks import find
from .objectives import Objective, find_objective

IN_MEMORY_BYTES = 1_000_000_000
EVAL_BATCH = 128
HELD_OUT = 10  # one image in so many


@dataclass(frozen=True)
class Batches:
    """Images with their truths; `tensor` is float32 NCHW, or None if images are decoded on demand."""

    data: Dataset
    objective: Objective
    chosen: torch.Tensor
    truths: Any
    tensor: torch.Tensor | None

    @classmethod
    def of(cls, data: Dataset, spec: ModelSpec) -> Batches:
        """Preprocess a data set, or prepare to do so.

        Raises:
            UsageError: The network cannot be trained, or not on these classes.
            DataError: The truth is not known, or images cannot be read; the first ten are named.
        """
        objective, kind = find_objective(spec), find(spec.task).truth
        data.require_truth(kind, "training")
        truths = data.truths_for(spec, kind)
        fits = 4 * len(data) * math.prod(spec.input_shape) <= IN_MEMORY_BYTES
        try:
            tensor = torch.from_numpy(apply(data.images, spec)) if fits else None
        except DataError:
            _readable(data)
            raise
        if not fits:
            _readable(data)
        return cls(data, objective, torch.arange(len(data)), truths, tensor)

    @property
    def spec(self) -> ModelSpec:
        """The network's."""
        return self.objective.spec

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return images, float32 (N, C, H, W), and their truths as the objective has them, (N, ...)."""
        chosen = self.chosen[positions]
        truth = self.objective.batch(self.truths, chosen.tolist())
        if self.tensor is not None:
            return self.tensor[chosen], truth
        images = [self.data.images[int(at)] for at in chosen]
        with ThreadPoolExecutor(4) as pool:
            arrays = list(pool.map(lambda image: torch.from_numpy(apply([image], self.spec)), images))
        return torch.cat(arrays), truth

    def all(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield all batches once, in order."""
        for positions in torch.arange(len(self)).split(EVAL_BATCH):  # type: ignore[no-untyped-call]
            yield self.batch(positions)

    def held_out(self, wanted: bool) -> tuple[Batches, Batches | None]:
        """Split off every tenth image of each class for validation; return (all, None) without validation."""
        if not wanted:
            return self, None
        order = torch.argsort(torch.from_numpy(self.data.labels.copy())[self.chosen], stable=True)
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[order[::HELD_OUT]] = True
        return self._part(~mask), self._part(mask)

    def _part(self, mask: torch.Tensor) -> Batches:
        return replace(self, chosen=self.chosen[mask])


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
