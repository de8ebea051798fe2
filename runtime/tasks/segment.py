"""Segmentation, one class per pixel: the first output is (N, classes, H, W)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ..images.postprocess import class_map
from ._base import Task
from .classify import TASK as CLASSIFY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

_PALETTE = 255 * np.array([(at >> 2 & 1, at >> 1 & 1, at & 1) for at in range(8)], np.uint8)


class Segment(Task):
    """The map of classes, int64 (H, W)."""

    has_classes = True

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (classes, H, W)."""
        return next(iter(outputs.values())).ndim == 3

    def decode(self, outputs: Outputs, context: DecodeContext) -> NDArray[np.int64]:
        """Return the best class of each pixel."""
        return class_map(next(iter(outputs.values())))

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the map's size and the `most` largest classes with their share of the pixels under "class_map"."""
        classes_of = self.decode(outputs, context)
        classes, counts = np.unique(classes_of, return_counts=True)
        order = np.argsort(-counts, kind="stable")[: context.most]
        names = [context.label(at) for at in classes.tolist()]
        shares = {names[at]: float(counts[at] / classes_of.size) for at in order.tolist()}
        return {"class_map": {"size": list(classes_of.shape), "shares": shares}}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the largest classes with their share of the pixels."""
        return "map " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in row["class_map"]["shares"].items())

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image overlaid with the map, one colour per class."""
        pillow = need("PIL.Image")
        picture = pillow.fromarray(np.ascontiguousarray(image))
        over = pillow.fromarray(_PALETTE[answer % len(_PALETTE)]).resize(picture.size, pillow.Resampling.NEAREST)
        return np.asarray(pillow.blend(picture, over, 0.5))

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of pixels whose best class is the same."""
        return CLASSIFY.agreement(batch, reference, context)


TASK = Segment()
