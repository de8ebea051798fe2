"""Lines, circles and words, kept as data and written as SVG or, through Pillow, as PNG."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..runtime.common.packages import need
from ..runtime.outputs import STAMP, png_stamp

SHARPER = 2  # the PNG has so many pixels for each unit, and is drawn with twice as many and shrunk


def text_width(words: str, size: float) -> float:
    """Return about how wide words are in a sans-serif face."""
    return 0.56 * size * len(words)


class Canvas:
    """Shapes in the order in which they are painted; the origin is the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.shapes: list[tuple[str, tuple[Any, ...]]] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> None:
        """Draw a line, colour #rrggbb."""
        self.shapes.append(("line", (x1, y1, x2, y2, colour, width)))

    def circle(self, x: float, y: float, radius: float, colour: str, about: str = "") -> None:
        """Draw a half-transparent disc with an edge; `about` is shown when the mouse is on it (SVG)."""
        self.shapes.append(("circle", (x, y, radius, colour, about)))

    def text(self, x: float, y: float, words: str, size: int) -> None:
        """Write words whose base line begins at (x, y), with a pale edge so that they can be read on anything."""
        self.shapes.append(("text", (x, y, words, size)))

    def svg(self) -> str:
        """Return the picture as SVG."""
        size = f'width="{self.width}" height="{self.height}" viewBox="0 0 {self.width} {self.height}"'
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="DejaVu Sans, sans-serif">']
        parts.append(f"<!-- {STAMP} -->")
        parts.append(f'<rect width="{self.width}" height="{self.height}" fill="white"/>')
        parts += [_SVG[kind](*values) for kind, values in self.shapes]
        return "\n".join([*parts, "</svg>", ""])

    def png(self, path: Path) -> None:
        """Write the picture as PNG."""
        pillow, draw, font = need("PIL.Image"), need("PIL.ImageDraw"), need("PIL.ImageFont")
        scale = 2 * SHARPER
        picture = pillow.new("RGB", (self.width * scale, self.height * scale), "white")
        pen = draw.Draw(picture, "RGBA")
        for kind, values in self.shapes:
            if kind == "line":
                pen.line([scale * v for v in values[:4]], fill=values[4], width=round(scale * values[5]))
            elif kind == "circle":
                x, y, r = (scale * v for v in values[:3])
                pen.ellipse((x - r, y - r, x + r, y + r), fill=values[3] + "80", outline=values[3], width=scale)
            else:
                x, y, words, size = values
                face = font.load_default(scale * size)
                at = (scale * x, scale * y)
                pen.text(at, words, "black", face, "ls", stroke_width=scale, stroke_fill="#ffffffb0")
        shape = (self.width * SHARPER, self.height * SHARPER)
        picture.resize(shape, pillow.Resampling.LANCZOS).save(path, format="PNG", pnginfo=png_stamp())


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    at = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {at} stroke="{colour}" stroke-width="{width}"/>'


def _circle(x: float, y: float, radius: float, colour: str, about: str) -> str:
    at = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
    title = f"<title>{html.escape(about)}</title>"
    return f'<circle {at} fill="{colour}" fill-opacity="0.5" stroke="{colour}">{title}</circle>'


def _text(x: float, y: float, words: str, size: int) -> str:
    halo = 'stroke="white" stroke-opacity="0.7" stroke-width="2" paint-order="stroke"'
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" {halo}>{html.escape(words)}</text>'


_SVG: dict[str, Callable[..., str]] = {"line": _line, "circle": _circle, "text": _text}
