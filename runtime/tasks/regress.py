"""Regression: numbers of an image, such as an age or a count; the first output is (N, numbers)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from ..images.drawing import corner_text
from ._base import Score, Task, first
from ._formulas import determination

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

ALIKE = 0.01  # of the spread of FP32's answers, by which two forms may differ and still agree


class Regress(Task):
    """The numbers, by the labels' names; R² and the mean absolute error."""

    truth = "values"
    metric = "r2"
    title = "R2"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (numbers,), or one number."""
        return next(iter(outputs.values())).ndim <= 1

    def decode(self, outputs: Outputs, context: DecodeContext) -> dict[str, float]:
        """Return each number by its label, or its index."""
        values = np.atleast_1d(next(iter(outputs.values()))).tolist()
        return {context.label(at): float(value) for at, value in enumerate(values)}

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the numbers under "values"."""
        return {"values": self.decode(outputs, context)}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the numbers with their names; one without a name alone."""
        values = row["values"]
        return ", ".join(f"{name} {value:.6g}" if len(values) > 1 or name != "0" else f"{value:.6g}"
                         for name, value in values.items())  # fmt: skip

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with the numbers written in its corner."""
        return corner_text(image, self.line({"values": answer}))

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of numbers that differ by at most 1 % of the spread of FP32's."""
        one, two = first(batch), first(reference)
        if one.shape != two.shape or not one.size:
            return None
        spread = two.std(axis=0, dtype=np.float64)
        return float((np.abs(one.astype(np.float64) - two) <= ALIKE * spread).mean())

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `r2`, the mean coefficient of determination of the numbers, `mae` in their unit, and `images_count`.

        Raises:
            DataError: The truths have another number of numbers, are all equal, or an answer is not finite.
        """
        answers = first(batch).reshape(len(truths), -1)
        values = np.array([truth.values for truth in truths], np.float64)
        if answers.shape != values.shape or not np.isfinite(answers).all():
            got = f"answers {answers.shape}, values {values.shape}"
            raise DataError("R2 cannot be computed", got=got, expected="as many finite numbers as the data has")
        share = determination(answers, values)
        if share is None:
            raise DataError("R2 cannot be computed", got="images whose values are all equal", do="add other ones")
        error = float(np.abs(answers - values).mean())
        return Score({"r2": share, "mae": error, "images_count": float(len(truths))})


TASK = Regress()
