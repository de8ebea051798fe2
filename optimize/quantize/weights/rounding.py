"""Weights fitted to what the quantised network feeds them, and rounded together instead of one by one.

fit        W* = W + D with D = argmin E|y - (W + D) x^|^2 + ridge |D|^2 diag(H): directions in which the input holds
           rounding noise and hardly any signal are turned down, errors made further up are made good. The ridge is
           chosen on images that the fit has not seen; none at all is one of the choices.
feedback   One input after the other is rounded, and the others take over its error as far as they see it (optimal brain
           surgery, Hassibi and Stork 1993; for quantisation Frantar et al. 2022, «GPTQ»).
adaround   Which way each weight is rounded is learnt by gradient descent on the same error with a rectified sigmoid
           (Nagel et al. 2020, «Up or Down? Adaptive Rounding for Post-Training Quantization»).

Each weight becomes one of its two neighbouring integers. All three work on second moments (`moments`), so their cost
does not depend on the number of images.
"""

from __future__ import annotations

import numpy as np

from .quantize_weights import LARGEST
from .second_moments import Moments, merge

RIDGES = (1e-1, 1e-2, 1e-3, 1e-4)
DAMP = 1e-2
BLOCK = 64
STEPS, RATE = 400, 0.02
ZETA, GAMMA = 1.1, -0.1


def fit(fitting: Moments, judging: Moments) -> tuple[np.ndarray, float]:
    """Return the change of the weights, (G, m, d), and the share of the error on unseen images that it leaves."""
    none = np.zeros(fitting.cross.shape).transpose(0, 2, 1)
    scores = {0.0: judging.loss(none)}
    for ridge in RIDGES:
        scores[ridge] = judging.loss(_change(fitting, ridge))
    best_rounding = min(scores, key=lambda ridge: scores[ridge])
    if not best_rounding:
        return none, 1.0
    return _change(merge(fitting, judging), best_rounding), scores[best_rounding] / scores[0.0]


def _change(moments: Moments, ridge: float) -> np.ndarray:
    matrix = _damped(moments.gram, ridge)
    return np.asarray(np.linalg.solve(matrix, moments.cross)).transpose(0, 2, 1)


def _damped(gram: np.ndarray, share: float) -> np.ndarray:
    """Add a share of each diagonal element to itself, and a little of their mean."""
    diagonal = np.einsum("gii->gi", gram)
    extra = share * (diagonal + 1e-3 * diagonal.mean(axis=1, keepdims=True)) + 1e-12
    return np.asarray(gram + extra[:, :, None] * np.eye(gram.shape[1]))


def nearest(ratio: np.ndarray) -> np.ndarray:
    """Return the nearest integers of weights over their scale."""
    return np.asarray(np.clip(np.rint(ratio), -LARGEST, LARGEST))


def loss(ratio: np.ndarray, integers: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Return for each output the error of rounding, (G, m), in squared steps: e H e^T."""
    error = integers - ratio
    return np.asarray(((error @ gram) * error).sum(axis=2))


def gptq(ratio: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """Round one input after the other, the loudest first, and let the rest take over the error.

    Args:
        ratio: Weights over their scale, (G, m, d).
        gram: E[x^ x^T], (G, d, d).

    Returns:
        Integers, (G, m, d), each next to its ratio.
    """
    width = gram.shape[1]
    order = np.argsort(-np.einsum("gii->i", gram), kind="stable")
    matrix = _damped(gram, DAMP)[:, order][:, :, order]
    upper = _inverse_root(matrix)
    left, original = ratio[:, :, order].copy(), ratio[:, :, order]
    integers = np.empty_like(left)
    for start in range(0, width, BLOCK):
        stop = min(start + BLOCK, width)
        errors = np.empty((*left.shape[:2], stop - start))
        for at in range(start, stop):
            low, high = np.floor(original[..., at]), np.ceil(original[..., at])
            integers[..., at] = np.clip(np.rint(left[..., at]), low, high)
            error = (left[..., at] - integers[..., at]) / upper[:, at, at][:, None]
            left[..., at + 1 : stop] -= error[..., None] * upper[:, None, at, at + 1 : stop]
            errors[..., at - start] = error
        left[..., stop:] -= errors @ upper[:, start:stop, stop:]
    result = np.empty_like(integers)
    result[..., order] = integers
    return np.asarray(np.clip(result, -LARGEST, LARGEST))


def _inverse_root(matrix: np.ndarray) -> np.ndarray:
    """Return the upper triangular U with U^T U = M^-1 of positive definite matrices, (G, d, d).

    The lower Cholesky factor C of M with its rows and columns turned round gives it: U is C^-1 turned round again. That
    takes a third of the time of inverting M and factoring the inverse.
    """
    return np.asarray(_lower_inverse(np.linalg.cholesky(matrix[:, ::-1, ::-1]))[:, ::-1, ::-1])


def _lower_inverse(lower: np.ndarray) -> np.ndarray:
    """Return the inverses of lower triangular matrices, (G, d, d), block by block."""
    width = lower.shape[1]
    if width <= BLOCK:
        return np.asarray(np.tril(np.linalg.inv(lower)))
    half = width // 2
    first, last = _lower_inverse(lower[:, :half, :half]), _lower_inverse(lower[:, half:, half:])
    inverse = np.zeros_like(lower)
    inverse[:, :half, :half], inverse[:, half:, half:] = first, last
    inverse[:, half:, :half] = -last @ (lower[:, half:, :half] @ first)
    return inverse


def adaround(ratio: np.ndarray, gram: np.ndarray, steps: int = STEPS) -> np.ndarray:
    """Learn for each weight whether it is rounded up or down; same arguments and result as `feedback`."""
    low = np.floor(ratio)
    gram = _damped(gram, DAMP) / max(float(np.einsum("gii->gi", gram).mean()), 1e-30)
    share = np.clip(ratio - low, 0.01, 0.99)
    logit = -np.log((ZETA - GAMMA) / (share - GAMMA) - 1)
    first, second = np.zeros_like(logit), np.zeros_like(logit)
    for step in range(1, steps + 1):
        sigmoid = 1 / (1 + np.exp(-logit))
        soft = sigmoid * (ZETA - GAMMA) + GAMMA
        up = np.clip(soft, 0, 1)
        slope = sigmoid * (1 - sigmoid) * (ZETA - GAMMA) * ((soft > 0) & (soft < 1))
        gradient = 2 * ((low + up - ratio) @ gram)
        if step > steps // 5:
            beta = 20 - 18 * (step - steps // 5) / (steps - steps // 5)
            off = 2 * up - 1
            gradient -= 0.1 * beta * 2 * np.sign(off) * np.abs(off) ** (beta - 1)
        gradient *= slope
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * np.square(gradient)
        logit -= RATE * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-12)
    return np.asarray(np.clip(low + (logit >= 0), -LARGEST, LARGEST))


def best_rounding(ratio: np.ndarray, gram: np.ndarray, learn: bool = False) -> np.ndarray:
    """Return for each output channel the rounding with the least error among those at hand."""
    choices = [nearest(ratio), gptq(ratio, gram)]
    if learn:
        choices.append(adaround(ratio, gram))
    scores = np.stack([loss(ratio, integers, gram) for integers in choices])
    return np.asarray(np.choose(scores.argmin(axis=0)[..., None], choices))
