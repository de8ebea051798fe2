"""Boxes with labels drawn on an image, one colour per class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
