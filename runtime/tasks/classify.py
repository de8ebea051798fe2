"""Classification of an image: the first output is (N, classes)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.proportion import wilson
from ..errors import DataError
from ..images.drawing import corner_text
from ..images.postprocess import Guess, top_k
from ._base import CLASS, Score, Task, first

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs


class Classify(Task):
    """The best classes with their probabilities; top-1, top-5."""

    has_classes = True
    truth = CLASS
    metric = "top1_ratio"
    title = "top-1"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (classes,)."""
        return next(iter(outputs.values())).ndim == 1

    def decode(self, outputs: Outputs, context: DecodeContext) -> tuple[Guess, ...]:
        """Return the best classes, best first."""
        values = next(iter(outputs.values()))
        most = len(values) if context.most is None else context.most
        return top_k(values, most, context.labels, context.scores)

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the best classes under "top"."""
        return {"top": [vars(guess) for guess in self.decode(outputs, context)]}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the best class with its probability."""
        best = row["top"][0]
        return f"{best['label']} {100 * best['probability']:.2f} %"

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with the best class written in its corner."""
        best = answer[0]
        return corner_text(image, f"{best.label} {100 * best.probability:.0f} %")

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of images, or of pixels, whose best class is the same."""
        one, two = first(batch), first(reference)
        if one.ndim < 2 or one.shape != two.shape or not one.size:
            return None
        return float((one.argmax(axis=1) == two.argmax(axis=1)).mean())

    def score(self, batch: Batch, truths: Any, context: DecodeContext) -> Score:
        """Return `top1_ratio`, `top5_ratio` of more than five classes, and `images_count`, with Wilson intervals.

        Raises:
            DataError: The shapes do not match, there are no images, or a score is not finite.
        """
        output, labels = first(batch), np.asarray(truths)
        if output.ndim != 2 or len(output) != len(labels) or not len(labels):
            raise DataError("accuracy cannot be computed", got=f"logits {output.shape}, labels {labels.shape}")
        if not np.isfinite(output).all():
            count = int((~np.isfinite(output)).sum())
            raise DataError("accuracy cannot be computed", got=f"{count} logits that are not finite")
        count, right = len(labels), self.correct(output, labels)
        hits = {1: int(right.sum())}
        if output.shape[1] > 5:
            best = np.argsort(-output, axis=1, kind="stable")[:, :5]
            hits[5] = int((best == labels[:, None]).any(1).sum())
        values = {f"top{k}_ratio": some / count for k, some in hits.items()}
        intervals = {f"top{k}_ratio": wilson(some, count) for k, some in hits.items()}
        by_class = [
            {
                "class": int(one),
                "images_count": int((labels == one).sum()),
                "top1_ratio": float(right[labels == one].mean()),
            }
            for one in np.unique(labels)
        ]
        return Score({**values, "images_count": float(count)}, intervals, by_class)

    def correct(self, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
        """Return for which images the best class is the label, bool (N,)."""
        right: NDArray[Any] = output.argmax(axis=1) == labels
        return right


TASK = Classify()
