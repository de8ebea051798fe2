"""Folders of this user: the cache (choices, engines, compiled kernels) and the state, which nobody else may write."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from ..errors import BuildError
from .files import translated

VARIABLE = "EDGESMITH_CACHE"


def private_folder(place: Path, variable: str = VARIABLE) -> Path:
    """Create and return a folder that only its owner may write, because its files will be executed or trusted.

    Args:
        place: The folder.
        variable: The environment variable that names another one, for the message.

    Raises:
        BuildError: It, a file in it, or a folder above it belongs to another user or can be written by one.
    """
    with translated(place):
        place.mkdir(parents=True, exist_ok=True)
        if why := not_ours(place):
            raise BuildError(f"the folder {place} is not safe", got=why, do=f"set {variable} to a folder of your own")
        place.chmod(0o700)
        for file in place.iterdir():
            if why := _writable_by_others(file):
                raise BuildError(f"the folder {place} is not safe", got=why, do=f"remove this file, or set {variable}")
    return place


def not_ours(place: Path) -> str:
    """Return which file or folder on the way to an existing path somebody else may change, or an empty string."""
    place = place.resolve()
    if not hasattr(os, "getuid"):
        return ""
    if (owner := place.stat().st_uid) != os.getuid():
        return f"{place} belongs to user {owner}"
    return next((why for one in (place, *place.parents) if (why := _writable_by_others(one))), "")


def _writable_by_others(place: Path) -> str:
    """Return why another user, root and the user's own group apart, may change a path; a sticky folder is safe."""
    try:
        status = place.lstat()
    except FileNotFoundError:
        return ""
    if not hasattr(os, "getuid") or stat.S_ISLNK(status.st_mode):
        return ""
    if status.st_uid not in (0, os.getuid()):
        return f"{place} belongs to user {status.st_uid}"
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getgid())
    writable = not sticky and (group or status.st_mode & stat.S_IWOTH)
    return f"{place} can be written by other users (mode {stat.S_IMODE(status.st_mode):o})" if writable else ""


def cache_folder() -> Path:
    """Return the cache folder: $EDGESMITH_CACHE, else $XDG_CACHE_HOME/edgesmith, else ~/.cache/edgesmith."""
    return own_folder(VARIABLE, "XDG_CACHE_HOME", ".cache")


def own_folder(variable: str, standard: str, in_home: str) -> Path:
    """Return the folder of a variable, else `edgesmith` in a standard one; without a home in the temporary folder."""
    if own := os.environ.get(variable):
        return Path(own)
    try:
        base = Path(os.environ.get(standard) or Path.home() / in_home)
    except RuntimeError:  # HOME is not set, and the user has no entry in the system's list
        return Path(tempfile.gettempdir()) / f"edgesmith-{os.getuid()}" / in_home
    return base / "edgesmith"
