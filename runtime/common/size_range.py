"""The range of a free size of an input: least, greatest and step, as `320..1280 step 32`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import DataError, UsageError

TEXT = "such as 320..1280, or 320..1280 step 32"
LARGEST = 1 << 16


@dataclass(frozen=True)
class SizeRange:
    """The sizes that one axis of an input may have: `least`, `least` + `step`, ..., `most`.

    Attributes:
        input: The input's name.
        axis: The axis, counted with the batch, which is axis 0.
        least: The smallest size.
        most: The greatest size.
        step: The difference between neighbouring sizes.
    """

    input: str
    axis: int
    least: int
    most: int
    step: int = 1

    def __str__(self) -> str:
        """Return it as in a spec file."""
        return f"{self.least}..{self.most}" + (f" step {self.step}" if self.step != 1 else "")

    def __contains__(self, size: int) -> bool:
        """Return whether the axis may have this size."""
        return self.least <= size <= self.most and (size - self.least) % self.step == 0

    @property
    def middle(self) -> int:
        """The size in the middle, rounded down to a step."""
        return self.least + (self.most - self.least) // (2 * self.step) * self.step

    def check(self) -> None:
        """Check the fields.

        Raises:
            TypeError: One has the wrong type, or no size is in the range.
        """
        numbers = (self.axis, self.least, self.most, self.step)
        if not isinstance(self.input, str) or not all(type(number) is int and number > 0 for number in numbers):
            raise TypeError(f"range of {self.input!r}: axis, least, most, step {numbers}, not all positive integers")
        if not self.least < self.most <= LARGEST or self.most not in self:
            raise TypeError(f"range {self}: the greatest is not the least and some steps, or above {LARGEST}")


def parse_range(text: str, input_name: str = "", axis: int = 1) -> SizeRange:
    """Read `320..1280 step 32`.

    Raises:
        UsageError: It is not written so, or the greatest size is not the least one and some steps.
    """
    match = re.fullmatch(r"\s*(\d{1,6})\s*\.\.\s*(\d{1,6})(?:\s+step\s+(\d{1,6}))?\s*", text, re.ASCII)
    if match is None:
        raise UsageError("cannot read the range of a size", got=repr(text)[:80], expected=TEXT)
    least, most, step = int(match[1]), int(match[2]), int(match[3] or 1)
    try:
        (size_range := SizeRange(input_name, axis, least, most, step)).check()
    except TypeError as error:
        expected = f"{TEXT}, where the greatest is the least and some steps"
        raise UsageError("the range of a size is not valid", got=repr(text), expected=expected) from error
    return size_range


def check_ranges(ranges: Sequence[SizeRange], shapes: Mapping[str, Sequence[int]]) -> None:
    """Check the ranges of a ModelSpec.

    Args:
        ranges: The ranges.
        shapes: Input -> its usual shape without the batch.

    Raises:
        TypeError: A range is not valid, does not have the usual size of its axis, or two are for one axis.
    """
    for one in ranges:
        one.check()
        usual = shapes.get(one.input, ())[one.axis - 1 : one.axis]
        if not usual or usual[0] not in one:
            raise TypeError(f"range {one} of axis {one.axis} of {one.input!r} does not have its size {usual}")
    if len({(one.input, one.axis) for one in ranges}) < len(ranges):
        raise TypeError("two ranges for one axis")


def require_within(ranges: Iterable[SizeRange], shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse arrays whose free sizes are outside their ranges.

    Args:
        ranges: Those of a ModelSpec.
        shapes: Input -> the array's shape with the batch; another number of axes is not judged here.

    Raises:
        DataError: A size is outside its range; the message has the range.
    """
    for one in ranges:
        shape = shapes.get(one.input, ())
        if one.axis < len(shape) and shape[one.axis] not in one:
            raise DataError(
                f"a size of the input {one.input!r} is outside its range", got="x".join(map(str, shape)),
                expected=f"axis {one.axis}: {one}", do="resize or pad the array, or export with another range",
            )  # fmt: skip
