"""What a graph and calibration images must be before anything is quantised."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...runtime.errors import DataError, ModelError
from .samples import Samples

if TYPE_CHECKING:
    import onnx


def input_shape(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the shape of the only input that is no initializer; None for a free dimension.

    Raises:
        ModelError: There is not exactly one float32 input of known rank.
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    given = [item for item in model.graph.input if item.name not in constant]
    kind = given[0].type.tensor_type if given else None
    if len(given) != 1 or kind is None or kind.elem_type != 1 or len(kind.shape.dim) < 2:
        raise ModelError(
            "calibration needs a graph with one float32 input",
            got=f"inputs {[item.name for item in given]}",
            expected="one float32 tensor, batch first",
        )
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)


def check_model(model: onnx.ModelProto, source: str | Path) -> None:
    """Refuse a graph that is quantised already, still has BatchNormalization, or is too old.

    Raises:
        ModelError: With what to do.
    """
    from .placement import is_quantised

    if is_quantised(model):
        raise ModelError(
            f"{source} is quantised already", expected="a float32 graph", do="quantise the float file it came from"
        )
    norms = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if norms:
        raise ModelError(
            f"{source} still has BatchNormalization",
            got=f"{len(norms)} nodes, first {norms[0]!r}",
            expected="BatchNormalization folded into the convolutions",
            do="run `edgesmith optimize` on it first",
        )
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if not versions or max(versions) < 13:
        raise ModelError(
            f"{source} is of opset {max(versions, default=0)}", expected="opset 13 or later", do="export it again"
        )


def check_data(samples: Samples, min_images: int, allow_random: bool) -> int:
    """Count the images and refuse too few, copies, even images, and random noise where it was not asked for.

    Returns:
        How many images there are.

    Raises:
        DataError: With what to do.
    """
    seen: set[bytes] = set()
    images = even = 0
    for batch in samples:
        images += len(batch)
        even += int((np.ptp(batch.reshape(len(batch), -1), axis=1) == 0).sum())
        seen |= {hashlib.blake2b(image.tobytes(), digest_size=8).digest() for image in batch}
    enough = f"at least {min_images}"
    if images < min_images:
        raise DataError(
            "too few calibration images", got=str(images), expected=enough, do="give more images (128 to 512 is usual)"
        )
    if len(seen) - (even > 0) < min_images:
        got = f"{len(seen)} among {images}, {even} of {images} of one colour"
        raise DataError("too few different calibration images", got=got, expected=enough, do="give different images")
    if not allow_random and _looks_random(next(iter(samples))):
        raise DataError(
            "the calibration images look like random noise",
            expected="real images: neighbouring pixels alike",
            do="give real images, or allow random data (`--allow-random`)",
        )
    return images


def _looks_random(batch: np.ndarray) -> bool:
    """Say whether neighbouring pixels are uncorrelated (|r| < 0.1), as they never are in photographs or digits."""
    if batch.ndim != 4 or batch.shape[-1] < 8:
        return False
    one, two = batch[..., :-1].ravel().astype(np.float64), batch[..., 1:].ravel().astype(np.float64)
    if one.std() == 0 or two.std() == 0:
        return False
    return bool(abs(np.corrcoef(one, two)[0, 1]) < 0.1)
