"""Answers drawn on an image: boxes, masks with a legend, a line of text; one colour per class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_LEGEND, LONGEST_NAME, LEAST_SIDE = 8, 24, 64
UNSEEN = (128, 128, 128)
GOLDEN = 0.618034  # turns of the colour wheel from one class to the next, so that neighbours differ


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour of a class, RGB."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: NDArray[Any], boxes: NDArray[Any], labels: Sequence[int], texts: Sequence[str]
) -> NDArray[np.uint8]:
    """Return a copy of an image, uint8 (H, W, 3), with boxes (N, 4), x1, y1, x2, y2 in pixels, and a text on each."""
    picture = need("PIL.Image").fromarray(np.ascontiguousarray(image))
    canvas, size = need("PIL.ImageDraw").Draw(picture), max(10, picture.height // 40)
    font = need("PIL.ImageFont").load_default(size)
    for box, label, text in list(zip(np.asarray(boxes).tolist(), labels, texts, strict=True))[::-1]:
        x1, y1, x2, y2 = box
        canvas.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour(label), width=max(1, size // 6))
        left, top, right, bottom = canvas.textbbox((0, 0), text, font=font)
        width, height = right - left + 4, bottom - top + 4
        x = min(max(x1, 0), max(picture.width - width, 0))
        y = y1 - height if y1 >= height else min(y1, picture.height - height)
        canvas.rectangle((x, y, x + width, y + height), fill=colour(label))
        canvas.text((x + 2 - left, y + 2 - top), text, fill=_ink(colour(label)), font=font)
    return np.asarray(picture)


def _ink(background: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return black or white, whichever is read better."""
    return (0, 0, 0) if 0.3 * background[0] + 0.59 * background[1] + 0.11 * background[2] > 140 else (255, 255, 255)


def paint(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colour of each pixel's class, uint8 (H, W, 3), from whole numbers (H, W); negative ones are grey."""
    colours = np.array([*map(colour, range(256)), UNSEEN], np.uint8)
    return colours[np.where(classes < 0, 256, classes % 256)]


def legend(picture: Any, rows: Sequence[tuple[str, int, str]]) -> NDArray[np.uint8]:
    """Return a Pillow picture with a legend in its lower left corner: at most eight rows of name, class, and a text.

    One of fewer than 64 pixels has no room for it.
    """
    if min(picture.size) < LEAST_SIDE:
        return np.asarray(picture)
    draw, fonts = need("PIL.ImageDraw"), need("PIL.ImageFont")
    size = max(9, min(picture.height // 24, 28))
    canvas, font = draw.Draw(picture, "RGBA"), fonts.load_default(size)
    rows = rows[:LONGEST_LEGEND][: max(picture.height // (size + 6), 1)]
    texts = [f"{name[:LONGEST_NAME]} {text}" for name, _, text in rows]
    step = size + 4
    wide = max((canvas.textlength(text, font=font) for text in texts), default=0) + step + 8
    top = picture.height - step * len(rows) - 4
    canvas.rectangle((0, top, wide, picture.height), fill=(0, 0, 0, 170))
    for at, ((_, index, _), text) in enumerate(zip(rows, texts, strict=True)):
        y = top + 2 + at * step
        canvas.rectangle((3, y + 1, size + 1, y + size), fill=colour(index), outline="white")
        canvas.text((step + 2, y - 1), text, fill="white", font=font)
    return np.asarray(picture)


def corner_text(image: NDArray[Any], text: str) -> NDArray[np.uint8]:
    """Return a copy of an image, uint8 (H, W, 3), with a line of text in its upper left corner."""
    pillow, draw, fonts = need("PIL.Image"), need("PIL.ImageDraw"), need("PIL.ImageFont")
    picture = pillow.fromarray(np.ascontiguousarray(image))
    font, canvas = fonts.load_default(max(10, picture.height // 16)), draw.Draw(picture)
    box = canvas.textbbox((2, 2), text, font=font)
    canvas.rectangle((0, 0, box[2] + 2, box[3] + 2), fill=(0, 0, 0))
    canvas.text((2, 2), text, fill=(255, 255, 255), font=font)
    return np.asarray(picture)
