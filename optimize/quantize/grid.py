"""The integer grid of one activation tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """The integers of one activation tensor: value = scale * (integer - zero)."""

    scale: float
    zero: int
    signed: bool

    @property
    def low(self) -> float:
        """The smallest value that is not clipped."""
        return self.scale * ((-128 if self.signed else 0) - self.zero)

    @property
    def high(self) -> float:
        """The largest value that is not clipped."""
        return self.scale * ((127 if self.signed else 255) - self.zero)


def grid(low: float, high: float, signed: bool) -> Grid:
    """Return the grid that covers [low, high] and holds zero exactly.

    Signed grids are symmetric (zero point 0, scale max|x| / 127); unsigned ones are asymmetric over 255 steps.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if signed:
        scale = max(-low, high) / 127
        return Grid(float(np.float32(scale)) if scale > 1e-30 else 1.0, 0, True)
    scale = float(np.float32((high - low) / 255))
    if scale <= 1e-30:
        return Grid(1.0, 0, False)
    return Grid(scale, int(np.clip(round(-low / scale), 0, 255)), False)
