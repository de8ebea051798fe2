"""What a model answers about one image: its outputs, and what their task makes of them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError
from .images.postprocess import Box, Guess, box, class_map, probabilities, top_k

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Answer:
    """What the network said about one image: its outputs by name, without the batch dimension.

    `task` is the spec's: "classify" has `top`, "segment" `class_map`, "localise" `box`. `scores` is the spec's too:
    whether the first output holds "logits" or "probabilities"; "" leaves that to its values.
    """

    outputs: Mapping[str, NDArray[Any]]
    labels: tuple[str, ...] = ()
    task: str = "classify"
    scores: str = ""

    @property
    def logits(self) -> NDArray[Any]:
        """The first output, (classes,) for a classifier."""
        return next(iter(self.outputs.values()))

    @functools.cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """The probability of each class, float32: softmax of the logits, where they are no probabilities already."""
        return probabilities(self.logits, self.scores, axis=0)

    def top(self, k: int = 5) -> tuple[Guess, ...]:
        """Return the `k` best classes, best first.

        Raises:
            DataError: The network does not classify.
        """
        if self.logits.ndim != 1 or self.task != "classify":
            raise DataError("this network does not classify", got=self._what())
        return top_k(self.logits, k, self.labels, self.scores)

    def class_map(self) -> NDArray[np.int64]:
        """Return the best class of each pixel, int64 (H, W).

        Raises:
            DataError: The network does not segment: its output is no map of class scores (classes, H, W).
        """
        if self.logits.ndim != 3 or self.task != "segment":
            raise DataError("this network does not segment", got=self._what())
        return class_map(self.logits)

    def box(self) -> Box:
        """Return the rectangle around the object, as shares of the image.

        Raises:
            DataError: The network does not localise.
        """
        if self.logits.shape != (4,) or self.task != "localise":
            raise DataError("this network does not localise", got=self._what())
        return box(self.logits)

    def _what(self) -> str:
        return f"task {self.task}, an output of shape {self.logits.shape}"
