"""Drawing that several tasks share: colours of classes, a legend, a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.packages import need

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST_LEGEND, LONGEST_NAME, LEAST_SIDE = 8, 24, 64


def palette(count: int) -> NDArray[np.uint8]:
    """Return a colour for each of some classes, uint8 (count, 3): those of PASCAL VOC, class 0 is black."""
    index = np.arange(count)
    channels = [sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)


def colours(classes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the colour of each pixel's class, uint8 (H, W, 3); negative ones are grey."""
    colour: NDArray[np.uint8] = palette(256)[classes % 256]
    colour[classes < 0] = 128
    return colour


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
        canvas.rectangle(
            (3, y + 1, size + 1, y + size), fill=tuple(palette(256)[index % 256].tolist()), outline="white"
        )
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
