"""How a scene is drawn: ground, bars, and signs with a digit, in integers from one stream of draws."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .corruptions import near_gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Whole = NDArray[np.int64]
    Range = tuple[int, int]

SIDE = 96
GROUND = 5  # colours along each side of the ground, between which it is interpolated
TRIES = 8  # places that are tried for a sign
SHAPES = ("rectangle", "disc", "octagon")
TINT = 20  # grey levels by which a channel may differ from the colour's grey
LIGHTEST, SIGN = 140, 60  # greys of the ground and of a sign; digits are lighter than their signs
DRAWS = 512  # that are fetched at once
DARKEST = 16  # of the embedded digits


class Drawing:
    """One scene while it is drawn.

    Attributes:
        canvas: int64 (96, 96, 3).
        members: uint8 (96, 96): 0, or one more than the index of the sign that a pixel shows.
        labels: The class of each sign.
        areas: The number of pixels of each before others covered it.
    """

    def __init__(self, seed: int) -> None:
        self._stream = np.random.PCG64(seed)
        self._draws = _draws(self._stream)
        weights = stretch_weights(GROUND, SIDE)
        colours = np.array([self._colour(self.between(0, LIGHTEST)) for _ in range(GROUND**2)])
        rows = np.tensordot(weights, colours.reshape(GROUND, GROUND, 3), 1)
        self.canvas: Whole = np.tensordot(weights, rows, (1, 1)).transpose(1, 0, 2) // (2 * SIDE) ** 2
        self.members = np.zeros((SIDE, SIDE), np.uint8)
        self.labels: list[int] = []
        self.areas: list[int] = []

    def between(self, low: int, high: int) -> int:
        """Draw a whole number, both ends included."""
        return low + next(self._draws) % (high - low + 1)

    def add_bar(self, length: Range, width: Range) -> None:
        """Draw a bar, upright or level, over what is there."""
        size = [self.between(*length), self.between(*width)]
        tall, wide = size if self.between(0, 1) else size[::-1]
        place = self._place(tall, wide)
        self.canvas[place] = self._colour(self.between(0, LIGHTEST))
        self.members[place] = 0

    def add_sign(
        self,
        sides: Range,
        contrast: Range,
        image: NDArray[np.uint8] | None = None,
        label: int | None = None,
        visible: int = 0,
    ) -> None:
        """Draw a sign over what is there; where others would be covered too much at every place tried, draw none.

        Args:
            sides: Pixels of the longer side.
            contrast: Grey levels between the digit and the sign.
            image: The digit, uint8 (8, 8), 0 to 16; None for an empty sign.
            label: Its class; None if the sign is no object.
            visible: Per cent of each other sign that must stay uncovered.
        """
        long = self.between(*sides)
        short = long * self.between(70, 100) // 100
        tall, wide = (long, short) if self.between(0, 3) else (short, long)
        shape = sign_pixels(SHAPES[self.between(0, len(SHAPES) - 1)], tall, wide)
        place = self._free_place(shape, visible)
        sign = np.clip(self._colour(self.between(0, SIGN)), 0, 255)
        ink = np.clip(sign + self._colour(self.between(*contrast), TINT // 2), 0, 255)
        if place is None:
            return
        picture = np.broadcast_to(sign, (tall, wide, 3))
        if image is not None:
            cover = stretch_weights(len(image), tall) @ image.astype(np.int64) @ stretch_weights(image.shape[1], wide).T
            whole = DARKEST * 4 * tall * wide
            picture = sign + cover[..., None] * (ink - sign) // whole
        self.canvas[place][shape] = picture[shape]
        if label is None:
            self.members[place][shape] = 0
            return
        self.labels.append(label)
        self.areas.append(int(shape.sum()))
        self.members[place][shape] = len(self.labels)

    def image(self, noise: Range) -> NDArray[np.uint8]:
        """Return the scene, uint8 (96, 96, 3), with noise that is equal in all channels."""
        sigma = self.between(*noise)
        grain = near_gaussian(self._stream.random_raw(SIDE * SIDE), sigma).reshape(SIDE, SIDE, 1)
        image: NDArray[np.uint8] = np.clip(self.canvas + grain, 0, 255).astype(np.uint8)
        return image

    def _free_place(self, shape: NDArray[np.bool_], visible: int) -> Any:
        shown = np.bincount(self.members.ravel(), minlength=len(self.areas) + 1)
        for _ in range(TRIES):
            place = self._place(*shape.shape)
            left = shown - np.bincount(self.members[place][shape], minlength=len(shown))
            if all(100 * count >= visible * area for count, area in zip(left[1:].tolist(), self.areas, strict=True)):
                return place
        return None

    def _place(self, tall: int, wide: int) -> tuple[slice, slice]:
        top, left = self.between(0, SIDE - tall), self.between(0, SIDE - wide)
        return slice(top, top + tall), slice(left, left + wide)

    def _colour(self, grey: int, tint: int = TINT) -> Whole:
        return np.array([grey + self.between(-tint, tint) for _ in range(3)])


def _draws(stream: np.random.PCG64) -> Iterator[int]:
    while True:
        yield from stream.random_raw(DRAWS).tolist()


@functools.lru_cache(maxsize=256)
def stretch_weights(size: int, length: int) -> Whole:
    """Return the weights of linear interpolation with half-pixel centres, int64 (length, size); rows sum to 2 * length.

    Beyond the first and last centre the value is that of the edge.
    """
    position = (2 * np.arange(length) + 1) * size - length  # in 1 / (2 * length) of a source pixel
    low, share = position // (2 * length), position % (2 * length)
    weights = np.zeros((length, size), np.int64)
    for at, weight in ((low, 2 * length - share), (low + 1, share)):
        np.add.at(weights, (np.arange(length), np.clip(at, 0, size - 1)), weight)
    weights.flags.writeable = False
    return weights


@functools.lru_cache(maxsize=4096)
def sign_pixels(shape: str, tall: int, wide: int) -> NDArray[np.bool_]:
    """Return which pixels of a rectangle (tall, wide) belong to a sign that fills it."""
    y = abs(2 * np.arange(tall) + 1 - tall)[:, None] * wide  # centres from the middle, in 1 / (tall * wide) of a half
    x = abs(2 * np.arange(wide) + 1 - wide) * tall
    whole = tall * wide
    if shape == "disc":
        pixels = x**2 + y**2 <= whole**2
    else:
        pixels = 2 * (x + y) <= (3 if shape == "octagon" else 4) * whole
    pixels.flags.writeable = False
    return pixels
