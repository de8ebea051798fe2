"""Base class of tasks; the file of a task overrides what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[Any]]
    Metrics = tuple[dict[str, float], dict[str, tuple[float, float]]]

SMALL = 8  # numbers of an output that are shown


class Task:
    """One task; this base class returns the outputs unchanged.

    `outputs` are the outputs of one image by name, without the batch axis; `output` is the first output of N images,
    batch axis first. `labels` are the classes' names, and `scores` is the spec's ("logits", "probabilities", "").

    Attributes:
        batch_first: A network of this task gives one answer per image, batch axis first.
        has_classes: The first output holds class scores, one set per image or pixel.
        learns_labels: The class of an image is the correct answer, so class folders can train and score it.
        metric: The key of the accuracy in `score`, a share from 0 to 1; "" if there is none.
        title: Display name of that metric.
    """

    batch_first = True
    has_classes = False
    learns_labels = False
    metric = ""
    title = "score"

    def fits(self, outputs: Outputs) -> bool:
        """Return whether outputs have the shapes that `decode` needs."""
        return True

    def decode(self, outputs: Outputs, labels: Sequence[str] = (), scores: str = "", most: int | None = None) -> Any:
        """Return the answer for one image; of a list the `most` best."""
        return outputs

    def show(
        self, outputs: Outputs, labels: Sequence[str] = (), scores: str = "", most: int | None = None
    ) -> dict[str, Any]:
        """Return the answer as plain values under the key that names it: here shapes, and what small outputs hold."""
        small = {name: value.tolist() for name, value in outputs.items() if value.size <= SMALL}
        shapes = {name: list(value.shape) for name, value in outputs.items()}
        return {"outputs": shapes, **({"values": small} if small else {})}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the result of `show` as text on one line."""
        small = row.get("values", {})
        return ", ".join(f"{name} {small.get(name, shape)}" for name, shape in row["outputs"].items())

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return a copy of an image, uint8 (H, W, 3), with its decoded answer drawn on it; None if impossible."""
        return None

    def agreement(self, output: NDArray[Any], reference: NDArray[Any]) -> float | None:
        """Return the share of equal choices, 0 to 1; None if the task has no choices, or the shapes differ."""
        return None

    def score(self, output: NDArray[Any], labels: NDArray[Any]) -> Metrics:
        """Return metrics of an output against labels (N,), and the 95 % intervals of those that have one.

        Raises:
            DataError: Class labels cannot score this task, or the shapes do not match.
        """
        from ..errors import DataError

        raise DataError("accuracy cannot be computed", got="a task that has no class labels")

    def correct(self, output: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any] | None:
        """Return which answers match their labels, bool (N,); None if the metric is not a share of the images."""
        return None
