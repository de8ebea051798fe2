"""Super-resolution: the first output is the image enlarged, (N, channels, H, W); also restoration at the same size.

Decoder: `range`, what the values are: "input" (the default), "unit", "signed" or "byte"; see `_pictures.as_picture`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..images.geometry import placement
from ._base import Score, Task
from ._pictures import alike, as_picture, check_range, is_picture, quality, visible

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs


class SuperResolve(Task):
    """The picture; PSNR and SSIM."""

    truth = "targets"
    metric = "psnr_db"
    title = "PSNR"
    scale = 1.0
    unit = "dB"
    points = "dB"
    max_drop = 0.2

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is an image."""
        return is_picture(next(iter(outputs.values())))

    def decode(self, outputs: Outputs, context: DecodeContext) -> NDArray[np.uint8]:
        """Return the picture, uint8 (H, W, 3) in RGB, without what was filled beside the image."""
        return visible(as_picture(next(iter(outputs.values())), context), context.place)

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the picture's size, height and width, under "picture"."""
        return {"picture": list(self.decode(outputs, context).shape[:2])}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the picture's size."""
        return "picture {1}x{0}".format(*row["picture"])

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the picture, at its own size."""
        picture: NDArray[Any] = answer
        return picture

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return the picture in bytes."""
        return {"picture": as_picture(next(iter(outputs.values())), context)}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of values that differ by at most one grey level."""
        return alike(batch["picture"], reference["picture"])

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `psnr_db` (equal pictures: 100), `ssim_ratio` and `images_count`, of the part that shows the image.

        Raises:
            DataError: A target cannot be read, or has another size than what the network makes.
        """
        places = [placement(truth.size, context.preprocess) if context.preprocess else None for truth in truths]
        pictures = [visible(one, place) for one, place in zip(batch["picture"], places, strict=True)]
        return quality(pictures, [truth.pixels() for truth in truths])

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings other than `range`.

        Raises:
            TypeError: A setting is unknown.
        """
        check_range(settings)


TASK = SuperResolve()
