"""Plot of the sources of quantisation noise: one bar for each tensor and, if it is known, for each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.common.figures import pyplot, save_figure

if TYPE_CHECKING:
    from ..optimize.quantize.report import QuantReport

WIDTH_INCHES, BAR_INCHES = 9.0, 0.2


def draw_noise(report: QuantReport, path: str | Path) -> None:
    """Write the plot, .svg or .png: SQNR in dB, the noisiest first.

    Raises:
        EdgesmithError: The file cannot be written.
        NotAvailable: matplotlib is not installed.
    """
    save_figure(bars(report), Path(path))


def bars(report: QuantReport) -> Any:
    """Return the figure: one subplot for layers and one for tensors, if there are values for them."""
    parts = {
        "SQNR of the output with only this layer quantised, dB": report.layer_sqnr_db,
        "SQNR of each quantised tensor, dB": report.tensor_sqnr_db,
    }
    parts = {title: values for title, values in parts.items() if values} or {"nothing was quantised": {}}
    heights = [BAR_INCHES * len(values) + 0.6 for values in parts.values()]
    figure, axes = pyplot().subplots(
        len(parts), 1, figsize=(WIDTH_INCHES, sum(heights)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for one, (title, values) in zip(axes.flat, parts.items(), strict=True):
        _bars(one, title, values)
    return figure


def _bars(axes: Any, title: str, values: dict[str, float]) -> None:
    """Draw one bar per name, the noisiest at the top, with its value beside it."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    places = range(len(ordered))
    rectangles = axes.barh(places, [max(0.0, value) for _, value in ordered], color="#4878a8")
    axes.bar_label(rectangles, [f"{value:.1f}" for _, value in ordered], padding=3, fontsize=7)
    axes.set_yticks(places, [name[-52:] for name, _ in ordered], fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_title(title, fontsize=9, loc="left")
