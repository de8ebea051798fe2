"""The bubble chart of Canziani et al. 2017: accuracy against operations, size for parameters, one colour per family.

Drawn here as SVG and, through Pillow, as PNG. A family's Pareto curve joins its nets than which none of the family is
both cheaper and better: one family is better than another if it moves the whole curve up and to the left.
"""

from __future__ import annotations

import colorsys
import html
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.console import need
from ..runtime.errors import UsageError
from ..runtime.files import atomic_file
from .catalog import Entry

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1200, 760, 80, 230, 50, 70
SMALLEST_RADIUS, RADIUS_PER_ROOT_M = 3.0, 2.2


@dataclass(frozen=True)
class Bubble:
    """One network: x in MACs (G) or milliseconds, top-1 in per cent, parameters in millions."""

    name: str
    family: str
    x: float
    top1: float
    params_m: float


def draw(entries: Sequence[Entry], path: str | Path, latency_ms: Mapping[str, float] | None = None) -> int:
    """Draw the networks that have all three figures.

    Args:
        entries: Networks.
        path: .svg or .png.
        latency_ms: Measured latency by name, in place of operations.

    Returns:
        How many were drawn.

    Raises:
        UsageError: Another file type, or no network with published figures.
    """
    path = Path(path)
    bubbles = collect(entries, latency_ms)
    if not bubbles:
        raise UsageError("nothing to draw", got="no network with accuracy, MACs and parameters", do="widen the pattern")
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"cannot draw {path}", expected=".svg or .png", do="change the ending")
    shapes = Chart(bubbles, "latency, ms" if latency_ms else "multiply-adds, G")
    with atomic_file(path) as temporary:
        if path.suffix == ".svg":
            temporary.write_text(shapes.svg(), encoding="utf-8")
        else:
            shapes.png(temporary)
    return len(bubbles)


def collect(entries: Sequence[Entry], latency_ms: Mapping[str, float] | None = None) -> list[Bubble]:
    """Return the networks with ImageNet accuracy, a cost and a number of parameters."""
    found = []
    for entry in entries:
        figures = entry.figures
        cost = (latency_ms or {}).get(entry.name) if latency_ms else (figures.macs or 0) / 1e9
        if figures.top1 and figures.params and cost and entry.classes == 1000:
            found.append(Bubble(entry.name, entry.family, cost, figures.top1, figures.params / 1e6))
    return found


def pareto(bubbles: Sequence[Bubble]) -> list[Bubble]:
    """Return those than which none is both cheaper and at least as accurate, cheapest first."""
    kept: list[Bubble] = []
    for bubble in sorted(bubbles, key=lambda item: (item.x, -item.top1)):
        if not kept or bubble.top1 > kept[-1].top1:
            kept.append(bubble)
    return kept


class Chart:
    """Positions and colours of the bubbles; x is logarithmic."""

    def __init__(self, bubbles: Sequence[Bubble], label: str) -> None:
        self.bubbles, self.label = sorted(bubbles, key=lambda item: -item.params_m), label
        self.families = sorted({bubble.family for bubble in bubbles})
        logs = [math.log10(bubble.x) for bubble in bubbles]
        tops = [bubble.top1 for bubble in bubbles]
        self.x0, self.x1 = min(logs) - 0.1, max(logs) + 0.1
        self.y0, self.y1 = math.floor(min(tops) - 1), math.ceil(max(tops) + 1)

    def x(self, value: float) -> float:
        """Return the pixel column of a cost."""
        return LEFT + (math.log10(value) - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel row of an accuracy."""
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def colour(self, family: str) -> str:
        """Return a family's colour, #rrggbb."""
        hue = self.families.index(family) / len(self.families)
        lightness = 0.38 + 0.14 * (self.families.index(family) % 2)
        return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.75))

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Return each family's Pareto curve in pixels; families of one net have none."""
        groups = {family: pareto([b for b in self.bubbles if b.family == family]) for family in self.families}
        return {family: [(self.x(b.x), self.y(b.top1)) for b in kept] for family, kept in groups.items() if kept[1:]}

    def ticks(self) -> tuple[list[float], list[int]]:
        """Return the values marked on the two axes."""
        steps = [m * 10.0**e for e in range(-3, 5) for m in (1, 2, 5)]
        return [s for s in steps if self.x0 <= math.log10(s) <= self.x1], list(range(self.y0, self.y1 + 1, 5))

    def svg(self) -> str:
        """Return the chart as SVG."""
        parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">']
        parts.append(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>')

        def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> None:
            at = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            parts.append(f'<line {at} stroke="{colour}" stroke-width="{width}"/>')

        def text(x: float, y: float, words: str, size: int) -> None:
            parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{html.escape(words)}</text>')

        def circle(x: float, y: float, radius: float, colour: str) -> None:
            at = f'cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"'
            parts.append(f'<circle {at} fill="{colour}" fill-opacity="0.55" stroke="{colour}"/>')

        self._paint(line, text, circle)
        return "\n".join([*parts, "</svg>", ""])

    def png(self, path: Path) -> None:
        """Write the chart as PNG."""
        need("PIL")
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
        pen = ImageDraw.Draw(picture, "RGBA")

        def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> None:
            pen.line((x1, y1, x2, y2), fill=colour, width=round(max(1, width)))

        def text(x: float, y: float, words: str, size: int) -> None:
            pen.text((x, y - size), words, fill="black")

        def circle(x: float, y: float, radius: float, colour: str) -> None:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour + "8c", outline=colour)

        self._paint(line, text, circle)
        picture.save(path, format="PNG")

    def _paint(self, line: Callable[..., None], text: Callable[..., None], circle: Callable[..., None]) -> None:
        columns, levels = self.ticks()
        for value in columns:
            line(self.x(value), TOP, self.x(value), HEIGHT - BOTTOM, "#dddddd", 1)
            text(self.x(value) - 8, HEIGHT - BOTTOM + 20, f"{value:g}", 13)
        for level in levels:
            line(LEFT, self.y(level), WIDTH - RIGHT, self.y(level), "#dddddd", 1)
            text(LEFT - 32, self.y(level) + 5, str(level), 13)
        text(LEFT, TOP - 20, "ImageNet top-1, %, as published; area: parameters", 15)
        text((WIDTH - RIGHT) / 2, HEIGHT - 20, self.label, 15)
        for family, points in self.curves().items():
            for first, second in itertools.pairwise(points):
                line(*first, *second, self.colour(family), 2)
        for bubble in self.bubbles:
            radius = SMALLEST_RADIUS + RADIUS_PER_ROOT_M * math.sqrt(bubble.params_m)
            circle(self.x(bubble.x), self.y(bubble.top1), radius, self.colour(bubble.family))
            text(self.x(bubble.x) + 4, self.y(bubble.top1) - 4, bubble.name, 9)
        for index, family in enumerate(self.families):
            circle(WIDTH - RIGHT + 24, TOP + 20 * index, 6, self.colour(family))
            text(WIDTH - RIGHT + 38, TOP + 20 * index + 5, family, 13)
