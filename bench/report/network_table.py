"""One row for each network: FP32 and INT8 side by side, by backend, its engines' kernels, modelled latencies."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from ..result import Result, Run
from . import tables

Group = Sequence[Result]
Draw = Callable[[Group], str]
FORMS = ("fp32", "int8")
NOTHING = "–"


def network_rows(run: Run) -> tuple[list[str], list[list[str]]]:
    """Return column headers and rows of a run's networks, without empty columns."""
    groups: dict[str, list[Result]] = {}
    for result in run.results:
        groups.setdefault(result.subject.model, []).append(result)
    columns = _columns(run.results)
    kept = [(head, draw) for head, draw in columns if any(set(draw(group)) - set("– /") for group in groups.values())]
    return [head for head, _ in kept], [[draw(group) for _, draw in kept] for group in groups.values()]


def network_markdown(run: Run) -> str:
    """Return the rows as a Markdown table."""
    heads, body = network_rows(run)
    lines = [tables.row(heads), tables.row(["---", *["---:"] * (len(heads) - 1)]), *map(tables.row, body)]
    return "\n".join(lines) + "\n"


def _columns(results: Sequence[Result]) -> list[tuple[str, Draw]]:
    backends = list(dict.fromkeys(result.subject.backend for result in results))
    first = backends[0] if backends else ""
    return [
        ("network", lambda group: group[0].subject.model),
        ("params M", _first(tables.published_cell("params", 1e-6, 2))),
        ("MACs M", _first(tables.published_cell("macs", 1e-6, 0))),
        ("ImageNet %", _first(tables.draw_imagenet_top1)),
        ("digits % FP32 / INT8", _both(tables.value_cell("accuracy", "top1_ratio", 100, 1), first)),
        ("hard % FP32 / INT8", _both(tables.value_cell("accuracy", "hard_top1_ratio", 100, 1), first)),
        *[
            (
                f"{backend} {form.upper()} ms",
                _one(tables.value_cell("latency", "p50_s", 1e3, spread=True), form, backend),
            )
            for backend in backends
            for form in FORMS
        ],
        ("peak MB FP32 / INT8", _both(tables.value_cell("memory", "peak_bytes", 1e-6, 0), first)),
        ("file MB FP32 / INT8", _both(tables.value_cell("size", "file_bytes", 1e-6, 1), first)),
        ("mJ FP32 / INT8", _both(tables.value_cell("energy", "image_energy_j", 1e3, 1), first)),
        *_engines(results),
        *_modelled(results),
    ]


def _engines(results: Sequence[Result]) -> list[tuple[str, Draw]]:
    """Return two columns for each kind of engine: «FP16 sm86 kernels» and «FP16 sm86 engine MB»."""
    columns = []
    for name in _names(results, "engines"):
        kind, chip, what = name.split("_", 2)
        if what == "kernels_count":
            columns.append((f"{kind.upper()} {chip} kernels", _first(tables.value_cell("engines", name, 1, 0))))
        elif what == "file_bytes":
            columns.append((f"{kind.upper()} {chip} engine MB", _first(tables.value_cell("engines", name, 1e-6, 1))))
    return columns


def _modelled(results: Sequence[Result]) -> list[tuple[str, Draw]]:
    """Return a column for each modelled board and precision: «orin nano 8gb INT8 ms, modelled»."""
    columns = []
    for name in _names(results, "modelled"):
        board, precision = re.fullmatch(r"(.+)_(\w+?)_s", name).groups()  # type: ignore[union-attr]
        head = f"{board.replace('_', ' ')} {precision.upper()} ms, modelled"
        columns.append((head, _first(tables.value_cell("modelled", name, 1e3, spread=True))))
    return columns


def _names(results: Sequence[Result], metric: str) -> list[str]:
    return list(
        dict.fromkeys(name for one in results if metric in one.readings for name in one.readings[metric].values)
    )


def _first(draw: tables.Cell) -> Draw:
    """Draw a value of the whole network from its first result that has it."""
    return lambda group: next((text for one in group if (text := draw(one)) != NOTHING), NOTHING)


def _one(draw: tables.Cell, form: str, backend: str) -> Draw:
    def drawn(group: Group) -> str:
        mine = (one for one in group if one.subject.precision == form and one.subject.backend == backend)
        return next(map(draw, mine), NOTHING)

    return drawn


def _both(draw: tables.Cell, backend: str) -> Draw:
    sides = [_one(draw, form, backend) for form in FORMS]
    return lambda group: " / ".join(side(group) for side in sides)
