"""Text in an image: the first output is (N, time, characters), or (time, N, characters), decoded by CTC.

Graves et al., «Connectionist Temporal Classification», 2006, best path: the best character of each step, repetitions
merged, blanks removed. `labels` are the characters, one a line; «<space>» is the space between words. They may leave
out the CTC's blank, and then also the space, which comes last (as PaddleOCR's dictionaries do).

Decoder: `blank`, the index of the CTC's blank, 0 by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.proportion import wilson
from ..errors import DataError
from ..images.drawing import corner_text
from ..images.postprocess import probabilities
from ._base import Score, Task
from ._formulas import edit_distance

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

SPACE = "<space>"


@dataclass(frozen=True)
class RecognisedText:
    """A text, and the mean probability of its characters, 0 to 1; of no text that of the blanks."""

    text: str
    confidence: float


class Text(Task):
    """The text and its confidence; character error rate."""

    batch_first = False
    truth = "text"
    metric = "cer_ratio"
    title = "CER"
    higher_is_better = False

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (time, characters), with as many characters as the labels say."""
        output = _steps(outputs)
        if output.ndim != 2 or 0 in output.shape or _blank(context) >= output.shape[1]:
            return False
        return not context.labels or 0 <= output.shape[1] - len(context.labels) <= 2

    def decode(self, outputs: Outputs, context: DecodeContext) -> RecognisedText:
        """Return the text of the best path."""
        return _read(self.reduce(outputs, context), context)

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return "text" and "confidence"."""
        return vars(self.decode(outputs, context))

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the text with its confidence; a control character as its escape."""
        return f"{row['text']!r} {100 * row['confidence']:.1f} %"

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with the text written in its corner."""
        return corner_text(image, f"{answer.text} {100 * answer.confidence:.0f} %")

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return the best character of each step, its probability, and the number of characters."""
        output = _steps(outputs)
        chances = probabilities(output, context.scores, axis=1)
        size = np.array(output.shape[1])
        return {"path": output.argmax(axis=1).astype(np.int32), "chance": chances.max(axis=1), "characters": size}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of images with the same text."""
        same = [one == two for one, two in zip(_texts(batch, context), _texts(reference, context), strict=True)]
        return sum(same) / len(same) if same else None

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `cer_ratio`, `exact_ratio` and `images_count`.

        The character error rate is the number of characters to insert, delete or replace in all texts, over the
        number of characters of the true ones; it may exceed 1.

        Raises:
            DataError: There are no labels: nothing says which characters are meant; or there are no images.
        """
        if not context.labels or not len(truths):
            got = "no images" if context.labels else "no labels"
            raise DataError("CER cannot be computed", got=got, do="give the characters, one a line (--labels)")
        texts = _texts(batch, context)
        errors = sum(edit_distance(text, truth.text) for text, truth in zip(texts, truths, strict=True))
        exact = sum(text == truth.text for text, truth in zip(texts, truths, strict=True))
        values = {"cer_ratio": errors / sum(len(truth.text) for truth in truths), "exact_ratio": exact / len(truths)}
        return Score({**values, "images_count": float(len(truths))}, {"exact_ratio": wilson(exact, len(truths))})

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings other than `blank`, an index.

        Raises:
            TypeError: A setting is unknown, or the blank is no index.
        """
        blank = settings.get("blank", 0)
        if set(settings) - {"blank"} or isinstance(blank, bool) or not isinstance(blank, int) or blank < 0:
            raise TypeError(f"decoder {dict(settings)}: expected blank, an index from 0")

    def guess_decoder(self, shapes: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], int]:
        """Return no settings, and the number of characters: of the labels, or of the first output."""
        shape = next(iter(shapes.values()))
        return {}, classes or (shape[-1] if shape else 0) or 0


def _steps(outputs: Outputs) -> NDArray[Any]:
    """Return the first output without a batch axis of one, which nothing told from a time axis: (time, characters)."""
    output = next(iter(outputs.values()))
    if output.ndim == 3 and 1 in output.shape[:2]:
        return output[0] if output.shape[0] == 1 else output[:, 0]
    return output


def _blank(context: DecodeContext) -> int:
    return int(context.decoder.get("blank", 0))


def _characters(count: int, context: DecodeContext) -> list[str]:
    """Return the character of each of the network's classes, "" for the blank."""
    labels = [" " if label == SPACE else label for label in context.labels]
    blank, missing = _blank(context), count - len(labels)
    if not labels:
        labels = [f"{at} " for at in range(count)]
    elif missing:
        labels = [*labels, *[" "] * (missing - 1)]
        labels.insert(blank, "")
    labels[blank] = ""
    return labels


def _read(path: Mapping[str, Any], context: DecodeContext) -> RecognisedText:
    steps, chances = np.asarray(path["path"]), np.asarray(path["chance"])
    begins = np.append(True, steps[1:] != steps[:-1])
    kept = begins & (steps != _blank(context))
    names = _characters(int(path["characters"]), context)
    text = "".join(names[at] for at in steps[kept].tolist()).rstrip(" " if not context.labels else "")
    return RecognisedText(text, float((chances[kept] if kept.any() else chances).mean()))


def _texts(batch: Batch, context: DecodeContext) -> list[str]:
    count = len(batch["path"])
    return [_read({name: values[at] for name, values in batch.items()}, context).text for at in range(count)]


TASK = Text()
