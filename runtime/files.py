"""Files that are whole or not there: write under a temporary name beside the target, then rename."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .errors import EdgesmithError, UsageError


@contextlib.contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it becomes `target`, on any error it is removed.

    Raises:
        EdgesmithError: The folder cannot be written or the disk is full; `target` is as it was.
    """
    target = Path(target)
    with translated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=f".tmp{target.suffix}", dir=target.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with translated(target):
            yield temporary
            _sync(temporary)
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes `target`'s place whole, else it is removed.

    An earlier `target` is moved aside first and deleted last, so that at each moment one whole folder stands there or
    beside it.

    Raises:
        EdgesmithError: The parent cannot be written or the disk is full; an earlier `target` is as it was.
    """
    target = Path(target)
    with translated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        temporary.chmod(0o777 & ~_umask())
    try:
        with translated(target):
            yield temporary
            _swap(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _swap(temporary: Path, target: Path) -> None:
    if not target.exists():
        temporary.replace(target)
        return
    aside = temporary.with_name(temporary.name + ".old")
    target.replace(aside)
    try:
        temporary.replace(target)
    except OSError:
        aside.replace(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def translated(target: Path) -> Iterator[None]:
    """Turn an OSError about `target` into an error that says what to do."""
    try:
        yield
    except OSError as error:
        remedy = {
            28: "free some space",
            122: "free some space",
            13: "check the folder's permissions",
            30: "choose another folder",
        }
        raise EdgesmithError(
            f"cannot write {target}",
            got=error.strerror or str(error),
            do=remedy.get(error.errno or 0, "check the path"),
        ) from error


def existing_file(path: str | Path, kind: str) -> Path:
    """Return the path of a file that is there.

    Raises:
        UsageError: Nothing is there, or it is not a regular file.
    """
    path = Path(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise UsageError(f"cannot read {kind} {path}", got=got, expected="a file", do="check the path")
    return path


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
