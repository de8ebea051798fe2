"""Figures by matplotlib without a display: equal values give equal files, which name Edgesmith as author."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..outputs import STAMP
from .files import atomic_file
from .packages import need

_ABOUT: dict[str, dict[str, str | None]] = {"svg": {"Date": None, "Creator": STAMP}, "png": {"Software": STAMP}}


def pyplot() -> Any:
    """Return matplotlib's pyplot with a backend that needs no display.

    Raises:
        NotAvailable: matplotlib is not installed.
    """
    matplotlib = need("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "edgesmith"
    return need("matplotlib.pyplot")


def save_figure(figure: Any, *paths: Path) -> None:
    """Write a figure atomically to each path, .svg or .png, and close it."""
    for path in paths:
        kind = path.suffix[1:]
        with atomic_file(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=160, metadata=_ABOUT[kind])
    pyplot().close(figure)
