"""Histograms of a stream of values, in fixed memory, the same for every order and batch size.

Edges are multiples of limit / 4096 and the limit is a power of two: where a larger value comes the limit doubles and
pairs of bins become one, which gives exactly the counts that the wider bins would have had from the start.
"""

from __future__ import annotations

import math

import numpy as np

HALF = 4096
# Values taken from one image; an odd stride does not fall into step with rows and channels.
VALUES = 4096
# A power of two far below any activation that matters.
SMALLEST = -60


class Histogram:
    """Counts over [-limit, limit) in 2 * 4096 bins."""

    def __init__(self) -> None:
        self.exponent = SMALLEST
        self.counts = np.zeros(2 * HALF, np.int64)

    @property
    def width(self) -> float:
        """The width of one bin."""
        return 2.0**self.exponent / HALF

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, float64 (8192,)."""
        return np.asarray((np.arange(-HALF, HALF) + 0.5) * self.width)

    def add(self, values: np.ndarray) -> None:
        """Count finite values, of any shape."""
        peak = float(np.abs(values).max(initial=0))
        if peak >= 2.0**self.exponent:
            self._widen(math.frexp(peak)[1])
        places = np.floor(values * np.float64(1 / self.width)).astype(np.int64).ravel() + HALF
        self.counts += np.bincount(places, minlength=2 * HALF)

    def _widen(self, exponent: int) -> None:
        for _ in range(exponent - self.exponent if self.counts.any() else 0):
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, HALF // 2)
        self.exponent = exponent

    def quantile(self, share: float) -> float:
        """Return the value that `share` of the counted ones do not exceed (the bin's upper edge; lower below 0.5)."""
        at = int(np.searchsorted(np.cumsum(self.counts), share * self.counts.sum()))
        return (min(at, 2 * HALF - 1) - HALF + (share >= 0.5)) * self.width


def sampled(value: np.ndarray) -> np.ndarray:
    """Return about 4096 values of each image, (N, n): which ones does not depend on the batch.

    Args:
        value: A tensor with the batch first.
    """
    flat = value.reshape(len(value), -1)
    step = -(-flat.shape[1] // VALUES)
    return flat[:, :: step + (step + 1) % 2]
