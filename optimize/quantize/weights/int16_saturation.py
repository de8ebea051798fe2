"""Keep INT8 products exact on x86 CPUs without VNNI, giving up weight bits only where it is needed.

AVX2 and AVX512 without VNNI multiply U8 activations with S8 weights by `vpmaddubsw`: two neighbouring products are
added in 16 bits, saturating. a0*w0 + a1*w1 reaches 255*127*2 = 64770, above 32767, so a network with full 8-bit
weights is silently wrong there (docs/quantisation.md has the figures), and right on CPUs with VNNI.

Here each output channel's largest integer L is lowered until no pair can saturate on activations up to the largest
ones seen: for a pair of weights r = w / max|w| and the largest integer activations A,

    L * max over pairs of (A0*max(r0, 0) + A1*max(r1, 0)),  and the same for -r,  <= 32767 - rounding

Pairs are neighbours in the order in which ONNX Runtime multiplies: kernel rows, kernel columns, input channels of one
group (its NHWC im2col); K for Gemm. Where channels are padded to fours (`widths`), so are the pairs, which then never
cross from one pixel to the next. Depthwise kernels multiply in 32 bits and need nothing.
"""

from __future__ import annotations

import numpy as np

from .quantize_weights import LARGEST

INT16 = 32767.0
# Activations may be larger than in the calibration images by this factor before a pair can saturate.
MARGIN = 1.25
FOURS = 4


def raw_peaks(channel_high: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """Return each channel's largest unsigned integer, (C,), from its largest float value, with the margin."""
    return np.asarray(np.clip(np.rint(np.maximum(channel_high, 0) * MARGIN / scale) + zero, 0, 255))


def largest_integers(
    weight: np.ndarray, groups: int, peaks: np.ndarray, rounding: float = 0.5, fours: bool = False
) -> np.ndarray:
    """Return for each output channel the largest integer its weights may take, (M,), at most 127.

    Args:
        weight: Float weights, (M, C/groups, kH, kW) or (N, K).
        groups: The convolution's groups.
        peaks: Largest integer activation of each input channel, (C,), 0 to 255.
        rounding: How far an integer may lie from its weight, in steps.
        fours: Input channels will be padded to a multiple of four.
    """
    outputs = len(weight)
    if weight.ndim > 2 and weight.shape[1] == 1 and groups == outputs:
        return np.full(outputs, float(LARGEST))
    if fours:
        more = -weight.shape[1] % FOURS
        weight = np.pad(weight, [(0, 0), (0, more), *[(0, 0)] * (weight.ndim - 2)])
        peaks = np.pad(peaks, (0, more))
    taps = int(np.prod(weight.shape[2:]))
    flat = np.moveaxis(weight, 1, -1).reshape(outputs, -1)
    each = np.tile(peaks.reshape(groups, 1, -1), (1, taps, 1)).reshape(groups, -1)
    peak = np.repeat(each, outputs // groups, axis=0)
    top = np.maximum(np.abs(flat).max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    share = np.maximum(_pairs(flat / top, peak), _pairs(-flat / top, peak))
    allowed = (INT16 - 2 * rounding * 255) / np.maximum(share, 1)
    return np.asarray(np.minimum(np.floor(allowed), LARGEST))


def _pairs(ratio: np.ndarray, peak: np.ndarray) -> np.ndarray:
    """Return the largest sum of two neighbouring positive products in each row."""
    products = np.maximum(ratio, 0) * peak
    if products.shape[1] % 2:
        products = np.pad(products, ((0, 0), (0, 1)))
    return np.asarray((products[:, 0::2] + products[:, 1::2]).max(axis=1))
