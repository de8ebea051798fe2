"""A backend that returns zeros of the declared shapes, to measure the overhead of the runtime.

It reads a small JSON file, so a bundle for it needs no framework:

    {"inputs": [{"name": "input", "shape": [1, 3, 64, 64], "dtype": "float32"}], "outputs": [...]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError
from ._base import Session, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class NullSession(Session):
    """Returns zeros; a dynamic first axis has the batch size of the first input, other dynamic axes are 1."""

    def __init__(self, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        self.inputs, self.outputs = inputs, outputs

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        batch = feeds[self.inputs[0].name].shape[0] if self.inputs else 1
        return {
            tensor.name: np.zeros([batch if at == 0 else dim or 1 for at, dim in enumerate(tensor.shape)], tensor.dtype)
            for tensor in self.outputs
        }


def available() -> tuple[bool, str]:
    """Return (True, reason): it has no requirements."""
    return True, "needs nothing, computes nothing"


def open(path: str | Path, *, threads: int | None = None, content: bytes | None = None, **options: Any) -> NullSession:
    """Read the declared inputs and outputs, from `content` or the file; `threads` and the options are ignored.

    Raises:
        ModelError: The file is no such JSON.
    """
    try:
        values = json.loads(Path(path).read_bytes() if content is None else content)
        inputs, outputs = (
            tuple(Tensor(str(t["name"]), tuple(t["shape"]), np.dtype(t["dtype"]).name) for t in values[key])
            for key in ("inputs", "outputs")
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(
            f"{path} is not a null model", got=str(error), expected="JSON with inputs and outputs"
        ) from error
    return NullSession(inputs, outputs)
