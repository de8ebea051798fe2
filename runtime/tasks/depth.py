"""Depth of each pixel: the first output is (N, H, W) or (N, 1, H, W), in metres.

Decoder: `inverse`, true where the output is 1 / depth; `median`, true where its scale is unknown, so that the score
first brings the median of each map to that of the truth (Zhou et al., 2017). Both are false by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need
from ..errors import DataError
from ..images.geometry import placement
from ._base import Score, Task
from ._formulas import abs_rel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._base import Batch, DecodeContext, Outputs

LEAST_INVERSE = 1e-6  # of a metre: what is further away is at that distance
NEAR = 1.25  # of Eigen et al.: the share of pixels whose ratio to the truth is below it
ALIKE = 1.05


class Depth(Task):
    """The map of depths, at the image's size where that is known; the absolute relative error."""

    truth = "depth"
    metric = "abs_rel_ratio"
    title = "abs rel"
    higher_is_better = False

    def fits(self, outputs: Outputs, context: DecodeContext) -> bool:
        """Return whether the first output is (H, W) or (1, H, W)."""
        output = next(iter(outputs.values()))
        return bool(output.size) and (output.ndim == 2 or (output.ndim == 3 and output.shape[0] == 1))

    def decode(self, outputs: Outputs, context: DecodeContext) -> NDArray[np.float32]:
        """Return the depth of each pixel, float32 (H, W); 0 where the network saw nothing."""
        depth = _depth(outputs, context)
        return context.place.mask_to_image(depth) if context.place else depth

    def show(self, outputs: Outputs, context: DecodeContext) -> dict[str, Any]:
        """Return the map's size and its least, median and greatest depth under "depth"."""
        depth = self.decode(outputs, context)
        low, middle, high = (float(value) for value in np.percentile(depth, (0, 50, 100)))
        return {"depth": {"size": list(depth.shape), "least": low, "median": middle, "most": high}}

    def line(self, row: Mapping[str, Any]) -> str:
        """Return the range of the depths."""
        return "depth {least:.3g} to {most:.3g}, median {median:.3g}".format(**row["depth"])

    def draw(self, image: NDArray[Any], answer: Any) -> NDArray[Any] | None:
        """Return the map in colours: red is near, blue is far; the scale is that of this image."""
        pillow = need("PIL.Image")
        low, high = (float(value) for value in np.percentile(answer, (2, 98)))
        share = np.clip((answer - low) / ((high - low) or 1.0), 0, 1)
        colour = np.stack([np.clip(1.5 - np.abs(4 * share - at), 0, 1) for at in (1, 2, 3)], axis=2)
        picture = pillow.fromarray(np.rint(255 * colour).astype(np.uint8))
        return np.asarray(picture.resize((image.shape[1], image.shape[0]), pillow.Resampling.NEAREST))

    def reduce(self, outputs: Outputs, context: DecodeContext) -> Outputs:
        """Return the depth of each pixel of the input, float32."""
        return {"depth": _depth(outputs, context)}

    def agreement(self, batch: Batch, reference: Batch, context: DecodeContext) -> float | None:
        """Return the share of pixels whose depth is within 5 % of FP32's."""
        pairs = list(zip(batch["depth"], reference["depth"], strict=True))
        if not pairs or any(one.shape != two.shape for one, two in pairs):
            return None
        near = sum(int((np.maximum(one, two) <= ALIKE * np.minimum(one, two)).sum()) for one, two in pairs)
        return near / sum(int(one.size) for one, _ in pairs)

    def score(self, batch: Batch, truths: Sequence[Any], context: DecodeContext) -> Score:
        """Return `abs_rel_ratio` and `near_ratio`, means over the images, and `images_count`.

        Judged are the pixels that have a truth and that the network saw; `near_ratio` is the share of those whose
        depth is within a factor of 1.25.

        Raises:
            DataError: A map cannot be read or has another size than its image, or no pixel can be judged.
        """
        errors, shares = [], []
        for answer, truth in zip(batch["depth"], truths, strict=True):
            depth, metres = answer.astype(np.float64), truth.metres()
            if context.preprocess:
                depth = placement(truth.size, context.preprocess).mask_to_image(depth, outside=np.nan)
            if depth.shape != metres.shape:
                got, expected = (f"{one.shape[1]}x{one.shape[0]}" for one in (metres, depth))
                raise DataError("a map of depths has another size than its image", got=got, expected=expected)
            metres = np.where(np.isfinite(depth), metres, 0)
            known = (metres > 0) & np.isfinite(metres)
            if not known.any():
                continue
            if context.decoder.get("median"):
                depth = depth * (np.median(metres[known]) / max(float(np.median(depth[known])), LEAST_INVERSE))
            ratio = depth[known] / metres[known]
            errors.append(abs_rel(depth[known], metres[known]))
            shares.append(float(((ratio < NEAR) & (ratio > 1 / NEAR)).mean()))
        if not errors:
            raise DataError("the error of the depth cannot be computed", got="no pixel with a truth")
        values = {"abs_rel_ratio": float(np.mean(errors)), "near_ratio": float(np.mean(shares))}
        return Score({**values, "images_count": float(len(errors))})

    def check_decoder(self, settings: Mapping[str, Any]) -> None:
        """Refuse settings other than `inverse` and `median`, true or false.

        Raises:
            TypeError: A setting is unknown, or neither true nor false.
        """
        if set(settings) - {"inverse", "median"} or not all(isinstance(value, bool) for value in settings.values()):
            raise TypeError(f"decoder {dict(settings)}: expected inverse or median, true or false")


def _depth(outputs: Outputs, context: DecodeContext) -> NDArray[np.float32]:
    output = next(iter(outputs.values()))
    depth: NDArray[np.float32] = output.reshape(output.shape[-2:]).astype(np.float32)
    if context.decoder.get("inverse"):
        depth = (1 / np.maximum(depth, LEAST_INVERSE)).astype(np.float32)
    return depth


TASK = Depth()
