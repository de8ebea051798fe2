"""Several labels of an image at once: the first output is (N, labels), each judged by itself.

`scores` of the spec says what it holds: "probabilities", or "logits", which a sigmoid makes probabilities; if it says
nothing, values that are all from 0 to 1 are probabilities.

Decoder: `threshold`, the probability from which an image has a label, 0.5 by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..images.drawing import corner_text
from ..images.postprocess import Guess
from ._base import Score, Task, first
from ._formulas import average_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs


class MultiLabel(Task):
    """The labels that an image has, with their probabilities; mean average precision."""

    truth = "label sets"
    metric = "map_ratio"
    title = "mAP"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (labels,)."""
        output = next(iter(outputs.values()))
        return output.ndim == 1 and bool(output.size)

    def decode(self, outputs: Outputs, context: DecodeContext) -> tuple[Guess, ...]:
        """Return the labels whose probability reaches the threshold, best first."""
        chances = _probabilities(next(iter(outputs.values())), context)
        order = np.argsort(-chances, kind="stable")
        order = order[chances[order] >= _threshold(context)][: context.most]
        return tuple(Guess(context.label(at), at, float(chances[at])) for at in order.tolist())

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the labels under "labels"."""
        return {"labels": [vars(guess) for guess in self.decode(outputs, context)]}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the labels with their probabilities."""
        return ", ".join(f"{one['label']} {100 * one['probability']:.1f} %" for one in row["labels"]) or "no label"

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with the labels written in its corner."""
        return corner_text(
            image, ", ".join(f"{one.label} {100 * one.probability:.0f} %" for one in answer) or "no label"
        )

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of labels of all images that both forms give or both do not."""
        one, two = first(batch), first(reference)
        if one.shape != two.shape or not one.size:
            return None
        threshold = _threshold(context)
        same = (_probabilities(one, context) >= threshold) == (_probabilities(two, context) >= threshold)
        return float(same.mean())

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `map_ratio`, the mean of the average precision of each label that some image has, and `images_count`.

        Raises:
            DataError: No image has a label, a label is not one of the network's, or a score is not finite.
        """
        scores = first(batch)
        if scores.ndim != 2 or len(scores) != len(truths) or not np.isfinite(scores).all():
            raise DataError("mAP cannot be computed", got=f"scores {scores.shape}", expected="finite (images, labels)")
        marks = np.zeros(scores.shape, bool)
        for row, truth in zip(marks, truths, strict=True):
            if truth.labels.max(initial=-1) >= scores.shape[1]:
                got = f"label {truth.labels.max()}"
                raise DataError("mAP cannot be computed", got=got, expected=f"0 to {scores.shape[1] - 1}")
            row[truth.labels] = True
        by_class = [
            {"class": at, "images_count": int(column.sum()), "map_ratio": average_precision(scores[:, at], column)}
            for at, column in enumerate(marks.T)
            if column.any()
        ]
        if not by_class:
            raise DataError("mAP cannot be computed", got="no image that has a label")
        values = {"map_ratio": float(np.mean([row["map_ratio"] for row in by_class]))}
        return Score({**values, "images_count": float(len(truths))}, {}, by_class)

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings other than `threshold`, from 0 to 1.

        Raises:
            TypeError: A setting is unknown, or the threshold is no such number.
        """
        value = settings.get("threshold", 0.5)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if set(settings) - {"threshold"} or not number or not 0 <= value <= 1:
            raise TypeError(f"decoder {dict(settings)}: expected threshold, from 0 to 1")

    def guess_decoder(self, shapes: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], int]:
        """Return no settings, and the number of labels that the first output has scores of."""
        shape = next(iter(shapes.values()))
        return {}, classes or (shape[0] if len(shape) == 1 else 0) or 0


def _threshold(context: DecodeContext) -> float:
    return float(context.decoder.get("threshold", 0.5))


def _probabilities(values: NDArray[Any], context: DecodeContext) -> NDArray[np.float64]:
    scores = values.astype(np.float64)
    if context.scores == "probabilities" or (not context.scores and scores.min() >= 0 and scores.max() <= 1):
        return scores
    result: NDArray[np.float64] = 0.5 * (1 + np.tanh(scores / 2))  # the sigmoid, without overflow
    return result


TASK = MultiLabel()
