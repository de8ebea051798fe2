"""The folder in which Edgesmith keeps what it can make again: choices, engines, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BuildError
from .files import translated


def private_folder(place: Path) -> Path:
    """Make and return a folder which only its owner may write: what lies there will be executed.

    Raises:
        BuildError: It belongs to somebody else.
    """
    with translated(place):
        place.mkdir(parents=True, exist_ok=True)
        if hasattr(os, "getuid") and place.stat().st_uid != os.getuid():
            raise BuildError(
                f"the cache {place} belongs to another user", do="set EDGESMITH_CACHE to a folder of your own"
            )
        place.chmod(0o700)
    return place


def cache_folder() -> Path:
    """Return where choices are kept: $EDGESMITH_CACHE, else $XDG_CACHE_HOME/edgesmith, else ~/.cache/edgesmith."""
    if own := os.environ.get("EDGESMITH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgesmith"
