"""Command line of a Python child process that imports nothing from the working directory.

With `-c` or `-m` Python looks for modules first in the working directory. In a CI job that folder is the pull request:
its `numpy.py` would be executed. So a child gets its whole path, and this package by the path of its files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_BOOT = """import sys
sys.path[:] = {path!r}
import importlib.util
spec = importlib.util.spec_from_file_location({name!r}, {file!r}, submodule_search_locations=[{folder!r}])
sys.modules[{name!r}] = package = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
"""
# What -P is from Python 3.11 on, the first line of _BOOT is before; grandchildren inherit -P.
_SAFE = ("-P",) if sys.version_info >= (3, 11) else ()


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that imports a module of this package in a new process and calls its `main()`.

    Args:
        module: Its full name, which begins like `__package__`: "edgesmith.bench.measure.worker".
        arguments: `sys.argv[1:]` of the process.
    """
    return code(f"import importlib\nimportlib.import_module({module!r}).main()", *arguments)


def code(text: str, *arguments: str) -> list[str]:
    """Return the command that runs a program text in a new process that can import this package."""
    name = __name__.split(".")[0]
    file = Path(str(sys.modules[name].__file__)).resolve()
    boot = _BOOT.format(path=_path(), name=name, file=str(file), folder=str(file.parent))
    return [sys.executable, *_SAFE, "-c", boot + text, *arguments]


def isolated(*arguments: str) -> list[str]:
    """Return the command of a Python that sees only its own installation, for programs without this package."""
    return [sys.executable, "-I", *arguments]


def _path() -> list[str]:
    """Return this process's path without the working directory, unless PYTHONPATH names that one."""
    entries = {os.path.realpath(entry) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry}
    here = os.path.realpath(os.curdir)
    return [entry for entry in sys.path if entry and (os.path.realpath(entry) != here or here in entries)]


def forget_working_directory() -> None:
    """Remove the working directory from this process's path, in which `python -m` puts it first."""
    if sys.path and sys.path[0] in ("", os.path.realpath(os.curdir)):
        del sys.path[0]
