"""Signal to quantisation noise, in dB."""

from __future__ import annotations

import numpy as np


def sqnr_db(reference: np.ndarray, value: np.ndarray) -> float:
    """Return the ratio of signal to quantisation noise, 10 log10(sum r^2 / sum (r - v)^2), in dB (inf when equal)."""
    reference = reference.astype(np.float64)
    noise = float(np.square(reference - value).sum())
    signal = float(np.square(reference).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(signal, 1e-300) / noise))
