"""Sizes of inputs with dynamic axes, from the command line or from the network's spec.

No size is guessed: a measurement on an image of 1x1 pixels would be meaningless.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import UsageError
from .names import split_words

if TYPE_CHECKING:
    from ..spec import ModelSpec

Shape = Sequence["int | None"]
Sizes = Mapping[str, Shape]  # input -> the size of each dimension, None where it stays as it is


def parse_sizes(text: str) -> dict[str, tuple[int, ...]]:
    """Read `x=1x3x320x320,y=1x4`, or `1x3x320x320` for the only input, under the name "".

    Raises:
        UsageError: The text does not have this form.
    """
    sizes: dict[str, tuple[int, ...]] = {}
    for part in split_words(text):
        name, _, product = part.rpartition("=")
        numbers = product.lower().split("x")
        if not all(number.isascii() and number.isdigit() and int(number) > 0 for number in numbers):
            raise UsageError("cannot read the shape", got=repr(part), expected="NAME=1x3x320x320, or 1x3x320x320")
        sizes[name] = tuple(map(int, numbers))
    return sizes


def named_sizes(text: str, names: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Read shapes as `parse_sizes` does; one without a name is that of the only input.

    Raises:
        UsageError: It is not written so, or names an input that is not there.
    """
    sizes = parse_sizes(text)
    if len(names) == 1 and "" in sizes:
        sizes = {next(iter(names)): sizes.pop("")} | sizes
    if unknown := [name for name in sizes if name not in names]:
        raise UsageError(
            "--shape gives an unknown input", got=", ".join(name or "a shape without a name" for name in unknown),
            expected=", ".join(names), do="write NAME=SIZES",
        )  # fmt: skip
    return sizes


def settle_shape(
    shapes: Mapping[str, Shape], text: str = "", spec: ModelSpec | None = None, batch: int = 1
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every input, with a size for every dynamic axis (None).

    Args:
        shapes: Input -> its declared shape.
        text: What the command says, as `parse_sizes` reads it.
        spec: What the file or bundle says of its inputs.
        batch: The size of a free first dimension that nothing else says; the text of one input says it for all.

    Raises:
        UsageError: An axis other than the first remains dynamic, or a given shape does not match.
    """
    sizes = named_sizes(text, shapes)
    requests = {name: sizes.get(name) for name in shapes}
    free = [request[0] for name, request in requests.items() if request and tuple(shapes[name][:1]) == (None,)]
    batch = free[0] if free else batch
    return {name: _settled(name, shape, requests[name], spec, batch) for name, shape in shapes.items()}


def _settled(
    name: str, shape: Shape, request: tuple[int, ...] | None, spec: ModelSpec | None, batch: int
) -> tuple[int, ...]:
    if request is not None:
        if not _fits(request, shape):
            got, expected = "x".join(map(str, request)), _text(shape)
            raise UsageError(f"--shape does not match the input {name!r}", got=got, expected=expected)
        return request
    for one in spec.inputs if spec is not None else ():
        of_spec = (batch if not shape or shape[0] is None else shape[0], *one.shape)
        if one.name == name and _fits(of_spec, shape):
            return of_spec
    sizes = tuple(batch if at == 0 and size is None else size for at, size in enumerate(shape))
    if any(size is None for size in sizes):
        free = ", ".join(str(at) for at, size in enumerate(sizes) if size is None)
        words = "x".join("SIZE" if size is None else str(size) for size in sizes)
        raise UsageError(
            f"the input {name!r} has no fixed size", got=f"{_text(shape)}: axes {free} are dynamic",
            expected="a fixed shape", do=f"give --shape {name}={words}",
        )  # fmt: skip
    return tuple(size or 0 for size in sizes)


def _fits(sizes: tuple[int, ...], shape: Shape) -> bool:
    return len(sizes) == len(shape) and all(want in (None, have) for have, want in zip(sizes, shape, strict=True))


def _text(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)
