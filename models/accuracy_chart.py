"""The bubble chart of Canziani et al. 2017: accuracy against operations, size for parameters, one colour per family.

A family's Pareto curve joins its nets than which none of the family is both cheaper and better: one family is better
than another if it moves the whole curve up and to the left. `models/_svg.py` draws the shapes as SVG or PNG.
"""

from __future__ import annotations

import colorsys
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.common.files import atomic_file, existing_file
from ..runtime.common.packages import need
from ..runtime.errors import DataError, NotAvailable, UsageError
from ._svg import Canvas, text_width
from .catalog import Entry, build_network, find_network

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 1400, 900, 70, 210, 60, 70
SMALLEST_RADIUS, RADIUS_PER_ROOT_M = 3.0, 2.2
NAME_SIZE, TEXT_SIZE, TITLE_SIZE = 10, 13, 17
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Bubble:
    """One network: x in MACs (G) or milliseconds, top-1 in per cent, parameters in millions."""

    name: str
    family: str
    x: float
    top1: float
    params_m: float


def draw_chart(entries: Sequence[Entry], path: str | Path, latency_ms: Mapping[str, float] | None = None) -> int:
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
    bubbles = collect_bubbles(entries, latency_ms)
    if not bubbles:
        missing = "a measured latency" if latency_ms is not None else "MACs"
        raise UsageError("nothing to draw", got=f"no network with accuracy, parameters and {missing}", do="widen it")
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"cannot draw {path}", expected=".svg or .png", do="change the ending")
    label = "multiply-adds of one image, G" if latency_ms is None else "measured latency of one image, ms"
    canvas = Chart(bubbles, label).paint()
    with atomic_file(path) as temporary:
        if path.suffix == ".svg":
            temporary.write_text(canvas.svg(), encoding="utf-8")
        else:
            canvas.png(temporary)
    return len(bubbles)


def collect_bubbles(entries: Sequence[Entry], latency_ms: Mapping[str, float] | None = None) -> list[Bubble]:
    """Return the networks with ImageNet accuracy and a cost; parameters that nobody published are counted."""
    bubbles = []
    for entry in entries:
        figures = entry.figures
        cost = (figures.macs or 0) / 1e9 if latency_ms is None else latency_ms.get(entry.name, 0)
        if figures.top1 and figures.dataset == "imagenet" and cost and (params := figures.params or _counted(entry)):
            bubbles.append(Bubble(entry.name, entry.family, cost, figures.top1, params / 1e6))
    return bubbles


def _counted(entry: Entry) -> int:
    """Count the parameters of a network, without computing any; 0 where there is no torch to build it."""
    try:
        torch = need("torch")
    except NotAvailable:
        return 0
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(entry.name).parameters())


def read_latencies(paths: Sequence[Path]) -> dict[str, float]:
    """Read measured latencies, in milliseconds by network; of several for one network the fastest.

    Args:
        paths: Results of `edgesmith bench`, rows of the zoo's table, or folders of these.

    Raises:
        UsageError: There is no such file.
        DataError: A file holds neither, or is of a network that is not in the catalogue.
    """
    fastest: dict[str, float] = {}
    for path in itertools.chain.from_iterable(sorted(p.glob("*.json")) if p.is_dir() else [p] for p in paths):
        try:
            for name, value in _measured(json.loads(existing_file(path, "results").read_text(encoding="utf-8"))):
                name = find_network(name).name
                fastest[name] = min(value, fastest.get(name, math.inf))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} holds no measured latencies", got=f"{type(error).__name__}: {error}",
                expected="a result of `edgesmith bench`, or a row of the zoo's table",
            ) from error  # fmt: skip
    return fastest


def _measured(value: dict[str, Any]) -> Iterator[tuple[str, float]]:
    if "network" in value:
        yield from [(value["network"], float(value["ort_p50_ms"]))] if "ort_p50_ms" in value else []
        return
    for result in value["results"]:
        seconds = result["readings"].get("latency", {}).get("values", {}).get("p50_s")
        yield from [(result["subject"]["model"], 1e3 * float(seconds))] if seconds else []


def pareto_bubbles(bubbles: Sequence[Bubble]) -> list[Bubble]:
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
        self.x0, self.x1 = min(logs) - 0.1, max(logs) + 0.15
        self.y0, self.y1 = math.floor(min(tops) - 1), math.ceil(max(tops) + 1)

    def x(self, value: float) -> float:
        """Return the pixel column of a cost."""
        return LEFT + (math.log10(value) - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the pixel row of an accuracy."""
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def colour(self, family: str) -> str:
        """Return a family's colour, #rrggbb; neighbours in the alphabet are far apart in hue."""
        index = self.families.index(family)
        hue, lightness = index * 0.381966 % 1, (0.34, 0.45, 0.55)[index % 3]
        return "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hls_to_rgb(hue, lightness, 0.75))

    def radius(self, bubble: Bubble) -> float:
        """Return the radius in pixels: the area grows with the parameters."""
        return SMALLEST_RADIUS + RADIUS_PER_ROOT_M * math.sqrt(bubble.params_m)

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Return each family's Pareto curve in pixels; families of one net have none."""
        groups = {family: pareto_bubbles([b for b in self.bubbles if b.family == family]) for family in self.families}
        return {family: [(self.x(b.x), self.y(b.top1)) for b in kept] for family, kept in groups.items() if kept[1:]}

    def ticks(self) -> tuple[list[float], list[int]]:
        """Return the values marked on the two axes."""
        steps = [m * 10.0**e for e in range(-3, 5) for m in (1, 2, 5)]
        levels = range(-(-self.y0 // 5) * 5, self.y1 + 1, 5)
        return [s for s in steps if self.x0 <= math.log10(s) <= self.x1], list(levels)

    def names(self) -> list[tuple[float, float, str]]:
        """Return where names go, in pixels: on no other name and on no small bubble; who finds no place has none.

        The nets on a family's curve choose first.
        """
        best = {
            b.name for family in self.families for b in pareto_bubbles([b for b in self.bubbles if b.family == family])
        }
        taken, placed = [self._box(bubble) for bubble in self.bubbles if self.radius(bubble) < NAME_SIZE], []
        for bubble in sorted(self.bubbles, key=lambda b: (b.name not in best, b.params_m)):
            width = text_width(bubble.name, NAME_SIZE)
            for x, y in self._places(bubble, width):
                box = (x, y - NAME_SIZE, x + width, y + 2)
                if box[0] >= LEFT and box[2] < WIDTH - RIGHT + 20 and not any(_overlap(box, other) for other in taken):
                    taken.append(box)
                    placed.append((x, y, bubble.name))
                    break
        return placed

    def _box(self, bubble: Bubble) -> Box:
        x, y, r = self.x(bubble.x), self.y(bubble.top1), self.radius(bubble) * 0.8
        return (x - r, y - r, x + r, y + r)

    def _places(self, bubble: Bubble, width: float) -> Iterator[tuple[float, float]]:
        x, y, r = self.x(bubble.x), self.y(bubble.top1), min(self.radius(bubble), 9.0)
        if 2 * self.radius(bubble) > width + 4:
            yield x - width / 2, y + 4
        for step in (0, NAME_SIZE + 2):
            yield x + r + 2, y + 4 - step
            yield x - r - 2 - width, y + 4 - step
            yield x - width / 2, y - r - 3 - step
            yield x - width / 2, y + r + NAME_SIZE + step
            yield x + r + 2, y + 4 + step

    def paint(self) -> Canvas:
        """Return the chart's shapes."""
        canvas = Canvas(WIDTH, HEIGHT)
        self._axes(canvas)
        for family, points in self.curves().items():
            for first, second in itertools.pairwise(points):
                canvas.line(*first, *second, self.colour(family), 1.6)
        for bubble in self.bubbles:
            about = f"{bubble.name}: {bubble.top1:.2f} %, {bubble.x:.3g} {self.label.split()[-1]}, "
            about += f"{bubble.params_m:.2f} M parameters"
            where = self.x(bubble.x), self.y(bubble.top1), self.radius(bubble)
            canvas.circle(*where, self.colour(bubble.family), about)
        for x, y, name in self.names():
            canvas.text(x, y, name, NAME_SIZE)
        self._legend(canvas)
        return canvas

    def _axes(self, canvas: Canvas) -> None:
        columns, levels = self.ticks()
        for value in columns:
            canvas.line(self.x(value), TOP, self.x(value), HEIGHT - BOTTOM, "#e4e4e4", 1)
            words = f"{value:g}"
            canvas.text(self.x(value) - text_width(words, TEXT_SIZE) / 2, HEIGHT - BOTTOM + 20, words, TEXT_SIZE)
        for level in levels:
            canvas.line(LEFT, self.y(level), WIDTH - RIGHT, self.y(level), "#e4e4e4", 1)
            canvas.text(LEFT - 28, self.y(level) + 5, str(level), TEXT_SIZE)
        canvas.text(LEFT, TOP - 24, "ImageNet top-1 accuracy, %, as published", TITLE_SIZE)
        middle = (LEFT + WIDTH - RIGHT - text_width(self.label, TITLE_SIZE)) / 2
        canvas.text(middle, HEIGHT - 18, self.label, TITLE_SIZE)

    def _legend(self, canvas: Canvas) -> None:
        left = WIDTH - RIGHT + 30
        for index, family in enumerate(self.families):
            canvas.circle(left, TOP + 20 * index, 6, self.colour(family))
            canvas.text(left + 14, TOP + 20 * index + 5, family, TEXT_SIZE)
        y = TOP + 20.0 * len(self.families) + 30
        canvas.text(left - 6, y, "parameters", TEXT_SIZE)
        for params_m in (1, 10, 100):
            radius = SMALLEST_RADIUS + RADIUS_PER_ROOT_M * math.sqrt(params_m)
            y += radius + 14
            canvas.circle(left + 14, y, radius, "#777777")
            canvas.text(left + 48, y + 5, f"{params_m} M", TEXT_SIZE)
            y += radius


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
