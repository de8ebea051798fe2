"""Anomaly: how unlike a bank of normal images an image is, by angles; the first output is (N, numbers).

The bank, (M, numbers), holds the vectors of M normal images, in a `.npy` file.
Roth et al., «Towards Total Recall in Industrial Anomaly Detection», 2022, with one vector an image and cosines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ._base import Score
from ._formulas import roc_area, unit
from .embed import Embed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext


class Anomaly(Embed):
    """The vector of length 1, to be compared with a bank; the area below the ROC curve."""

    truth = "anomalies"
    metric = "auroc_ratio"
    title = "AUROC"

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `auroc_ratio`, the share of (anomalous, normal) pairs that the distance orders, and `images_count`.

        Raises:
            DataError: The bank has vectors of another length, or the images are all normal or all anomalous.
        """
        vectors, anomalous = np.asarray(batch["vector"]), np.array([truth.anomalous for truth in truths], bool)
        if anomalous.all() or not anomalous.any():
            got = f"{len(truths)} images, {int(anomalous.sum())} of them anomalous"
            raise DataError("AUROC cannot be computed", got=got, expected="some normal and some anomalous images")
        distances = distances_to_bank(vectors, truths[0].bank())
        return Score({"auroc_ratio": roc_area(distances, anomalous), "images_count": float(len(truths))})


def distances_to_bank(vectors: NDArray[Any], bank: NDArray[Any]) -> NDArray[np.float64]:
    """Return 1 - cosine to the nearest vector of a bank, 0 (normal) to 2, float64 (N,).

    Args:
        vectors: (N, numbers), of any length each.
        bank: (M, numbers), of any length each.

    Raises:
        DataError: The bank is empty or has vectors of another length.
    """
    if bank.ndim != 2 or not len(bank) or bank.shape[1] != vectors.shape[1]:
        got, expected = f"a bank {bank.shape}", f"(M, {vectors.shape[1]}), M vectors of normal images"
        raise DataError("the bank does not fit the network", got=got, expected=expected)
    result: NDArray[np.float64] = 1 - (unit(vectors) @ unit(bank).T).max(axis=1)
    return result


TASK = Anomaly()
