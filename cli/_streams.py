"""The standard streams of a command: open, and an error where standard output cannot be written, as on a full disk."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from ..runtime.errors import EdgesmithError


class StandardStream(io.TextIOWrapper):
    """Standard output or error; what comes after a failed write is dropped, so that nothing fails again at the end.

    Args:
        stream: The stream to replace; it cannot be used any more.
        is_required: Whether a failure ends the command. Nobody can be told where standard error fails.
    """

    def __init__(self, stream: io.TextIOWrapper, is_required: bool) -> None:
        encoding, errors = stream.encoding, stream.errors
        buffering, through = stream.line_buffering, stream.write_through
        super().__init__(stream.detach(), encoding, errors, line_buffering=buffering, write_through=through)
        self._is_required = is_required

    def write(self, text: str) -> int:
        """Write text.

        Raises:
            EdgesmithError: The stream cannot be written.
            BrokenPipeError: Nobody reads it any more.
        """
        if text == "":  # click asks so whether it can write, and hides the error
            return 0
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered; raises as `write` does."""
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError) and self._is_required:
            raise error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)
        if self._is_required:
            raise EdgesmithError(
                "standard output cannot be written", got=error.strerror or str(error),
                do="free space, or write it elsewhere; files that the command wrote before are complete",
            ) from error  # fmt: skip


def prepare_streams() -> None:
    """Open those of the three standard streams that are closed, so that no file gets their numbers, and guard two."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
        stream: Any = getattr(sys, name)
        if number and isinstance(stream, io.TextIOWrapper) and not isinstance(stream, StandardStream):
            setattr(sys, name, StandardStream(stream, is_required=name == "stdout"))
