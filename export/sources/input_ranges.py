"""The ranges of free sizes: from the facts, and what the graph's axes and the usual sizes make of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...runtime.common.size_range import SizeRange, parse_range
from ...runtime.errors import UsageError
from .facts import Facts

IMAGE_AXES = {"NCHW": (2, 3), "NHWC": (1, 2)}  # height, width
Dims = tuple["int | str", ...]


def read_ranges(table: Mapping[str, Any]) -> tuple[SizeRange, ...]:
    """Read the table `ranges` of a spec file: input -> axis -> "320..1280 step 32".

    Raises:
        UsageError: It is not written so.
    """
    ranges = []
    for name, axes in table.items():
        if not isinstance(axes, dict):
            raise UsageError("cannot read the ranges", got=f"{name} = {axes!r}"[:80], expected=f"{name}.2 = RANGE")
        for axis, text in axes.items():
            if not (axis.isascii() and axis.isdigit() and 0 < int(axis) < 10):
                got, expected = f"{name}.{axis}"[:80], "an axis from 1; axis 0 is the batch"
                raise UsageError("cannot read the ranges", got=got, expected=expected)
            ranges.append(parse_range(str(text), name, int(axis)))
    return tuple(ranges)


def gather_ranges(facts: Facts, name: str, layout: str) -> tuple[SizeRange, ...]:
    """Return the ranges that the facts have, those of height and width as ranges of axes.

    Args:
        facts: Of the user and of metadata.
        name: The first input.
        layout: Its layout.

    Raises:
        UsageError: Height or width of an input that is no image.
    """
    ranges = {(one.input, one.axis): one for one in facts.get("ranges", ())}
    for word, axis in zip(("height", "width"), IMAGE_AXES.get(layout, (0, 0)), strict=True):
        if word not in facts:
            continue
        if not axis:
            got, do = f"layout {layout or 'unknown'}", f'write [ranges] {name}.AXIS = "{facts.get(word)}"'
            raise UsageError(f"the input {name!r} has no {word}", got=got, expected="an image", do=do)
        ranges[name, axis] = replace(facts.get(word), input=name, axis=axis)
    return tuple(ranges.values())


def settle_ranges(ranges: Iterable[SizeRange], whole: dict[str, Dims], dims: Mapping[str, Dims]) -> bool:
    """Give every axis that has a range its usual size: the one that is known, else the middle of the range.

    Args:
        ranges: The ranges.
        whole: Input -> its shape with the sizes that are known; changed in place.
        dims: Input -> its axes in the graph.

    Returns:
        Whether a size is the middle, which is a guess.

    Raises:
        UsageError: No such axis, one that the graph fixes, or a usual size outside the range.
    """
    guessed = False
    for one in ranges:
        where = f"axis {one.axis} of the input {one.input!r}"
        axes = dims.get(one.input, ())
        if one.axis >= len(axes) or isinstance(axes[one.axis], int):
            got = f"size {axes[one.axis]} in the file" if one.axis < len(axes) else f"inputs {', '.join(dims)}"
            do = "leave its range out, or export the network with a free size there"
            raise UsageError(f"{where} is not free, so it has no range", got=got, expected=str(one), do=do)
        size = whole[one.input][one.axis]
        if isinstance(size, int) and size not in one:
            raise UsageError(f"the size of {where} is outside its range", got=str(size), expected=str(one))
        guessed = guessed or isinstance(size, str)
        usual = one.middle if isinstance(size, str) else size
        whole[one.input] = (*whole[one.input][: one.axis], usual, *whole[one.input][one.axis + 1 :])
    return guessed
