"""What `make bench-passes` measures of one tool on one model, and the tables drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The model on which a tool costs what it costs to start.
ONE_NODE = "one-node"


@dataclass(frozen=True)
class Row:
    """One tool on one model.

    Attributes:
        model: The file's stem.
        tool: Its name.
        nodes: Nodes of the result; None if there is no result.
        verdict: "equal", "different", "cannot tell", or why there is no result.
        seconds: Wall-clock time of the whole process; cpu_s: its processor time.
        peak_bytes: Largest resident set of the process.
        model_bytes: Size of the source, or of the result where that is larger: weights that are computed.
        speed_off: Processor time of the source over that of the result, ONNX Runtime's optimisations off, one thread.
        speed_on: The same with them on.
    """

    model: str
    tool: str
    nodes: int | None
    verdict: str
    seconds: float
    cpu_s: float
    peak_bytes: int
    model_bytes: int = 0
    speed_off: float | None = None
    speed_on: float | None = None


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as Markdown: one table per figure, a line per model, a column per tool."""
    tools = list(dict.fromkeys(entry.tool for entry in rows))
    started = {entry.tool: entry.peak_bytes for entry in rows if entry.model == ONE_NODE}
    figures = {
        "Nodes": lambda entry: "failed" if entry.nodes is None else f"{entry.nodes}{_flag(entry)}",
        "Processor seconds of the whole process": lambda entry: f"{entry.cpu_s:.2f}",
        "Peak memory, MB": lambda entry: f"{entry.peak_bytes / 1e6:.0f}",
        "Peak memory over that on one node, in sizes of the model": lambda entry: _sizes(entry, started),
        "Speed-up of the result, ONNX Runtime's optimisations off": lambda entry: _ratio(entry.speed_off),
        "Speed-up of the result, ONNX Runtime's optimisations on": lambda entry: _ratio(entry.speed_on),
    }
    text = ""
    for title, cell in figures.items():
        text += f"\n### {title}\n\n| model | {' | '.join(tools)} |\n|---|{'---|' * len(tools)}\n"
        for model in dict.fromkeys(entry.model for entry in rows):
            cells = {entry.tool: cell(entry) for entry in rows if entry.model == model}  # type: ignore[no-untyped-call]
            text += f"| {model} | {' | '.join(cells.get(tool, '') for tool in tools)} |\n"
    return text


def _flag(entry: Row) -> str:
    return "" if entry.verdict == "equal" else f" ({entry.verdict})"


def _sizes(entry: Row, started: dict[str, int]) -> str:
    if entry.tool not in started or entry.nodes is None or entry.model == ONE_NODE:
        return ""
    return f"{(entry.peak_bytes - started[entry.tool]) / entry.model_bytes:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
