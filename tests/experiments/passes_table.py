"""`PYTHONPATH=tests python -m experiments.passes_table`: the table of docs/passes.md, from the passes' heads."""

from __future__ import annotations

import click

from edgesmith.optimize import passes
from edgesmith.optimize.optimizer import find
from edgesmith.runtime.common.plugins import plugin_names


def rows() -> list[tuple[str, str, str]]:
    """Return name, summary and reason of every pass, sorted by name."""
    return [(name, find(name).summary, reason(name)) for name in plugin_names(passes)]


def reason(name: str) -> str:
    """Return what a pass's file says under «Why:», on one line."""
    module = __import__(f"{passes.__name__}.{name}", fromlist=["PASS"])
    return " ".join((module.__doc__ or "").split("Why:", 1)[1].split())


def table() -> str:
    """Return the Markdown table."""
    lines = [f"| `{name}` | {summary} | {why} |" for name, summary, why in rows()]
    return "\n".join(["| pass | what | why |", "|---|---|---|", *lines])


if __name__ == "__main__":
    click.echo(table())
