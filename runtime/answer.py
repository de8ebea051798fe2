"""The answer of a model for one image: its outputs, and their interpretation by the task."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError
from .images.postprocess import Box, Guess, probabilities
from .tasks import DecodeContext, Task, find

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWN = 100  # at most so many parts of an answer are drawn


@dataclass(frozen=True)
class Answer:
    """The answer for one image: the network's outputs by name, without the batch axis.

    `task` is that of the spec, one of `tasks.names()`: "classify" has `top`, "segment" `class_map`, "localise" `box`;
    all have `decode`. `context` is what the spec says of the outputs, with the size of the image where it is known.
    """

    outputs: Mapping[str, NDArray[Any]]
    task: str = "classify"
    context: DecodeContext = field(default_factory=DecodeContext)

    @property
    def logits(self) -> NDArray[Any]:
        """The first output, (classes,) for a classifier."""
        return next(iter(self.outputs.values()))

    @functools.cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """The probability of each class, float32: softmax of the logits, unless they already are probabilities."""
        return probabilities(self.logits, self.context.scores, axis=0)

    def top(self, k: int = 5) -> tuple[Guess, ...]:
        """Return the `k` best classes, best first.

        Raises:
            DataError: The network does not classify.
        """
        best: tuple[Guess, ...] = self._as("classify", k)
        return best

    def class_map(self) -> NDArray[np.int64]:
        """Return the best class of each pixel, int64 (H, W).

        Raises:
            DataError: The network does not segment: its output is not a map of class scores (classes, H, W).
        """
        classes: NDArray[np.int64] = self._as("segment").pixels
        return classes

    def box(self) -> Box:
        """Return the bounding box of the object, as shares of the image.

        Raises:
            DataError: The network does not localise.
        """
        rectangle: Box = self._as("localise")
        return rectangle

    def decode(self, most: int | None = None) -> Any:
        """Return the outputs as the task interprets them (`tasks/<task>.py`); of a list the `most` best.

        Raises:
            DataError: The outputs do not have the shapes of the task.
        """
        return self._as(self.task, most)

    def show(self, most: int | None = None) -> dict[str, Any]:
        """Return the answer as plain values for JSON; for outputs that do not match the task, their shapes."""
        task, context = find(self.task), replace(self.context, most=most)
        return (task if task.fits(self.outputs, context) else Task()).show(self.outputs, context)

    def draw(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return a copy of the image, uint8 (H, W, 3), with the answer drawn on it if the task can draw."""
        task = find(self.task)
        drawing = task.draw(image, self.decode(DRAWN)) if task.fits(self.outputs, self.context) else None
        return np.array(image) if drawing is None else drawing

    def _as(self, task: str, most: int | None = None) -> Any:
        if task != self.task or not find(task).fits(self.outputs, self.context):
            got = f"task {self.task}, an output of shape {self.logits.shape}"
            raise DataError(f"this network does not {task}", got=got)
        return find(task).decode(self.outputs, replace(self.context, most=most))
