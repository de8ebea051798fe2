"""Plugins are the files of a folder; the name of a plugin is the stem of its file.

A plugin is imported on use, so listing the names only lists the directory. A file that starts with an
underscore is a helper, not a plugin.
"""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from ..errors import UsageError


def plugin_names(package: ModuleType) -> list[str]:
    """List the plugins of a package, sorted."""
    folder = Path(str(package.__file__)).parent
    return sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))


def load_plugin(package: ModuleType, name: str, kind: str) -> ModuleType:
    """Import a plugin by its name.

    Args:
        package: The imported package (folder) to look in.
        name: The file's stem.
        kind: Its type in the error: "backend", "pass", "metric".

    Raises:
        UsageError: No such plugin; the message suggests the nearest name.
    """
    if not _is_plugin(package, name) and name not in (known := plugin_names(package)):
        raise UsageError(
            f"unknown {kind} {name!r}", expected=", ".join(known), do=did_you_mean(name, known) or "choose one of these"
        )
    return importlib.import_module(f"{package.__name__}.{name}")


def _is_plugin(package: ModuleType, name: str) -> bool:
    """Look for one file, which costs less than the list; case is left to the list, as some systems ignore it."""
    if not name.isidentifier() or name.startswith("_") or name != name.lower():
        return False
    return os.path.isfile(f"{os.path.dirname(str(package.__file__))}/{name}.py")  # noqa: PTH113, PTH120


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return «did you mean 'x'?» for the nearest known name, or an empty string."""
    plain = {normalise(candidate): candidate for candidate in known}
    near = difflib.get_close_matches(normalise(name), list(plain), n=1, cutoff=0.6)
    return f"did you mean {plain[near[0]]!r}?" if near else ""


def normalise(name: str) -> str:
    """Remove case, `_`, `-` and blanks: «MobileNet-V2» and «mobilenet_v2» are equal."""
    return "".join(character for character in name.lower() if character not in "_- ")
