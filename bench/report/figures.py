"""The figures of the page as PNG and SVG files, drawn by matplotlib, for a paper, a slide or a README."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...runtime.common.figures import pyplot, save_figure
from ...runtime.outputs import claim
from ..result import Run
from .page import FIGURES
from .view import page_data

FORMATS = ("png", "svg")
INCHES = (8.0, 4.8)


def claim_figures(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder in which a figure would replace a file that Edgesmith did not write.

    Raises:
        UsageError: There is such a file, or the folder cannot be written.
    """
    for name in FIGURES:
        for kind in FORMATS:
            claim(folder / f"{name}.{kind}", "picture", overwrite=overwrite)


def draw_figures(runs: Sequence[Run], folder: Path, quantised: Mapping[str, Any] | None = None) -> list[Path]:
    """Draw every figure that has data as FOLDER/NAME.png and .svg; `quantised` as for the page.

    Returns:
        The files written.

    Raises:
        NotAvailable: matplotlib is not installed.
    """
    pyplot()
    data, written = page_data(runs, quantised), list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    for name, title in FIGURES.items():
        if figure := _figure(name, title, data[name]):
            paths = [folder / f"{name}.{kind}" for kind in FORMATS]
            save_figure(figure, *paths)
            written += paths
    return written


def _figure(name: str, title: str, data: Any) -> Any:
    """Return the figure, or None if there are no data."""
    lists = {"tradeoff": "points", "roofline": "points", "sensitivity": "records"}
    if not (data[lists.get(name, "names")] if isinstance(data, dict) else data):
        return None
    figure, axes = pyplot().subplots(figsize=INCHES, layout="constrained")
    axes.set_title(title)
    axes.grid(True, alpha=0.3)
    _DRAW[name](axes, data)
    return figure


def _tradeoff(axes: Any, data: Any) -> None:
    points = data["points"]
    largest = max(point["mb"] or 1 for point in points)
    for family in sorted({point["family"] for point in points}):
        own = [point for point in points if point["family"] == family]
        sizes = [40 + 460 * (point["mb"] or 1) / largest for point in own]
        axes.scatter([point["ms"] for point in own], [point["top1"] for point in own], sizes, label=family, alpha=0.7)
    for point in points:
        axes.plot([point["ms"]] * 2, [point["low"], point["high"]], color="grey", linewidth=1, zorder=0)
    front = [points[index] for index in data["front"]]
    axes.plot([point["ms"] for point in front], [point["top1"] for point in front], "--", color="grey", zorder=0)
    for point in points:
        axes.annotate(
            point["name"], (point["ms"], point["top1"]), fontsize=7, xytext=(4, 4), textcoords="offset points"
        )
    axes.set(xlabel="p50 latency, ms", ylabel=data["accuracy"], xscale="log")
    axes.legend(fontsize=8)


def _name(axes: Any, name: str, at: tuple[float, float]) -> None:
    axes.annotate(name, at, fontsize=7, xytext=(4, 4), textcoords="offset points")


def _latency(axes: Any, data: Any) -> None:
    for item in data:
        axes.plot(*zip(*item["points"], strict=True), label=item["name"])
    axes.set(xlabel="latency, ms", ylabel="% of the calls within it", xscale="log")
    axes.legend(fontsize=7)


def _roofline(axes: Any, data: Any) -> None:
    for roof in data["roofs"]:
        axes.plot(*zip(*roof["points"], strict=True), label=roof["name"])
    axes.scatter([point["x"] for point in data["points"]], [point["y"] for point in data["points"]], color="black")
    for point in data["points"]:
        _name(axes, point["name"], (point["x"], point["y"]))
    axes.set(xlabel="MACs per byte of weights", ylabel="G MACs/s", xscale="log", yscale="log")
    axes.legend(fontsize=8)


def _stacked(axes: Any, data: Any, unit: str) -> None:
    left = [0.0] * len(data["names"])
    for one in data["series"]:
        axes.barh(data["names"], one["values"], left=left, label=one["name"])
        left = [sum(pair) for pair in zip(left, one["values"], strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.legend(fontsize=7)


def _timeline(axes: Any, data: Any) -> None:
    for item in data:
        axes.plot(*zip(*item["points"], strict=True), label=item["name"])
    axes.set(xlabel="ms since the start of the process", ylabel="resident MB")
    axes.legend(fontsize=7)


def _sensitivity(axes: Any, data: Any) -> None:
    for record in data["records"]:
        axes.plot([db for _, db in record["bars"]], "o-", label=f"{record['name']}, {record['kind']}")
    longest = max(data["records"], key=lambda record: len(record["bars"]))
    if len(data["records"]) == 1:
        axes.set_xticks(range(len(longest["bars"])), [name for name, _ in longest["bars"]], rotation=90, fontsize=5)
    axes.set(xlabel="layer, lowest SQNR first", ylabel="SQNR, dB")
    axes.legend(fontsize=7)


_DRAW: dict[str, Callable[[Any, Any], None]] = {
    "tradeoff": _tradeoff,
    "latency": _latency,
    "roofline": _roofline,
    "timeline": _timeline,
    "sensitivity": _sensitivity,
    **{name: partial(_stacked, unit=unit) for name, unit in (("start", "ms"), ("memory", "MB"), ("layers", "ms"))},
}
