"""The inputs of a graph, and batches of them: an array where there is one, a dict of arrays by name where several.

Which axis of an input is the batch is asked here and nowhere else: the first one, where its size or its name is that of
the main input's first axis. What has no such axis all samples of a batch share (anchors, a threshold, a template).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...runtime.errors import DataError, ModelError

Batch = np.ndarray | dict[str, np.ndarray]
# Names of a free dimension that say «batch».
BATCH_NAMES = frozenset({"n", "b", "bs", "batch", "batch_size", "batchsize"})
IMAGE_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class GraphInput:
    """One input: name, type by NumPy's name, dimensions; None is a free one, whose name stands in `names`."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it as people write it: float32 1x3x?x?."""
        return f"{self.dtype} {'x'.join('?' if size is None else str(size) for size in self.shape) or 'scalar'}"

    @property
    def first(self) -> int | str | None:
        """The first dimension: its size, the name of a free one, None for a scalar."""
        if not self.shape:
            return None
        return self.shape[0] if self.shape[0] is not None else (self.names or ("",))[0]

    def fits(self, value: Any, *, stacked: bool, batched: bool) -> bool:
        """Say whether an array has the type and the dimensions.

        Args:
            value: The array.
            stacked: It holds what a whole batch shares once for each sample, along a first axis more.
            batched: Its first axis is the batch, which may be of any size.
        """
        if not isinstance(value, np.ndarray) or value.dtype != self.dtype:
            return False
        sizes = value.shape[1:] if stacked else value.shape
        pairs = list(zip(sizes, self.shape, strict=False))[int(batched) :]
        return len(sizes) == len(self.shape) and all(want is None or have == want for have, want in pairs)


@dataclass(frozen=True)
class InputLayout:
    """All inputs of a graph.

    Attributes:
        inputs: They, in the graph's order.
        channels_last: The main input is an image with its channels last (NHWC).
        alone: Only the main input has the batch.
    """

    inputs: tuple[GraphInput, ...]
    channels_last: bool = False
    alone: bool = False

    @classmethod
    def of_shape(cls, shape: tuple[int | None, ...]) -> InputLayout:
        """Return the layout of one float32 input of this shape."""
        return cls((GraphInput("", "float32", shape),))

    @property
    def main(self) -> GraphInput:
        """The input that images come in: the first of four dimensions, else of floats, else the first."""
        ranks = [one for one in self.inputs if len(one.shape) >= 4]
        floats = [one for one in self.inputs if one.dtype.startswith("float") and one.shape]
        return [*ranks, *floats, *self.inputs][0]

    @property
    def batched(self) -> frozenset[str]:
        """The inputs whose first axis is the batch."""
        first = self.main.first
        alike = [one.name for one in self.inputs if not self.alone and one.first == first is not None]
        return frozenset({self.main.name, *alike}) if self.main.shape else frozenset()

    @property
    def size(self) -> int | None:
        """The batch that the graph itself fixes; None where it is free, 0 where no first axis is the batch."""
        names, shape = [name.lower() in BATCH_NAMES for name in self.main.names], self.main.shape
        if not shape or self.is_one_image or (any(names) and not names[0] and shape[0] != 1):
            return 0
        return shape[0]

    @property
    def is_one_image(self) -> bool:
        """The main input is (C, H, W): one image of three or four channels, without a batch."""
        shape = self.main.shape
        return len(shape) == 3 and shape[0] in (3, 4) and all(side is None or side >= 8 for side in shape[1:])

    def main_of(self, batch: Batch) -> np.ndarray:
        """Return the main input's array."""
        return batch[self.main.name] if isinstance(batch, dict) else batch

    def length(self, batch: Batch) -> int:
        """Return how many samples a batch holds; 1 where no first axis is the batch."""
        return 1 if self.size == 0 else len(self.main_of(batch))

    def part(self, batch: Batch, start: int, stop: int) -> Batch:
        """Return some samples of a batch."""
        if not isinstance(batch, dict):
            return batch[start:stop]
        return {name: value[start:stop] if name in self.batched else value for name, value in batch.items()}

    def own(self, batch: Batch) -> Batch:
        """Return as many samples of a batch as the graph fixes, one where that is free."""
        return batch if self.size == 0 else self.part(batch, 0, self.size or 1)

    def join(self, parts: Sequence[Batch]) -> Batch:
        """Return batches as one; what all samples share is that of the first."""
        first = parts[0]
        if len(parts) == 1:
            return first
        if not isinstance(first, dict):
            return np.concatenate([part for part in parts if not isinstance(part, dict)])
        whole = [part for part in parts if isinstance(part, dict)]
        return {
            name: np.concatenate([part[name] for part in whole]) if name in self.batched else value
            for name, value in first.items()
        }

    def joins(self, one: Batch, two: Batch) -> bool:
        """Say whether two batches share what all samples of one batch must share."""
        if not isinstance(one, dict) or not isinstance(two, dict):
            return True
        return all(np.array_equal(one[name], two[name]) for name in one if name not in self.batched)

    def own_bytes(self, batch: Batch) -> Iterator[bytes]:
        """Yield the bytes of each sample."""
        values = [batch] if not isinstance(batch, dict) else [batch[name] for name in sorted(self.batched)]
        if self.size == 0:
            values = [value[None] for value in (batch.values() if isinstance(batch, dict) else values)]
        for at in range(self.length(batch)):
            yield b"".join(np.asarray(value[at]).tobytes() for value in values)

    def images(self, batch: Batch) -> np.ndarray:
        """Return the main input with its channels on axis 1, (N, C, ...)."""
        value = self.main_of(batch)
        value = value[None] if self.is_one_image else value
        if value.ndim < 2:
            return value.reshape(-1, 1)
        return np.moveaxis(value, -1, 1) if self.channels_last and value.ndim > 2 else value

    def checked(self, number: int, batch: Any) -> list[Batch]:
        """Return a batch as it is fed; where it brings what all share once for each sample, each sample by itself.

        Raises:
            DataError: It does not fit the graph, or holds NaN or infinity.
        """
        arrays = batch if isinstance(batch, Mapping) else {self.inputs[0].name: batch}
        if isinstance(batch, Mapping) and len(self.inputs) == 1 and len(batch) == 1 and self.inputs[0].name == "":
            arrays = {"": next(iter(batch.values()))}
        arrays = {name: np.asarray(one) if isinstance(one, np.generic) else one for name, one in arrays.items()}
        stacked = {one.name for one in self.inputs if self._is_stacked(one, arrays)}
        lengths = {len(arrays[one.name]) for one in self.inputs if self._has_length(one, arrays, stacked)}
        fits = set(arrays) == {one.name for one in self.inputs} and len(lengths) < 2
        fits = fits and all(
            one.fits(arrays[one.name], stacked=one.name in stacked, batched=one.name in self.batched)
            for one in self.inputs
        )
        if not fits:
            raise self._misfit(number, arrays if isinstance(batch, Mapping) else batch)
        if not all(np.isfinite(value).all() for value in arrays.values() if value.dtype.kind == "f"):
            raise DataError(f"calibration batch {number} holds NaN or infinity", do="check the preprocessing")
        whole = {one.name: arrays[one.name] for one in self.inputs}
        if not stacked:
            return [whole if len(self.inputs) > 1 else whole[self.inputs[0].name]]
        return [
            {name: value[at] if name in stacked else value[at : at + 1] if name in self.batched else value
             for name, value in whole.items()} for at in range(lengths.pop())
        ]  # fmt: skip

    def _is_stacked(self, one: GraphInput, arrays: Mapping[str, Any]) -> bool:
        rank = getattr(arrays.get(one.name), "ndim", -1)
        return len(self.inputs) > 1 and one.name not in self.batched and rank == len(one.shape) + 1

    def _has_length(self, one: GraphInput, arrays: Mapping[str, Any], stacked: set[str]) -> bool:
        value = arrays.get(one.name)
        return (one.name in self.batched or one.name in stacked) and isinstance(value, np.ndarray) and value.ndim > 0

    def _misfit(self, number: int, batch: Any) -> DataError:
        text = f"calibration batch {number} does not fit the model"
        if len(self.inputs) == 1 and not isinstance(batch, Mapping):
            got, expected = _describe(batch), str(self.inputs[0])
            return DataError(text, got=got, expected=expected, do="use the model's own preprocessing")
        parts = batch if isinstance(batch, Mapping) else {"one array": batch}
        got = ", ".join(f"{name}: {_describe(value)}" for name, value in parts.items())
        expected = ", ".join(f"{one.name}: {one}" for one in self.inputs)
        return DataError(text, got=got[:300], expected=expected[:300], do="give a dict with an array for each input")


def _describe(value: Any) -> str:
    return f"{getattr(value, 'dtype', type(value).__name__)} {getattr(value, 'shape', '')}"


def input_names(model: onnx.ModelProto) -> list[str]:
    """Return the names of the inputs that are no constants."""
    constant = {tensor.name for tensor in model.graph.initializer}
    return [item.name for item in model.graph.input if item.name not in constant]


def input_layout(model: onnx.ModelProto, layout: str = "") -> InputLayout:
    """Return the inputs of a graph.

    Args:
        model: The graph.
        layout: "NCHW" or "NHWC" where it is known; else an image of 1, 3 or 4 channels in last place has them there.

    Raises:
        ModelError: It has no inputs, or one that is no tensor of known rank.
    """
    names = set(input_names(model))
    items = [item for item in model.graph.input if item.name in names]
    kinds = [item.type.tensor_type for item in items]
    if not items or any(not kind.elem_type or not kind.HasField("shape") for kind in kinds):
        raise ModelError(
            "calibration needs a graph whose inputs are tensors",
            got=f"inputs {[item.name for item in items]}",
            expected="at least one, each of a known type and rank",
        )
    inputs = tuple(_graph_input(item) for item in items)
    main = InputLayout(inputs).main
    last = len(main.shape) == 4 and main.shape[3] in IMAGE_CHANNELS and main.shape[1] not in IMAGE_CHANNELS
    return InputLayout(inputs, channels_last=layout == "NHWC" if layout else last)


def _graph_input(item: onnx.ValueInfoProto) -> GraphInput:
    kind = item.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    dtype = str(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return GraphInput(item.name, dtype, shape, tuple(dim.dim_param for dim in kind.shape.dim))


def as_feeds(model: onnx.ModelProto, batch: Batch) -> dict[str, np.ndarray]:
    """Return a batch by the names of the graph's inputs."""
    return batch if isinstance(batch, dict) else {input_names(model)[0]: batch}
