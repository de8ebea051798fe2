"""Likeness of two images: PSNR, and SSIM after Wang, Bovik, Sheikh and Simoncelli, 2004."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The paper's window and constants: 11x11, a Gaussian of 1.5 pixels, K1 and K2.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr_db(image: NDArray[Any], target: NDArray[Any], peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio in dB: 10·log10(peak² / mean squared error); infinite if they are equal.

    Raises:
        DataError: The shapes differ.
    """
    _check(image, target)
    error = float(np.square(image.astype(np.float64) - target).mean())
    return 10 * math.log10(peak * peak / error) if error else math.inf


def ssim(image: NDArray[Any], target: NDArray[Any], peak: float = 1.0) -> float:
    """Return the mean structural similarity, -1 to 1, over the places where the window lies inside the image.

    Equal to scikit-image's `structural_similarity` with `gaussian_weights`, without `use_sample_covariance`; the mean
    over the channels.

    Args:
        image: (H, W) or (channels, H, W), at least 11x11.
        target: The same shape.
        peak: Range of the values, 1 or 255.

    Raises:
        DataError: The shapes differ, or the image is smaller than the window.
    """
    _check(image, target)
    if image.ndim < 2 or min(image.shape[-2:]) < WINDOW:
        got = f"{image.shape}"
        raise DataError("SSIM cannot be computed", got=got, expected=f"at least {WINDOW}x{WINDOW} pixels")
    one, two = image.astype(np.float64), target.astype(np.float64)
    mean1, mean2 = _blurred(one), _blurred(two)
    variance1, variance2 = _blurred(one * one) - mean1 * mean1, _blurred(two * two) - mean2 * mean2
    covariance = _blurred(one * two) - mean1 * mean2
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    above = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    below = (mean1 * mean1 + mean2 * mean2 + c1) * (variance1 + variance2 + c2)
    return float((above / below).mean())


def _blurred(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the window's weighted mean at each place inside, (..., H - 10, W - 10): rows, then columns."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(offsets**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    height, width = image.shape[-2] - WINDOW + 1, image.shape[-1] - WINDOW + 1
    rows = sum(weights[at] * image[..., at : at + height, :] for at in range(WINDOW))
    result: NDArray[np.float64] = sum(weights[at] * rows[..., at : at + width] for at in range(WINDOW))
    return result


def _check(image: NDArray[Any], target: NDArray[Any]) -> None:
    if image.shape != target.shape or not image.size:
        raise DataError("two images cannot be compared", got=str(image.shape), expected=str(target.shape))
