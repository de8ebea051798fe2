"""The bubble chart of Canziani et al. 2017: accuracy against operations, size for parameters, one colour per family.

A family's Pareto front connects the networks for which no other of the family is both cheaper and more accurate:
one family is better than another if its whole front is further up and to the left. Drawn by matplotlib.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.common.figures import pyplot, save_figure
from ..runtime.common.files import existing_file
from ..runtime.common.packages import need
from ..runtime.errors import DataError, NotAvailable, UsageError
from .catalog import Entry, build_network, find_network

INCHES = (14.0, 9.0)
SMALLEST_AREA, AREA_PER_M = 14.0, 6.0  # of a bubble, in square points: the area is proportional to the parameters
NAME_SIZE = 7
# Positions of a name: right of its bubble, left, above, below; and its alignment there.
_SIDES = ((1, 0, "left", "center"), (-1, 0, "right", "center"), (0, 1, "center", "bottom"), (0, -1, "center", "top"))


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
        latency_ms: Measured latency by name, used instead of operations.

    Returns:
        The number of networks drawn.

    Raises:
        UsageError: Another file type, or no network with published figures.
        NotAvailable: matplotlib is not installed.
    """
    path = Path(path)
    bubbles = collect_bubbles(entries, latency_ms)
    if not bubbles:
        missing = "a measured latency" if latency_ms is not None else "MACs"
        raise UsageError("nothing to draw", got=f"no network with accuracy, parameters and {missing}", do="widen it")
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"cannot draw {path}", expected=".svg or .png", do="change the ending")
    label = "multiply-adds of one image, G" if latency_ms is None else "measured latency of one image, ms"
    save_figure(_paint(bubbles, label), path)
    return len(bubbles)


def collect_bubbles(entries: Sequence[Entry], latency_ms: Mapping[str, float] | None = None) -> list[Bubble]:
    """Return the networks with ImageNet accuracy and a cost; unpublished numbers of parameters are counted."""
    bubbles = []
    for entry in entries:
        figures = entry.figures
        cost = (figures.macs or 0) / 1e9 if latency_ms is None else latency_ms.get(entry.name, 0)
        if figures.top1 and figures.dataset == "imagenet" and cost and (params := figures.params or _counted(entry)):
            bubbles.append(Bubble(entry.name, entry.family, cost, figures.top1, params / 1e6))
    return bubbles


def _counted(entry: Entry) -> int:
    """Count the parameters of a network without initialising them; 0 if torch is not installed."""
    try:
        torch = need("torch")
    except NotAvailable:
        return 0
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_network(entry.name).parameters())


def read_latencies(paths: Sequence[Path]) -> dict[str, float]:
    """Read measured latencies, in milliseconds by network; the fastest one of each network.

    Args:
        paths: Results of `edgesmith bench`, rows of the zoo's table, or folders of these.

    Raises:
        UsageError: There is no such file.
        DataError: A file contains neither, or its network is not in the catalogue.
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
    """Return the Pareto front: no other network is both cheaper and at least as accurate; cheapest first."""
    kept: list[Bubble] = []
    for bubble in sorted(bubbles, key=lambda item: (item.x, -item.top1)):
        if not kept or bubble.top1 > kept[-1].top1:
            kept.append(bubble)
    return kept


def area(bubble: Bubble) -> float:
    """Return the area of a bubble in square points."""
    return SMALLEST_AREA + AREA_PER_M * bubble.params_m


def _paint(bubbles: Sequence[Bubble], label: str) -> Any:
    """Return the figure: bubbles, each family's Pareto front, names where there is space, and two legends."""
    figure, axes = pyplot().subplots(figsize=INCHES, layout="constrained")
    families = sorted({bubble.family for bubble in bubbles})
    colours = need("matplotlib").colormaps["tab20"]
    for index, family in enumerate(families):
        own = [bubble for bubble in bubbles if bubble.family == family]
        colour = colours(index % 20)
        axes.scatter([b.x for b in own], [b.top1 for b in own], [area(b) for b in own], color=colour, alpha=0.6,
                     edgecolors=colour, marker="o^sDvP"[index // 20 % 6], label=family, gid=family)  # fmt: skip
        front = pareto_bubbles(own)
        axes.plot([b.x for b in front], [b.top1 for b in front], color=colour, linewidth=1, zorder=0)
    axes.set(xscale="log", xlabel=label, ylabel="ImageNet top-1 accuracy, %, as published")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(0.08)
    axes.grid(True, which="both", alpha=0.2)
    _legends(figure, axes)
    _names(figure, axes, bubbles)
    return figure


def _legends(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    lines = need("matplotlib.lines")
    families = [lines.Line2D([], [], marker="o", linestyle="", color=one.get_facecolor()[0]) for one in handles]
    figure.legend(families, labels, loc="outside right upper", fontsize=8, frameon=False)
    sizes = [
        axes.scatter([], [], area(Bubble("", "", 1.0, 0.0, size)), color="grey", alpha=0.6) for size in (1, 10, 100)
    ]
    axes.legend(sizes, ["1 M", "10 M", "100 M"], title="parameters", loc="lower right", frameon=False, labelspacing=1.6)


def _names(figure: Any, axes: Any, bubbles: Sequence[Bubble]) -> None:
    """Write names beside their bubbles without overlap, omitting those without space; fronts come first."""
    figure.canvas.draw()
    families = itertools.groupby(sorted(bubbles, key=lambda b: b.family), key=lambda b: b.family)
    best = {bubble.name for _, own in families for bubble in pareto_bubbles(list(own))}
    frame, boxes = axes.get_window_extent(), list[Any]()
    for bubble in sorted(bubbles, key=lambda b: (b.name not in best, b.params_m)):
        distance = math.sqrt(area(bubble) / math.pi) + 1
        for across, up, side, edge in _SIDES:
            offset = (across * distance, up * distance)
            text = axes.annotate(bubble.name, (bubble.x, bubble.top1), offset, textcoords="offset points",
                                 fontsize=NAME_SIZE, ha=side, va=edge)  # fmt: skip
            box = text.get_window_extent()
            if frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) and not box.count_overlaps(boxes):
                boxes.append(box)
                break
            text.remove()
