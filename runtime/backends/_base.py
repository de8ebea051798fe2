"""Interface of a backend: a file with `available`, `open`, and a Session that computes.

    available() -> (bool, reason)                 cheap; the reason says what is missing and how to fix it
    open(path, *, threads=None, content=None, **options)
                                                  -> Session; ModelError if the file cannot be loaded

`content` is the bytes of the file if the caller has already checked them: these bytes, not the file, are loaded.

A Session checks its inputs, so that a wrong shape is a clear error and not a crash in native code.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.closeable import Closeable
from ..common.sizes import settle_shape
from ..errors import DataError, RunError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ..spec import ModelSpec


@dataclass(frozen=True)
class Tensor:
    """One input or output: its name, its shape (None for a dynamic axis) and the name of its NumPy dtype.

    `names` are the names of the axes if the backend reports them, "" for none; axes of one name have equal sizes.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    names: tuple[str, ...] = field(default=(), compare=False)

    @functools.cached_property
    def numpy(self) -> np.dtype[Any]:
        """The dtype object: comparing dtypes is much faster than comparing names."""
        return np.dtype(self.dtype)


class Session(Closeable):
    """A loaded model. Subclasses set `inputs` and `outputs`, and implement `_run` and `_close`."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    closed = False

    @functools.cached_property
    def batched(self) -> tuple[str, ...]:
        """The inputs that have the batch: their first axis is as long as the first input's, or free like it."""
        size = self.inputs[0].shape[:1]
        return tuple(tensor.name for tensor in self.inputs if tensor.shape[:1] == size)

    def run(self, feeds: Mapping[str, NDArray[Any]], *, finite: bool = False) -> dict[str, NDArray[Any]]:
        """Compute the outputs.

        Args:
            feeds: One array for each input, C-contiguous or not.
            finite: Skip the search for NaN and Inf because the caller knows that there are none.

        Raises:
            DataError: A name, shape or dtype does not match, or a value is NaN or Inf. Nothing was computed.
            RunError: The session is closed, or the backend failed.
        """
        self._admit(feeds, finite=finite)
        return self._run(feeds)

    def _admit(self, feeds: Mapping[str, NDArray[Any]], *, finite: bool = False) -> None:
        """Refuse to compute in a closed session, or with feeds that do not match the inputs."""
        if self.closed:
            raise RunError("this session is closed", do="load the bundle again")
        check_feeds(self.inputs, feeds, finite=finite)

    def close(self) -> None:
        """Release the backend's memory; a second call does nothing."""
        if not self.closed:
            self.closed = True
            self._close()

    @abstractmethod
    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Compute the outputs; the feeds have been checked."""

    def _close(self) -> None:
        """Release memory; does nothing if Python releases it."""


def check_feeds(inputs: tuple[Tensor, ...], feeds: Mapping[str, NDArray[Any]], *, finite: bool = False) -> None:
    """Compare feeds with the declared inputs of the model.

    Raises:
        DataError: An input differs; the message names the first one.
    """
    for tensor in inputs:
        array = feeds.get(tensor.name)
        if array is None or len(feeds) != len(inputs):
            got, expected = (", ".join(map(str, names)) for names in (feeds, [tensor.name for tensor in inputs]))
            raise DataError("the names of the inputs are wrong", got=got or "none", expected=expected)
        if not isinstance(array, np.ndarray) or array.dtype != tensor.numpy:
            got = array.dtype.name if isinstance(array, np.ndarray) else type(array).__name__
            raise DataError(
                f"input {tensor.name!r} has the wrong type", got=got, expected=f"an array of {tensor.dtype}"
            )
        if not _fits(array.shape, tensor.shape):
            raise _wrong_shape(tensor, array.shape)
        if not finite and not is_finite(array):
            raise DataError(f"input {tensor.name!r} holds NaN or Inf", expected="finite numbers", do="check the source")


@functools.lru_cache(maxsize=256)
def _fits(shape: tuple[int, ...], pattern: tuple[int | None, ...]) -> bool:
    return shape == pattern or (
        len(shape) == len(pattern)
        and all(want is None or have == want for have, want in zip(shape, pattern, strict=True))
        and 0 not in shape
    )


# Bytes of a float -> signed and unsigned integer of its size, +Inf and -Inf read as these.
_EXPONENTS = {
    2: (np.int16, np.uint16, 0x7C00, 0xFC00),
    4: (np.int32, np.uint32, 0x7F800000, 0xFF800000),
    8: (np.int64, np.uint64, 0x7FF0000000000000, 0xFFF0000000000000),
}


def _wrong_shape(tensor: Tensor, shape: tuple[int, ...]) -> DataError:
    expected = "(" + ", ".join("any" if dim is None else str(dim) for dim in tensor.shape) + ")"
    nhwc = len(shape) == 4 and _fits((shape[0], shape[3], shape[1], shape[2]), tensor.shape)
    chw = _fits((1, *shape), tensor.shape)
    do = (
        "transpose NHWC to NCHW: x.transpose(0, 3, 1, 2)" if nhwc else "add the batch dimension: x[None]" if chw else ""
    )
    return DataError(f"input {tensor.name!r} has the wrong shape", got=str(shape), expected=expected, do=do)


def fixed_shape(tensor: Tensor, batch: int) -> tuple[int, ...]:
    """Return a tensor's shape for a batch of this size.

    Raises:
        UsageError: A dimension other than the batch is dynamic.
    """
    shape = [batch if at == 0 and dim is None else dim for at, dim in enumerate(tensor.shape)]
    if None in shape:
        raise UsageError(f"{tensor.name!r} has no fixed shape", got=str(tensor.shape), expected="only a dynamic batch")
    return tuple(dim or 0 for dim in shape)


def random_feeds(
    inputs: Sequence[Tensor], spec: ModelSpec | None = None, batch: int = 1, shape: str = ""
) -> dict[str, NDArray[Any]]:
    """Return a seeded random array for each input; `settle_shape` says its size.

    Raises:
        UsageError: An axis other than the batch is dynamic and its size was not given.
    """
    sizes = settle_shape({tensor.name: tensor.shape for tensor in inputs}, shape, spec, batch)
    rng = np.random.default_rng(0)
    return {tensor.name: _random(rng, sizes[tensor.name], tensor.numpy) for tensor in inputs}


def _random(rng: np.random.Generator, shape: Sequence[int], kind: np.dtype[Any]) -> NDArray[Any]:
    """Draw normally distributed values, 0 to 99 where the type is of one byte, else 0 or 1: safe indices."""
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    return rng.integers(0, 100 if kind.itemsize == 1 and kind.kind != "b" else 2, shape).astype(kind)


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1; with None the backend chooses.

    Raises:
        UsageError: It is below 1.
    """
    if threads is not None and threads < 1:
        raise UsageError("the number of threads is not positive", got=str(threads), expected="1 or more")


def brief(error: Exception) -> str:
    """Return the message of a library on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def is_finite(array: NDArray[Any]) -> bool:
    """Return whether no value is NaN or Inf, from the bits: takes 13 us for 1x3x224x224; isfinite takes 17 us.

    IEEE 754: Inf and NaN have every exponent bit set. Read as integers they are the largest values: as signed integers
    for a positive sign, as unsigned integers for a negative sign.
    """
    exponents = _EXPONENTS.get(array.dtype.itemsize) if array.dtype.kind == "f" and array.size else None
    if exponents is None:
        return array.dtype.kind != "f" or bool(np.isfinite(array).all())
    signed, unsigned, positive, negative = exponents
    return bool(array.view(signed).max() < positive and array.view(unsigned).max() < negative)
