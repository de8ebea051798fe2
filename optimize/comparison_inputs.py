"""Inputs for the comparison of two files: random inputs, scaled ones, and real ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ..runtime.common.sizes import Sizes
from .graph.upgrade import NO_NAMES

Array = np.ndarray[Any, Any]


Feeds = dict[str, Array]


MOST_ELEMENTS = 1 << 28


NUMPY = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(uint16)": np.uint16, "tensor(uint32)": np.uint32, "tensor(uint64)": np.uint64,
    "tensor(bool)": np.bool_, "tensor(string)": np.str_,
}  # fmt: skip


class Refusal(Exception):
    """ONNX Runtime cannot load or run a file; the message is its reason on one line."""


def random_feeds(session: Any, first: int, other: int, by_name: Sizes | None = None) -> Feeds | None:
    """Generate inputs: standard normal floats, small integers; dynamic axes with the same name get the same size.

    Args:
        session: The session with the inputs.
        first: Size of a dynamic first axis.
        other: Size of every other dynamic axis.
        by_name: Shapes of inputs by name, which replace these sizes.
    """
    rng = np.random.default_rng(0)
    sizes: dict[str, int] = {}
    for value in session.get_inputs():
        for dim, size in zip(value.shape, (by_name or {}).get(value.name, ()), strict=False):
            if isinstance(dim, str) and dim not in NO_NAMES and size is not None:
                sizes[dim] = size
    feeds = {}
    for value in session.get_inputs():
        if value.type not in NUMPY:
            return None
        own = (by_name or {}).get(value.name) or [None] * len(value.shape)
        shape = [
            size or _size(dim, other if axis else first, sizes)
            for axis, (dim, size) in enumerate(zip(value.shape, own, strict=True))
        ]
        if math.prod(shape) > MOST_ELEMENTS:
            raise Refusal(f"its input {value.name[:100]!r} is too large to generate: {shape}")
        feeds[value.name] = _fill(rng, shape, np.dtype(NUMPY[value.type]))
    return feeds


def _size(dim: Any, free: int, by_name: dict[str, int]) -> int:
    """Return a dimension's size: its own, or that of its name, where it has one."""
    if isinstance(dim, int) and dim >= 0:
        return dim
    return by_name.setdefault(dim, free) if isinstance(dim, str) and dim not in NO_NAMES else free


def _fill(rng: np.random.Generator, shape: list[int], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "U":
        return np.full(shape, "a")
    top = 256 if dtype == np.uint8 and len(shape) >= 3 else 2
    return rng.integers(0, top, shape).astype(dtype)


def more_feeds(feeds: Feeds) -> Iterator[Feeds]:
    """Yield the same inputs at other scales: small ones, and large ones that reach the bounds of activations."""
    if any(array.dtype.kind == "f" for array in feeds.values()):
        for factor in (8.0, 0.05):
            yield {
                name: (array[::-1] * factor).astype(array.dtype) if array.ndim and array.dtype.kind == "f" else array
                for name, array in feeds.items()
            }


def real_feeds(session: Any, samples: Iterable[Any] | None, batch: int | None, by_name: Sizes) -> Iterator[Feeds]:
    """Yield the first four matching real inputs: dicts by name, or arrays for the first input, cut to the batch.

    Args:
        session: The session with the inputs.
        samples: The given samples.
        batch: The size of a dynamic first axis; None uses the sample's size.
        by_name: Shapes of inputs by name, which replace these sizes.
    """
    inputs = {value.name: value for value in session.get_inputs()}
    for index, sample in enumerate(samples or ()):
        if index == 4 or not inputs:
            return
        feeds = sample if isinstance(sample, dict) else {next(iter(inputs)): np.asarray(sample)}
        fixed = {name: by_name.get(name, value.shape)[0] for name, value in inputs.items() if value.shape}
        sizes = {name: size if isinstance(size, int) else batch for name, size in fixed.items() if name in feeds}
        if all(size is None or len(feeds[name]) >= size for name, size in sizes.items()):
            yield {name: array[: sizes[name]] if sizes.get(name) else array for name, array in feeds.items()}
