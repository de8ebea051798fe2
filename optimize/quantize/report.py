"""What is asked of a quantisation, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Settings:
    """What is done to keep the accuracy.

    Attributes:
        equalize: Strength of cross-layer equalisation, 0 to 1; None leaves the weights alone.
        refine: Choose ranges by measured error and correct biases, layer by layer.
        noise: Calibrate on each image with sensor noise too, of this share of its standard deviation; 0 for none.
        keep: Names of nodes that stay float.
        per_tensor: One scale for all output channels of a weight (fuses better on some GPUs, costs accuracy).
    """

    equalize: float | None = 0.5
    refine: bool = True
    noise: float = 0.25
    keep: frozenset[str] = frozenset()
    per_tensor: bool = False


@dataclass(frozen=True)
class QuantReport:
    """What one quantisation did.

    Attributes:
        target: The form's name.
        images: Calibration images used.
        quantised: Operator type -> how many compute in INT8.
        floats: Weighted operators left in float -> the reason.
        folded: Relu and Clip nodes that became a quantiser's range.
        limited: Nodes with weights under 8 bits, so that no product pair saturates 16 bits -> channels limited.
        ranges: Quantised tensor -> (low, high) of its grid.
        tried: With a budget: number of sensitive layers left in float -> SQNR of the worst output, in dB.
        tensor_sqnr_db: Quantised tensor -> signal to rounding and clipping noise of its own grid, in dB, on what the
            quantised network feeds it (empty without `refine`; tensors with one scale: the first of them).
        bytes_before: Size of the float file.
        bytes_after: Size of the quantised file.
        sqnr_db: Signal to quantisation noise of each output on the calibration images, in dB.
        agreement: Share of calibration images with the same top-1 in float and INT8 (None: no (N, classes) output).
    """

    target: str
    images: int
    quantised: dict[str, int]
    floats: dict[str, str]
    folded: tuple[str, ...]
    limited: dict[str, int]
    ranges: dict[str, tuple[float, float]]
    tried: dict[int, float]
    tensor_sqnr_db: dict[str, float]
    bytes_before: int
    bytes_after: int
    sqnr_db: dict[str, float]
    agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def compare(
    before: onnx.ModelProto, after: onnx.ModelProto, samples: Iterable[np.ndarray]
) -> tuple[dict[str, float], float | None]:
    """Return the SQNR of each output in dB, and the share of images with the same top-1 (None without classes)."""
    from .observe import sqnr_db, stream

    names = [item.name for item in before.graph.output]
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for one, two in zip(stream(before, names, samples), stream(after, names, samples), strict=True):
        for name in names:
            pairs[name].append((one[name], two[name]))
    joined = {name: [np.concatenate(side) for side in zip(*values, strict=True)] for name, values in pairs.items()}
    first, second = joined[names[0]]
    same = float((first.argmax(1) == second.argmax(1)).mean()) if first.ndim == 2 and first.shape[1] > 1 else None
    return {name: sqnr_db(*sides) for name, sides in joined.items()}, same
