"""The batch axis of each output, and joining and splitting of outputs along it.

It is the first axis in most networks, but not in all: a recogniser returns (time, batch, class), a detector (boxes, 4).
An output without a batch axis belongs to one run, so it can be neither joined nor split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EdgesmithError, RunError
from .tasks import find

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .backends._base import Session, Tensor

    Arrays = dict[str, NDArray[Any]]

TRIED = (1, 2, 3)


def axes(session: Session, task: str, shape: tuple[int, ...]) -> dict[str, int | None]:
    """Return the batch axis of each output, None if it has none.

    A dynamic batch axis is found by its name; without a name, batches of one, two and three are run, and the axis that
    grows is the batch. A fixed batch of several images is run twice, in a different order, and the batch is the axis
    along which the output is permuted. A fixed batch of one is the first axis if its length is 1, or the only axis of
    length 1. In all other cases the batch is first if the task says so, otherwise there is none.

    Args:
        session: An open session.
        task: Task of the spec.
        shape: Shape of one image, used in the runs for dynamic axes.
    """
    source = session.inputs[0]
    by_output = {tensor.name: _declared(source, tensor) for tensor in session.outputs}
    unknown = [name for name, axis in by_output.items() if axis is Ellipsis]
    if (source.shape[0] or 0) > 1 or (source.shape[0] is None and unknown):
        axes = _tried(session, source, shape)
        by_output |= {name: axis for name, axis in axes.items() if name in unknown or source.shape[0]}
    first = 0 if find(task).batch_first else None
    return {name: first if axis is Ellipsis else axis for name, axis in by_output.items()}


def may_be_first(session: Session) -> bool:
    """Return whether the declared shapes of all outputs allow the batch to be the first axis."""
    return all(_declared(session.inputs[0], tensor) in (0, Ellipsis) for tensor in session.outputs)


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


def _tried(session: Session, source: Tensor, shape: tuple[int, ...]) -> dict[str, int | None]:
    """Return the batch axis of each output according to runs on random images; empty if they fail."""
    size, fixed = source.shape[0], tuple(dim for dim in source.shape[1:] if dim is not None)
    shape = fixed if len(fixed) == len(source.shape) - 1 else shape
    images = np.random.default_rng(0).standard_normal((size or max(TRIED), *shape))
    images = (images if source.numpy.kind == "f" else 64 * np.abs(images)).astype(source.numpy)
    batches = [images, np.roll(images, 1, 0)] if size else [images[:count] for count in TRIED]
    try:
        runs = [session.run({source.name: batch}) for batch in batches]
    except EdgesmithError:
        return {}
    shown = _followed if size else _grown
    return {name: shown([run[name] for run in runs], len(images)) for name in runs[0]}


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


def run(session: Session, batch: NDArray[Any], of: Mapping[str, int | None], *, finite: bool = False) -> Arrays:
    """Compute the outputs of a batch of any size, by name.

    A session with a fixed batch runs it in slices; the last slice is padded with copies of its last image.

    Args:
        session: An open session with one input.
        batch: One image or more, along the first axis.
        of: Batch axis of each output.
        finite: As for `Session.run`.

    Raises:
        DataError: The batch does not match the input.
        RunError: The backend failed; or there are several slices, or a padded one, and an output has no batch axis.
    """
    size, name, count = session.inputs[0].shape[0], session.inputs[0].name, len(batch)
    if size is None or count == size:
        return session.run({name: batch}, finite=finite)
    filled = np.concatenate([batch, *[batch[-1:]] * (-count % size)]) if count % size else batch
    parts = [session.run({name: filled[at : at + size]}, finite=finite) for at in range(0, count, size)]
    outputs = {}
    for key, first in parts[0].items():
        axis, shapes = of.get(key), [part[key].shape for part in parts]
        if axis is None or any(len(shape) <= axis or shape[axis] != size for shape in shapes):
            raise _unsplit(key, first.shape, size, count)
        whole = np.concatenate([part[key] for part in parts], axis)
        outputs[key] = whole[(slice(None),) * axis + (slice(count),)]
    return outputs


def answers(
    session: Session, batch: NDArray[Any], of: Mapping[str, int | None], *, finite: bool = False
) -> list[Arrays]:
    """Compute the outputs of each image of a batch, without the batch axis.

    If an output has no batch axis, each image is run alone and that output is returned unchanged.

    Raises:
        DataError, RunError: As `run`; or an output has no batch axis and the session takes several images at once.
    """
    if all(axis is not None for axis in of.values()):
        outputs = run(session, batch, of, finite=finite)
        return [{name: _taken(name, value, of[name], at, len(batch)) for name, value in outputs.items()}
                for at in range(len(batch))]  # fmt: skip
    name, size = session.inputs[0].name, session.inputs[0].shape[0]
    if size not in (None, 1):
        whole = next(tensor for tensor in session.outputs if of[tensor.name] is None)
        raise _unsplit(whole.name, tuple(dim or 0 for dim in whole.shape), size or 0, len(batch))
    parts = [session.run({name: batch[at : at + 1]}, finite=finite) for at in range(len(batch))]
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
