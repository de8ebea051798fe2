"""The batch axis of each output, and joining and splitting of samples along it.

It is the first axis in most networks, but not in all: a recogniser returns (time, batch, class), a detector (boxes, 4).
An output without a batch axis belongs to one run, so it can be neither joined nor split. Inputs have the batch first;
one whose first axis is not as long as the first input's (a table, a threshold) is the same for every sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .backends._base import check_feeds, random_feeds
from .common.size_range import require_within
from .errors import DataError, EdgesmithError, RunError
from .tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backends._base import Session, Tensor
    from .spec import ModelSpec

    Arrays = dict[str, NDArray[Any]]
    Feeds = Mapping[str, NDArray[Any]]

TRIED = (1, 2, 3)


def axes(session: Session, spec: ModelSpec) -> dict[str, int | None]:
    """Return the batch axis of each output, None if it has none.

    A dynamic batch axis is found by its name; without a name, batches of one, two and three are run, and the axis that
    grows is the batch. A fixed batch of several samples is run twice, in a different order, and the batch is the axis
    along which the output is permuted. A fixed batch of one is the first axis if its length is 1, or the only axis of
    length 1. In all other cases the batch is first if the task says so, otherwise there is none.

    Args:
        session: An open session.
        spec: Its task, and the sizes of inputs with dynamic axes in these runs.
    """
    source = session.inputs[0]
    by_output = {tensor.name: _declared(source, tensor) for tensor in session.outputs}
    unknown = [name for name, axis in by_output.items() if axis is Ellipsis]
    if (source.shape[0] or 0) > 1 or (source.shape[0] is None and unknown):
        axes = _tried(session, spec)
        by_output |= {name: axis for name, axis in axes.items() if name in unknown or source.shape[0]}
    first = 0 if find(spec.task).batch_first else None
    return {name: first if axis is Ellipsis else axis for name, axis in by_output.items()}


def may_be_first(session: Session) -> bool:
    """Return whether the declared shapes of all outputs allow the batch to be the first axis."""
    return all(_declared(session.inputs[0], tensor) in (0, Ellipsis) for tensor in session.outputs)


def as_feeds(batch: Any, spec: ModelSpec) -> Feeds:
    """Return arrays by the inputs' names: a dict as it is, an array for the first input.

    Raises:
        DataError: It is neither, or a size is outside its range in the spec.
    """
    if not isinstance(batch, Mapping) and (not isinstance(batch, np.ndarray) or not batch.ndim):
        raise DataError("this is not a batch", got=type(batch).__name__, expected=f"arrays: {spec.inputs_text}")
    feeds = batch if isinstance(batch, Mapping) else {spec.input_name: batch}
    require_within(spec.ranges, {name: np.shape(array) for name, array in feeds.items()} if spec.ranges else {})
    return feeds


def count_samples(session: Session, feeds: Feeds) -> int:
    """Return the number of samples in feeds.

    Raises:
        DataError: A name or the number of dimensions does not match, or inputs have different numbers of samples.
    """
    for tensor in session.inputs:
        array = feeds.get(tensor.name)
        if not isinstance(array, np.ndarray) or array.ndim != len(tensor.shape) or len(feeds) != len(session.inputs):
            check_feeds(tuple(replace(tensor, shape=(None,) * len(tensor.shape)) for tensor in session.inputs), feeds)
    first = session.inputs[0].name
    count = len(feeds[first])
    for name in session.batched:
        if len(feeds[name]) != count or not count:
            raise DataError(
                f"input {name!r} has another number of samples than {first!r}" if count else "the batch is empty",
                got=str(len(feeds[name])), expected=str(count) if count else "one sample or more",
            )  # fmt: skip
    return count


def cut(session: Session, feeds: Feeds, start: int, stop: int) -> Arrays:
    """Return the samples from `start` to `stop`: part of each input that has the batch, the others as they are."""
    return {name: array[start:stop] if name in session.batched else array for name, array in feeds.items()}


def slices(session: Session, feeds: Feeds) -> Iterator[Arrays]:
    """Yield the samples in as many as the session takes at once: all where its batch is dynamic.

    Raises:
        DataError: As `count_samples`.
    """
    count = count_samples(session, feeds)
    size = session.inputs[0].shape[0] or count
    return (cut(session, feeds, at, at + size) for at in range(0, count, size))


def _declared(source: Tensor, tensor: Tensor) -> Any:
    """Return the batch axis according to the shapes, None for none, Ellipsis if it is unknown."""
    size, name = source.shape[0], source.names[0] if source.names else ""
    known = bool(tensor.shape) and None not in tensor.shape
    if size is None:
        if name and name in tensor.names:
            return tensor.names.index(name)
        # An axis of one beside a free batch may be a batch that an exporter wrote down as it saw it.
        return None if known and 1 not in tensor.shape else Ellipsis
    if tensor.shape and tensor.shape[0] == size:
        return 0
    if known and tensor.shape.count(size) == 1:
        return tensor.shape.index(size)
    return None if known else Ellipsis


def _tried(session: Session, spec: ModelSpec) -> dict[str, int | None]:
    """Return the batch axis of each output according to runs on random samples; empty if they fail."""
    size, names = session.inputs[0].shape[0], session.batched
    count = size or max(TRIED)
    try:
        feeds = random_feeds(session.inputs, spec, count)
        rolled = {name: np.roll(array, 1, 0) if name in names else array for name, array in feeds.items()}
        batches = [feeds, rolled] if size else [cut(session, feeds, 0, some) for some in TRIED]
        runs = [session.run(batch) for batch in batches]
    except EdgesmithError:
        return {}
    shown = _followed if size else _grown
    return {name: shown([run[name] for run in runs], count) for name in runs[0]}


def _grown(outputs: list[NDArray[Any]], _: int) -> int | None:
    """Return the axis whose lengths are one, two and three."""
    shapes = [output.shape for output in outputs]
    for axis in range(min(map(len, shapes))):
        others = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
        if tuple(shape[axis] for shape in shapes) == TRIED and len(others) == 1:
            return axis
    return None


def _followed(outputs: list[NDArray[Any]], size: int) -> int | None:
    """Return the axis along which the second output is the first one shifted by one, not unchanged."""
    first, second = (np.asarray(output, np.float64) for output in outputs)
    if first.shape != second.shape:
        return None
    allowed = np.abs(second - first).max(initial=0) + 1e-5 * np.abs(second).max(initial=0)
    for axis in (axis for axis, length in enumerate(first.shape) if length == size):
        if np.abs(second - np.roll(first, 1, axis)).max(initial=0) <= allowed:
            return axis
    return None


def run(session: Session, feeds: Feeds, of: Mapping[str, int | None], *, finite: bool = False) -> Arrays:
    """Compute the outputs of a batch of any size, by name.

    A session with a fixed batch runs it in slices; the last slice is padded with copies of its last sample.

    Args:
        session: An open session.
        feeds: One sample or more for each input, along the first axis.
        of: Batch axis of each output.
        finite: As for `Session.run`.

    Raises:
        DataError: The batch does not match the inputs.
        RunError: The backend failed; or there are several slices, or a padded one, and an output has no batch axis.
    """
    size, count = session.inputs[0].shape[0], count_samples(session, feeds)
    if size is None or count == size:
        return session.run(feeds, finite=finite)
    missing, names = -count % size, session.batched
    filled = {
        name: np.concatenate([array, *[array[-1:]] * missing]) if missing and name in names else array
        for name, array in feeds.items()
    }
    parts = [session.run(part, finite=finite) for part in slices(session, filled)]
    outputs = {}
    for key, first in parts[0].items():
        axis, shapes = of.get(key), [part[key].shape for part in parts]
        if axis is None or any(len(shape) <= axis or shape[axis] != size for shape in shapes):
            raise _unsplit(key, first.shape, size, count)
        whole = np.concatenate([part[key] for part in parts], axis)
        outputs[key] = whole[(slice(None),) * axis + (slice(count),)]
    return outputs


def answers(session: Session, feeds: Feeds, of: Mapping[str, int | None], *, finite: bool = False) -> list[Arrays]:
    """Compute the outputs of each sample of a batch, without the batch axis.

    If an output has no batch axis, each sample is run alone and that output is returned unchanged.

    Raises:
        DataError, RunError: As `run`; or an output has no batch axis and the session takes several samples at once.
    """
    count = count_samples(session, feeds)
    if all(axis is not None for axis in of.values()):
        outputs = run(session, feeds, of, finite=finite)
        return [{name: _taken(name, value, of[name], at, count) for name, value in outputs.items()}
                for at in range(count)]  # fmt: skip
    size = session.inputs[0].shape[0]
    if size not in (None, 1):
        whole = next(tensor for tensor in session.outputs if of[tensor.name] is None)
        raise _unsplit(whole.name, tuple(dim or 0 for dim in whole.shape), size or 0, count)
    parts = [session.run(cut(session, feeds, at, at + 1), finite=finite) for at in range(count)]
    return [{key: _taken(key, value, of[key], 0, 1) for key, value in part.items()} for part in parts]


def _taken(name: str, value: NDArray[Any], axis: int | None, at: int, count: int) -> NDArray[Any]:
    if axis is not None and value.ndim > axis and value.shape[axis] == count:
        row: NDArray[Any] = value[(slice(None),) * axis + (at,)]
        return row
    if count > 1:
        raise RunError(
            f"output {name!r} does not have one part per image", got=f"shape {value.shape}",
            expected=f"{count} along axis {axis}", do="give the images one at a time, or export the network again",
        )  # fmt: skip
    return value


def _unsplit(name: str, shape: tuple[int, ...], size: int, count: int) -> RunError:
    one = "call the model with a list of images: it then runs each image alone"
    several = f"give exactly {size} to `run` and use its outputs unchanged, or export the network with a batch of 1"
    return RunError(
        f"output {name!r} has no batch axis, so {count} images cannot share a model with a batch of {size}",
        got=f"shape {shape}", expected="an axis as long as the batch", do=one if size == 1 else several,
    )  # fmt: skip
