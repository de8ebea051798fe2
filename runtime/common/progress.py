"""Notes and progress bars on standard error; no bar if it is not a terminal."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from .escaping import for_terminal


def note(text: str) -> None:
    """Print one line about the progress of the work to standard error."""
    sys.stderr.write(f"{for_terminal(text)}\n")


@contextlib.contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar on standard error and yield `advance(steps)`; silent if it is not a terminal."""
    if not sys.stderr.isatty():
        yield _no_bar
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(for_terminal(title), total=total)
        yield lambda steps: bar.advance(task, steps)


def _no_bar(steps: int) -> None:
    """Replace the bar if standard error is not a terminal."""


def silent(text: str) -> None:
    """Replace `note` if no notes are wanted."""
