"""Segmentation, one class per pixel: the first output is (N, classes, H, W).

Also (N, 1, H, W), whose pixels are of class 1 above the middle, and whole numbers (N, H, W) or (N, 1, H, W), which are
the classes. A coarser map of scores is enlarged to the input, bilinearly, before the best class is taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ..errors import DataError
from ..images.drawing import legend, paint
from ..images.geometry import placement
from ..images.postprocess import class_map
from ..images.torch_resize import resize_matrix
from ._base import Score, Task
from ._formulas import UNSEEN, class_ious, confusion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

FEW = 1 << 16  # classes that are counted in a table


@dataclass(frozen=True, eq=False)
class ClassMap:
    """The class of each pixel: int64 (H, W), UNSEEN (-1) where the network saw nothing; `names` has their names."""

    pixels: NDArray[np.int64]
    names: Mapping[int, str]


class Segment(Task):
    """The map of classes, at the image's size where that is known; mIoU."""

    has_classes = True
    truth = "masks"
    metric = "miou_ratio"
    title = "mIoU"

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (classes, H, W), or a map of whole numbers."""
        output = next(iter(outputs.values()))
        return bool(output.size) and (output.ndim == 3 or (output.ndim == 2 and output.dtype.kind in "iu"))

    def decode(self, outputs: Outputs, context: DecodeContext) -> ClassMap:
        """Return the best class of each pixel, of the image where its size is known, else of the input."""
        classes = _classes(next(iter(outputs.values())), context)
        if context.place:
            classes = context.place.mask_to_image(classes, outside=UNSEEN)
        return ClassMap(classes, {at: context.label(at) for at, _ in _shares(classes)})

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the map's size and the `most` largest classes with their share of the pixels under "class_map"."""
        answer = self.decode(outputs, context)
        shares = {answer.names[at]: share for at, share in _shares(answer.pixels)[: context.most]}
        return {"class_map": {"size": list(answer.pixels.shape), "shares": shares}}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the largest classes with their share of the pixels."""
        return "map " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["class_map"]["shares"].items())

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image overlaid with the map, one colour per class, and a legend of the largest classes."""
        pillow = need("PIL.Image")
        picture = pillow.fromarray(np.ascontiguousarray(image))
        over = pillow.fromarray(paint(answer.pixels)).resize(picture.size, pillow.Resampling.NEAREST)
        return legend(
            pillow.blend(picture, over, 0.5),
            [(answer.names[at], at, f"{100 * share:.0f} %") for at, share in _shares(answer.pixels)],
        )

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return the class of each pixel of the input, in a byte each where 256 classes are enough."""
        classes = _classes(next(iter(outputs.values())), context)
        small = classes.min(initial=0) >= 0 and classes.max(initial=0) < 256
        return {"classes": classes.astype(np.uint8) if small else classes}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of pixels whose best class is the same."""
        pairs = list(zip(batch["classes"], reference["classes"], strict=True))
        if not pairs or any(one.shape != two.shape for one, two in pairs):
            return None
        same = sum(int((one == two).sum()) for one, two in pairs)
        return same / sum(int(one.size) for one, _ in pairs)

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `miou_ratio`, `pixel_accuracy_ratio`, `images_count`, and the IoU of each class, over all pixels.

        A pixel whose mask is 255 is not judged; one that the network did not see is missed.

        Raises:
            DataError: A mask cannot be read or has a class that the network has not, or there are no judged pixels.
        """
        classes = max(context.classes, 2)
        counts, images = np.zeros((classes, classes + 1), np.int64), np.zeros(classes, np.int64)
        for answer, truth in zip(batch["classes"], truths, strict=True):
            pixels = answer.astype(np.int64)
            if context.preprocess:
                place = placement(truth.size, context.preprocess)
                pixels = place.mask_to_image(pixels, outside=UNSEEN)
            if pixels.max(initial=0) >= classes:
                raise DataError("the network gives a class that its spec has not", got=f"class {pixels.max()}",
                                expected=f"0 to {classes - 1}", do="set the number of classes in the spec")  # fmt: skip
            one = confusion(truth.pixels(), pixels, classes)
            counts += one
            images += one.sum(axis=1) > 0
        if not counts.sum():
            raise DataError("mIoU cannot be computed", got="no pixel that is judged")
        ious = class_ious(counts)
        accuracy = float(np.diagonal(counts).sum() / counts.sum())
        by_class = [
            {"class": at, "images_count": int(images[at]), "miou_ratio": float(iou)}
            for at, iou in enumerate(ious)
            if images[at]
        ]
        values = {"miou_ratio": float(np.nanmean(ious)), "pixel_accuracy_ratio": accuracy}
        return Score({**values, "images_count": float(len(truths))}, {}, by_class)

    def guess_decoder(self, shapes: Mapping[str, Any], classes: int) -> tuple[dict[str, Any], int]:
        """Return no settings, and the number of classes that the first output has scores of; two of one score."""
        shape = next(iter(shapes.values()))
        count = shape[0] if len(shape) == 3 else 0
        return {}, classes or (max(count, 2) if count else 0)


def _classes(output: NDArray[Any], context: DecodeContext) -> NDArray[np.int64]:
    """Return the class of each pixel, int64 (H, W), of the input or finer."""
    if output.dtype.kind in "iu":
        return (
            output.reshape(output.shape[-2:]).astype(np.int64)
            if output.ndim == 2 or len(output) == 1
            else class_map(output)
        )
    size = context.preprocess.crop if context.preprocess else output.shape[1:]
    scores = np.asarray(output, np.float32)
    if scores.shape[1] < size[0] or scores.shape[2] < size[1]:
        rows, columns = (resize_matrix(scores.shape[1 + axis], size[axis], "torch-bilinear") for axis in (0, 1))
        scores = np.asarray(rows @ scores @ columns.T, np.float32)
    if len(scores) > 1:
        return class_map(scores)
    shares = context.scores == "probabilities" or (not context.scores and scores.min() >= 0 and scores.max() <= 1)
    classes: NDArray[np.int64] = (scores[0] > (0.5 if shares else 0)).astype(np.int64)
    return classes


def _shares(pixels: NDArray[np.int64]) -> list[tuple[int, float]]:
    """Return each class with its share of the pixels, the largest first."""
    if pixels.min(initial=0) >= UNSEEN and pixels.max(initial=0) < FEW:  # many times faster than sorting the pixels
        counts = np.bincount(pixels.ravel() + 1)[1:]
        classes = np.flatnonzero(counts)
        counts = counts[classes]
    else:
        classes, counts = np.unique(pixels[pixels != UNSEEN], return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(classes[at]), float(counts[at] / pixels.size)) for at in order]


TASK = Segment()
