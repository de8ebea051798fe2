"""Shared by all commands: options, tables, progress bars, JSON, and the exit codes of errors.

Only click is imported at import time; rich is imported for the first output.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import click

from ..runtime.common.escaping import for_json, for_terminal
from ..runtime.common.packages import not_installed
from ..runtime.common.progress import note
from ..runtime.errors import EdgesmithError

Function = TypeVar("Function", bound=Callable[..., Any])


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a click command with `--json` and `--debug`, whose errors are one line and an exit code.

    The function gets `as_json: bool`; what it returns is its exit code (None means 0).
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(debug: bool, **options: Any) -> None:
            sys.exit(guarded(lambda: function(**options), debug=debug))

        with_debug = click.option("--debug", is_flag=True, help="Show the traceback of an error.")(run)
        with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(with_debug)
        click_command: click.Command = click.command(name, **settings)(with_json)  # type: ignore[no-untyped-call]
        return click_command

    return decorate


overwrite = click.option(
    "--overwrite", is_flag=True, help="Replace the existing output even if Edgesmith did not write it."
)
"""The option of every command that writes where the user says; `outputs.claim` takes what it gives."""


def guarded(action: Callable[[], int | None], debug: bool = False) -> int:
    """Run an action; print a known error as one line and return its exit code.

    Raises:
        Exception: Only with `debug`, the error itself.
    """
    try:
        code = action() or 0
        sys.stdout.flush()
        return code
    except EdgesmithError as error:
        if debug:
            raise
        return _say_error(error)
    except KeyboardInterrupt:
        click.echo("error: interrupted; no incomplete file was left", err=True)
        return 1
    except (BrokenPipeError, click.ClickException):
        raise
    except MemoryError:
        if debug:
            raise
        click.echo(
            "error: not enough memory; do: use a machine with more, or check whether the file is malformed", err=True
        )
        return 1
    except Exception as error:
        if debug:
            raise
        if isinstance(error, ModuleNotFoundError) and (known := not_installed(error)):
            return _say_error(known)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        note(f"error: unexpected {reason[:500]}; do: run again with --debug and report it")
        return 1


def _say_error(error: EdgesmithError) -> int:
    click.echo(for_terminal(f"error: {error}"), err=True)
    return error.exit_code


def emit(value: Any, as_json: bool, draw: Callable[[], None]) -> None:
    """Print `value` as JSON, or draw it for the terminal."""
    if as_json:
        click.echo(for_json(json.dumps(value, indent=2, default=_plain, allow_nan=False)))
    else:
        draw()


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], left: int = 1) -> None:
    """Draw a table on standard output: the first `left` columns left-aligned, the others right-aligned."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    grid = Table(title=for_terminal(title) or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        grid.add_row(*("" if cell is None else for_terminal(str(cell)) for cell in row))
    say(grid)


def say(thing: Any) -> None:
    """Print text or anything rich can draw to standard output; without a width limit if that is not a terminal."""
    thing = for_terminal(thing) if isinstance(thing, str) else thing
    if isinstance(thing, str) and not sys.stdout.isatty():
        click.echo(thing)
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=False, width=None if sys.stdout.isatty() else 200)
    console.print(thing)
