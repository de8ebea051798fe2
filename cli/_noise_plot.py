"""Where the noise comes from, as bars in an SVG file: one bar for each tensor and, where it is known, each layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from ..runtime.common.files import atomic_file
from ..runtime.outputs import STAMP

if TYPE_CHECKING:
    from ..optimize.quantize.report import QuantReport

ROW, LEFT, WIDTH, TEXT = 16, 320, 480, 11


def draw_noise(report: QuantReport, path: str | Path) -> None:
    """Write the plot: signal to noise in dB, the noisiest first.

    Raises:
        EdgesmithError: The file cannot be written.
    """
    parts = [
        ("SQNR of the output when one layer alone is quantised, dB", report.layer_sqnr_db),
        ("SQNR of each quantised tensor, dB", report.tensor_sqnr_db),
    ]
    top, body = 0, ""
    for title, values in parts:
        if values:
            drawn, top = _bars(title, values, top)
            body += drawn
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{top + ROW}"'
    look = f'font-family="sans-serif" font-size="{TEXT}"'
    with atomic_file(path) as temporary:
        temporary.write_text(f"{frame} {look}>\n<!-- {STAMP} -->\n{body}</svg>\n", encoding="utf-8")


def _bars(title: str, values: dict[str, float], top: int) -> tuple[str, int]:
    """Return the bars of one figure below `top`, and where it ends; both in pixels."""
    ordered = sorted(values.items(), key=lambda item: item[1])
    most = max(max(values.values()), 1e-9)
    lines = [f'<text x="4" y="{top + 2 * ROW}" font-weight="bold">{escape(title)}</text>\n']
    at = top + 3 * ROW
    for name, value in ordered:
        wide = max(0.0, WIDTH * min(value, most) / most)
        lines.append(
            f'<text x="{LEFT - 6}" y="{at + TEXT}" text-anchor="end">{escape(name[-52:])}</text>'
            f'<rect x="{LEFT}" y="{at + 2}" width="{wide:.1f}" height="{ROW - 4}" fill="#4878a8"/>'
            f'<text x="{LEFT + wide + 4:.1f}" y="{at + TEXT}">{value:.1f}</text>\n'
        )
        at += ROW
    return "".join(lines), at
