"""One self-contained HTML page: works offline, light and dark, on a phone and in print.

The charts are drawn by Apache ECharts 6.1 (Apache-2.0), which is in `data/` and is embedded in the page, with its
notices and those of its parts zrender and d3. Names from results become text nodes or escaped JSON, never markup.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from ..result import Run
from .view import page_data

FIGURES = {
    "tradeoff": "Accuracy against latency",
    "latency": "Distribution of latency",
    "start": "Cold start by stage",
    "memory": "Memory by use",
    "timeline": "Memory over time",
    "layers": "Time by operator type",
    "roofline": "Roofline of this machine",
    "sensitivity": "SQNR of each layer in INT8",
}

NOTICES = ("echarts-NOTICE.txt", "echarts-LICENSE.txt", "echarts-LICENSE-zrender.txt", "echarts-LICENSE-d3.txt")


def render(runs: Sequence[Run], title: str = "Edgesmith report", quantised: Mapping[str, Any] | None = None) -> str:
    """Return the page as text; `quantised` is the result of `read_sensitivity`."""
    return assemble(page_data(runs, quantised), title)


def assemble(data: dict[str, Any], title: str) -> str:
    """Insert data, script, style and chart library into the template."""
    parts = {
        "TITLE": escape(title),
        "STYLE": _asset("report.css"),
        "FIGURES": "\n".join(_figure(name, text) for name, text in FIGURES.items()),
        "NOTICES": escape("\n\n".join(_asset(name).strip() for name in NOTICES)),
        "DATA": json_for_html(data),
        "LIBRARY": _asset("echarts.common.min.js"),
        "SCRIPT": _asset("report.js"),
    }
    text = _asset("report.html")
    for name, value in parts.items():
        text = text.replace(f"<!--{name}-->", value)
    return text


def json_for_html(data: Any) -> str:
    """Return JSON whose strings cannot end the surrounding script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def escape(text: str) -> str:
    """Return text with HTML characters escaped."""
    for raw, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(raw, safe)
    return text


def _figure(name: str, text: str) -> str:
    return (
        f'<figure id="{name}" hidden><figcaption><h2><a href="#{name}">{text}</a></h2>'
        f'<button type="button" data-download="{name}">data as CSV</button></figcaption>'
        f'<p class="about"></p><div class="chart" role="img" aria-label="{text}"></div></figure>'
    )


def _asset(name: str) -> str:
    return files(__package__).joinpath("data").joinpath(name).read_text(encoding="utf-8")
