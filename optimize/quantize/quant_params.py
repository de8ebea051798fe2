"""The integer grid of one activation tensor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# kind -> the smallest and the largest integer. "symmetric" has zero point 0 and is what TensorRT takes.
KINDS = {"symmetric": (-128, 127), "u8": (0, 255), "s8": (-128, 127)}


@dataclass(frozen=True)
class QuantParams:
    """The integers of one activation tensor: value = scale * (integer - zero); `kind` is a key of KINDS."""

    scale: float
    zero: int
    kind: str

    @property
    def dtype(self) -> type[np.int8] | type[np.uint8]:
        """The integers' type."""
        return np.uint8 if self.kind == "u8" else np.int8

    @property
    def low(self) -> float:
        """The smallest value that is not clipped."""
        return self.scale * (KINDS[self.kind][0] - self.zero)

    @property
    def high(self) -> float:
        """The largest value that is not clipped."""
        return self.scale * (KINDS[self.kind][1] - self.zero)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """Return the values after quantising and dequantising."""
        integers = np.clip(np.rint(values / self.scale) + self.zero, *KINDS[self.kind])
        return np.asarray((integers - self.zero) * self.scale)


def quant_params(low: float, high: float, kind: str) -> QuantParams:
    """Return the grid that covers [low, high] and holds zero exactly.

    Symmetric grids have zero point 0 and scale max|x| / 127; the others spread 255 steps from low to high.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if kind == "symmetric":
        scale = max(-low, high) / 127
        return QuantParams(float(np.float32(scale)) if scale > 1e-30 else 1.0, 0, kind)
    smallest, largest = KINDS[kind]
    scale = float(np.float32((high - low) / 255))
    if scale <= 1e-30:
        return QuantParams(1.0, smallest, kind)
    return QuantParams(scale, int(np.clip(smallest + round(-low / scale), smallest, largest)), kind)
