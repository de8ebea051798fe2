"""How alike the answers of two classifiers are: beyond their top-1, where the float network itself was sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.images.postprocess import probabilities

NEAR_TIE = 0.1  # margin of probability below which another best class says little
BEST = 5
LEAST_CHANCE = 1e-7  # of a probability that was rounded to zero: its logarithm is asked for


@dataclass(frozen=True)
class ClassLikeness:
    """What became of an output (N, classes), summed over images.

    The margin of an image is FP32's probability of its best class minus that of the second.

    Attributes:
        images: How many were looked at.
        agreed: How many have the same best class.
        clear: How many have a margin above NEAR_TIE.
        clear_agreed: How many of these have the same best class.
        in_best: How many have FP32's best class among the five best; None for five classes or fewer.
        divergence: Kullback-Leibler divergence of the probabilities from FP32's, in nats, summed over the images.
    """

    images: int = 0
    agreed: int = 0
    clear: int = 0
    clear_agreed: int = 0
    in_best: int | None = 0
    divergence: float = 0.0

    @classmethod
    def of(cls, reference: np.ndarray, value: np.ndarray) -> ClassLikeness:
        """Compare two outputs, both (N, classes): logits, or probabilities if both are non-negative and add up to 1."""
        one, two = (probabilities(side, _scores(reference)).astype(np.float64) for side in (reference, value))
        images, classes = one.shape
        second, first = np.partition(one, -2, axis=1)[:, -2:].T
        same, clear = reference.argmax(axis=1) == value.argmax(axis=1), first - second > NEAR_TIE
        one, two = (np.maximum(side, LEAST_CHANCE) for side in (one, two))
        one, two = (side / side.sum(axis=1, keepdims=True) for side in (one, two))
        best = np.argsort(-value, axis=1, kind="stable")[:, :BEST]
        return cls(
            images, int(same.sum()), int(clear.sum()), int((same & clear).sum()),
            int((best == reference.argmax(axis=1)[:, None]).any(axis=1).sum()) if classes > BEST else None,
            float((one * np.log(one / two)).sum()),
        )  # fmt: skip

    def __add__(self, other: ClassLikeness) -> ClassLikeness:
        """Return the likeness over the images of both."""
        in_best = None if self.in_best is None or other.in_best is None else self.in_best + other.in_best
        return ClassLikeness(
            self.images + other.images, self.agreed + other.agreed, self.clear + other.clear,
            self.clear_agreed + other.clear_agreed, in_best, self.divergence + other.divergence,
        )  # fmt: skip

    @property
    def flips(self) -> int:
        """How many images have another best class."""
        return self.images - self.agreed

    @property
    def near_ties(self) -> int:
        """How many of the flips are near ties: FP32's margin is at most NEAR_TIE."""
        return self.flips - (self.clear - self.clear_agreed)

    @property
    def kl(self) -> float:
        """Mean Kullback-Leibler divergence of an image's probabilities from FP32's, in nats."""
        return self.divergence / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        kl = self.kl if np.isfinite(self.kl) else None
        return {
            "images": self.images, "agreed": self.agreed, "clear": self.clear, "clear_agreed": self.clear_agreed,
            "in_best_five": self.in_best, "kl_nats": kl, "flips": self.flips, "near_ties": self.near_ties,
        }  # fmt: skip

    def __str__(self) -> str:
        """Return one line for a person."""
        clear = (
            f"{self.clear_agreed} of {self.clear} with a margin above {NEAR_TIE}" if self.clear else "no clear image"
        )
        best = "" if self.in_best is None else f", {self.in_best} of {self.images} among the five best"
        ties = f", {self.near_ties} of {self.flips} flips near ties" if self.flips else ", no flips"
        return f"same class: {clear}{best}{ties}; KL divergence {self.kl:.2g} nats"


def _scores(reference: np.ndarray) -> str:
    """Return what the float output's values are: "probabilities" or "logits"; the other graph's are the same."""
    chances = probabilities(reference)
    return "probabilities" if np.array_equal(chances, reference.astype(np.float32)) else "logits"
