"""Embedding of an image, to be compared with others by the angle between them: the first output is (N, numbers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.proportion import wilson
from ..errors import DataError
from ._base import Score, Task
from ._formulas import cosine, recall_at_1, unit, verification_accuracy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

SHOWN = 4  # numbers in a line


class Embed(Task):
    """The vector of length 1; recall@1 on class folders, verification accuracy on pairs."""

    truth = "identity"
    metric = "match_ratio"
    title = "match"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is a vector, (D,) or (D, 1, 1)."""
        return _vector(outputs).ndim == 1

    def decode(self, outputs: Outputs, context: DecodeContext) -> NDArray[np.float32]:
        """Return the vector of length 1, float32 (D,)."""
        return unit(_vector(outputs)).astype(np.float32)

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the vector under "embedding"."""
        return {"embedding": self.decode(outputs, context).tolist()}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the first numbers of the vector, and how many there are."""
        values = row["embedding"]
        start = ", ".join(f"{value:.3f}" for value in values[:SHOWN])
        return f"{start}{', ...' if len(values) > SHOWN else ''} ({len(values)} numbers)"

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return the vector of length 1."""
        return {"vector": self.decode(outputs, context)}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the mean cosine between the vectors of two forms, 0 for a negative one."""
        one, two = np.asarray(batch["vector"]), np.asarray(reference["vector"])
        return None if one.shape != two.shape or not one.size else float(round(max(cosine(one, two).mean(), 0.0), 7))

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `match_ratio` and `images_count`: with classes `recall_at_1_ratio`, with pairs `verification_ratio`.

        With classes: the share of images whose nearest other image, no copy of it, is of the same class. With pairs:
        the share of pairs that the best threshold of the cosine, `threshold`, tells right.

        Raises:
            DataError: No image has another one of its class, or no pair has both its images.
        """
        vectors = np.asarray(batch["vector"])
        count = float(len(truths))
        if any(truth.same for truth in truths):
            return self._verified(vectors, truths)
        labels, names = (np.array([getattr(truth, name) for truth in truths]) for name in ("label", "name"))
        share = recall_at_1(vectors, labels, names)
        if share is None:
            raise DataError("recall@1 cannot be computed", got="no two images of one class")
        return Score({"match_ratio": share, "recall_at_1_ratio": share, "images_count": count})

    def _verified(self, vectors: NDArray[Any], truths: Sequence[Any]) -> Score:
        place = {truth.name: at for at, truth in enumerate(truths)}
        pairs = [
            (at, place[other], same) for at, one in enumerate(truths) for other, same in one.same if other in place
        ]
        if not pairs:
            raise DataError("verification accuracy cannot be computed", got="no pair whose two images are both here")
        one, two, same = (np.array(column) for column in zip(*pairs, strict=True))
        share, threshold = verification_accuracy(cosine(vectors[one], vectors[two]), same)
        values = {"match_ratio": share, "verification_ratio": share, "threshold": threshold}
        interval = wilson(round(share * len(pairs)), len(pairs))
        counts = {"pairs_count": float(len(pairs)), "images_count": float(len(truths))}
        return Score({**values, **counts}, {"match_ratio": interval})


def _vector(outputs: Outputs) -> NDArray[Any]:
    output = next(iter(outputs.values()))
    return output.reshape(-1) if output.ndim > 1 and output.size == max(output.shape) else output


TASK = Embed()
