"""From the network's output to an answer: softmax and the best classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Guess:
    """One class: its label, its index, and the probability the network gives it, 0 to 1."""

    label: str
    index: int
    probability: float


def softmax(logits: NDArray[Any], axis: int = -1) -> NDArray[np.float32]:
    """Return exp(x) / sum(exp(x)) along an axis, computed so that large logits do not overflow; float32."""
    x = logits.astype(np.float32)
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    result: NDArray[np.float32] = e / e.sum(axis=axis, keepdims=True)
    return result


def top_k(logits: NDArray[Any], k: int, labels: Sequence[str] = ()) -> tuple[Guess, ...]:
    """Return the `k` best classes of one image, best first; of equals the one with the lower index first.

    Args:
        logits: (classes,), before softmax.
        k: How many; more than there are gives all.
        labels: A name for each class; without them the index is the name.
    """
    probabilities = softmax(logits)
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(
        Guess(labels[at] if at < len(labels) else str(at), int(at), float(probabilities[at])) for at in order.tolist()
    )
