"""The cache folder of Edgesmith: choices, engines, compiled kernels."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import BuildError
from .files import translated


def private_folder(place: Path) -> Path:
    """Create and return a folder that only its owner may write, because its files will be executed.

    Raises:
        BuildError: It belongs to another user.
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
    """Return the cache folder: $EDGESMITH_CACHE, else $XDG_CACHE_HOME/edgesmith, else ~/.cache/edgesmith."""
    if own := os.environ.get("EDGESMITH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgesmith"
