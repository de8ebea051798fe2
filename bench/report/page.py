"""One self-contained HTML page: what was run, on what, and a table for each run."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .. import tables
from ..result import Run

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .7rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent) }
td + td + td + td, th + th + th + th { text-align: right }
"""


def render(runs: Sequence[Run]) -> str:
    """Return the page as text."""
    body = "".join(_section(run) for run in runs)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Edgesmith report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>Edgesmith report</h1>{body}</body></html>\n"
    )


def _section(run: Run) -> str:
    kept = tables.used(run.results)
    head = "".join(f"<th scope=col>{html.escape(column.head)}</th>" for column in kept)
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(column.draw(result))}</td>" for column in kept) + "</tr>"
        for result in run.results
    )
    remarks = "".join(f"<li>{html.escape(note)}</li>" for note in tables.notes(run))
    caption = html.escape(tables.caption(run))
    return f"<p>{caption}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table><ul>{remarks}</ul>"
