"""Localisation of one object: the first output is (N, 4), centre x, centre y, width, height as shares of the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ..images.postprocess import Box, box
from ._base import Region, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import DecodeContext, Outputs, Size


class Localise(Task):
    """The bounding box of the object."""

    has_regions = True

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (4,)."""
        return next(iter(outputs.values())).shape == (4,)

    def decode(self, outputs: Outputs, context: DecodeContext) -> Box:
        """Return the rectangle."""
        return box(next(iter(outputs.values())))

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the rectangle under "box"."""
        return {"box": vars(self.decode(outputs, context))}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the edges in per cent of the image."""
        return "box " + ", ".join(f"{edge} {100 * value:.1f} %" for edge, value in row["box"].items())

    def regions(self, answer: Any, size: Size) -> list[Region]:
        """Return the rectangle, in pixels."""
        edges = np.array([answer.x1, answer.y1, answer.x2, answer.y2])
        return [Region(edges * [size[1], size[0], size[1], size[0]])]

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the image with the rectangle in red."""
        picture = need("PIL.Image").fromarray(np.ascontiguousarray(image))
        width, height = picture.size
        corners = (answer.x1 * width, answer.y1 * height, answer.x2 * width, answer.y2 * height)
        canvas = need("PIL.ImageDraw").Draw(picture)
        canvas.rectangle(corners, outline=(255, 0, 0), width=max(1, height // 100))
        return np.asarray(picture)


TASK = Localise()
