"""Shared by all commands: options, tables, progress bars, JSON, and the exit codes of errors.

Only click is imported at import time; rich is imported for the first output.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from ..runtime.common.escaping import for_json, for_terminal
from ..runtime.common.packages import not_installed
from ..runtime.errors import EdgesmithError

PIPED = 200  # columns, where standard output is no terminal and COLUMNS says nothing
FOLDED, WHOLE = 12, 24  # columns of text that folds, at least; words up to so long are not broken
BETWEEN, EDGE = 3, 1  # columns that rich puts around each cell, and at the ends of a row

Function = TypeVar("Function", bound=Callable[..., Any])


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command with `--json` and `--debug`, whose errors are one line and an exit code.

    The function gets `as_json: bool`; what it returns is its exit code (None means 0).
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(debug: bool, **options: Any) -> None:
            sys.exit(guarded(lambda: function(**options), debug=debug, as_json=options["as_json"]))

        with_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(run)
        with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(with_debug)
        click_command: click.Command = click.command(name, **settings)(with_json)  # type: ignore[no-untyped-call]
        return click_command

    return decorate


overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace the existing output even if Edgesmith did not write it."
)
"""The option of every command that writes where the user says; `outputs.claim` takes what it gives."""


_json_output: list[bool] = []  # whether the command has written its JSON: an error after that is on stderr alone


def guarded(action: Callable[[], int | None], debug: bool = False, as_json: bool = False) -> int:
    """Run an action; print an error as one line, for machines also as JSON under "error", and return its exit code.

    Raises:
        Exception: Only with `debug`, the error itself.
    """
    _json_output.clear()
    try:
        code = action() or 0
        sys.stdout.flush()
        return code
    except EdgesmithError as error:
        if debug:
            raise
        return _say_error(error, as_json)
    except KeyboardInterrupt:
        return _say_error(EdgesmithError("interrupted; no incomplete file was left"), as_json)
    except (BrokenPipeError, click.ClickException):
        raise
    except MemoryError:
        if debug:
            raise
        do = "use a machine with more, or check whether the file is malformed"
        return _say_error(EdgesmithError("not enough memory", do=do), as_json)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError) and (known := not_installed(error)):
            return _say_error(known, as_json)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        do = "run again with --debug and report it"
        return _say_error(EdgesmithError(f"unexpected {reason[:500]}", do=do), as_json)


def _say_error(error: EdgesmithError, as_json: bool) -> int:
    click.echo(for_terminal(f"error: {error}"), err=True)
    if as_json and not _json_output:
        parts = {name: getattr(error, name) for name in ("what", "got", "expected", "do")}
        value = {"error": {"kind": type(error).__name__, **parts, "exit_code": error.exit_code}}
        click.echo(for_json(json.dumps(value, indent=2)))
    return error.exit_code


def emit(value: Any, as_json: bool, draw: Callable[[], None]) -> None:
    """Print `value` as JSON, or draw it for the terminal."""
    if as_json:
        _json_output.append(True)
        click.echo(for_json(json.dumps(value, indent=2, default=_plain, allow_nan=False)))
    else:
        draw()


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1, spare: Sequence[str] = ()
) -> None:
    """Draw a table on standard output, as wide as the terminal at most.

    Args:
        title: Printed above it.
        columns: The headings.
        rows: The cells.
        left: So many of the first columns are text, left-aligned: where the width is short they fold. The others are
            numbers, right-aligned, and never fold.
        spare: Headings of the columns that are left out where the width is short, the least important first; a line
            below the table names them.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    cells = [["" if cell is None else for_terminal(str(cell)) for cell in row] for row in rows]
    shown, widths = _fit(columns, cells, left, spare, _width())
    grid = Table(title=for_terminal(title) or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index in shown:
        justify: Any = "left" if index < left else "right"
        grid.add_column(columns[index], justify=justify, overflow="fold", width=widths[index])
    for row in cells:
        grid.add_row(*(row[index] for index in shown))
    say(grid)
    if missing := [column for index, column in enumerate(columns) if index not in shown]:
        say(f"  left out at {_width()} columns: {', '.join(missing)}")


def _fit(
    columns: Sequence[str], cells: Sequence[Sequence[str]], left: int, spare: Sequence[str], width: int
) -> tuple[list[int], list[int]]:
    """Return the indices of the columns that are shown, and the width of every column."""
    shown, droppable = list(range(len(columns))), [column for column in spare if column in columns]
    longest = [max((_cells(row[at]) for row in cells), default=0) for at in shown]
    words = [_longest_word([columns[at], *(row[at] for row in cells if at < left)]) for at in shown]
    natural = [max(longest[at], _cells(columns[at])) for at in shown]
    least = [
        min(natural[at], max(FOLDED, min(words[at], WHOLE))) if at < left else max(longest[at], words[at])
        for at in shown
    ]
    while sum(least[at] + BETWEEN for at in shown) + EDGE > width and droppable:
        shown.remove(columns.index(droppable.pop(0)))
    widths = list(natural)
    for at in reversed([at for at in shown if at >= left] + [at for at in shown if at < left]):
        over = sum(widths[one] + BETWEEN for one in shown) + EDGE - width
        widths[at] = max(least[at], widths[at] - max(over, 0))
    return shown, widths


def _longest_word(texts: Sequence[str]) -> int:
    return max((_cells(word) for text in texts for word in text.split()), default=0)


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, text.splitlines()), default=0)


def _width() -> int:
    """Return how wide output may be: of a terminal its width, else what COLUMNS says."""
    if sys.stdout.isatty():
        return shutil.get_terminal_size().columns
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) else PIPED


def say(thing: Any) -> None:
    """Print text or anything rich can draw to standard output; without a width limit if that is not a terminal."""
    thing = for_terminal(thing) if isinstance(thing, str) else thing
    if isinstance(thing, str) and not sys.stdout.isatty():
        click.echo(thing)
        return
    from rich.console import Console

    needed = Console(width=10_000).measure(thing).maximum if not isinstance(thing, str) else 0
    console = Console(highlight=False, markup=False, soft_wrap=False, width=max(_width(), needed))
    if sys.stdout.isatty():
        console.print(thing)
        return
    with console.capture() as lines:
        console.print(thing)
    click.echo(for_terminal(lines.get()), nl=False)  # once more: a cell that is folded begins new lines
