"""Atomic files: written in a work folder next to the target, then renamed to it.

A work folder is `.<target>.<random>.tmp`, contains the file MARK, and is locked while its process runs. The next write
to the same target removes unlocked work folders, which killed processes left. A folder with such a name but without the
mark is not removed, because it is not a work folder.

Nothing earlier is removed before the new content and its name are on the disk (fsync of files and folders).
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import EdgesmithError, UsageError
from .durable import close, opened, restore, swap, sync, sync_tree

try:
    import fcntl
except ImportError:  # Windows: no locks, so nothing is taken for abandoned there
    fcntl = None  # type: ignore[assignment]

MARK, MARKED = ".edgesmith-work", "A work folder of Edgesmith: the next write to its target removes it.\n"
_NAME = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp", re.DOTALL)
_ledger = -1
"""File descriptor to which this process writes the paths of its work folders, for clean-up after a crash; -1: none."""


@contextlib.contextmanager
def atomic_file(target: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; on success it becomes `target`, on any error it is removed.

    Raises:
        EdgesmithError: The folder cannot be written or the disk is full; `target` is unchanged.
    """
    target = Path(target)
    with workplace(target) as folder:
        temporary = folder / target.name
        temporary.touch()
        yield temporary
        sync_tree(temporary)
        temporary.replace(target)
        sync(target.parent)


@contextlib.contextmanager
def atomic_folder(target: str | Path) -> Iterator[Path]:
    """Yield a temporary folder next to `target`; on success it replaces `target`, otherwise it is removed.

    An earlier `target` is exchanged for the new one in one step if the system supports it (Linux), so that a complete
    folder exists at all times; elsewhere the earlier one is moved aside first.

    Raises:
        EdgesmithError: The parent cannot be written or the disk is full; an earlier `target` is unchanged.
    """
    target = Path(target)
    with workplace(target) as folder:
        temporary = folder / target.name
        temporary.mkdir()
        yield temporary
        swap(temporary, target)


@contextlib.contextmanager
def workplace(target: str | Path) -> Iterator[Path]:
    """Yield an empty folder next to `target`, which is removed afterwards; rename out of it what must remain.

    Raises:
        EdgesmithError: The parent cannot be written, or an OSError occurred in the block.
    """
    target = Path(target)
    with translated(target):
        _make_folder(target.parent)
        for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
            remove_abandoned(left)
        folder, lock = _make(target)
    try:
        with translated(target):
            (folder / "work").mkdir()
            yield folder / "work"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        close(lock)


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield an empty private folder in the temporary folder; those that killed processes of ours left are removed.

    Raises:
        EdgesmithError: There is no space.
    """
    with workplace(Path(tempfile.gettempdir()) / f"edgesmith-{name}") as folder:
        yield folder


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they are on the disk."""
    absent = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in absent:
        sync(place.parent)


def _make(target: Path) -> tuple[Path, int]:
    """Create and lock a work folder; repeat this if another process removed it before it was locked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        lock = opened(folder)
        if fcntl and lock >= 0:
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            _mark(folder, lock)
            if _ledger >= 0:
                os.write(_ledger, os.fsencode(folder.absolute()) + b"\0")
            return folder, lock
        close(lock)


def _mark(folder: Path, lock: int) -> None:
    try:
        (folder / MARK).write_bytes(MARKED.encode())
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        close(lock)
        raise


def remove_abandoned(folder: Path) -> None:
    """Remove a work folder whose process has ended; keep one that is in use, and any other folder."""
    if not fcntl or folder.is_symlink() or not _NAME.fullmatch(folder.name) or (lock := opened(folder)) < 0:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_uid != os.getuid():
            return
        if not any(folder.iterdir()) and stat.S_IMODE(folder.stat().st_mode) == 0o700:
            folder.rmdir()  # killed before it was marked: nothing is lost
        elif (folder / MARK).read_bytes() == MARKED.encode():
            restore(folder / "work", folder.parent)
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return
    finally:
        os.close(lock)


def write_down(descriptor: int) -> None:
    """From now on write the paths of this process's work folders into an open file, each ended by a zero byte."""
    global _ledger
    _ledger = descriptor


@contextlib.contextmanager
def locked(target: str | Path) -> Iterator[None]:
    """Hold the lock of `target` among processes and threads; wait until it is free.

    The lock is the file `.<target>.lock` next to it; the system releases the lock when the process ends.

    Raises:
        EdgesmithError: The parent cannot be written.
    """
    target = Path(target)
    path = target.with_name(f".{target.name}.lock")
    with translated(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    try:
        yield
    finally:
        if not os.fstat(descriptor).st_size:  # ours is empty
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """Lock the file at `path`; a release unlinks it, so check after locking that it is still the same file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextlib.contextmanager
def translated(target: Path) -> Iterator[None]:
    """Convert an OSError about `target` to an error that says what to do."""
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


def is_mount_point(place: Path) -> bool:
    """Return whether something is mounted at an absolute path, also from the same disk (`mount --bind`)."""
    if os.path.ismount(place):
        return True
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()  # proc(5): the fifth field, spaces as \040
    except OSError:
        return False
    name = re.sub(rb"[\\ \t\n]", lambda match: b"\\%03o" % match[0][0], os.fsencode(place))
    return any(line.split(b" ")[4] == name for line in lines)


def existing_file(path: str | Path, kind: str) -> Path:
    """Return the path of an existing regular file.

    Raises:
        UsageError: Nothing is there, or it is not a regular file.
    """
    if why := unreadable(path):
        raise UsageError(f"cannot read {kind} {str(path)[:300]}", got=why, expected="a file", do="check the path")
    return Path(path)


def unreadable(path: str | Path) -> str:
    """Return why a path is not a readable regular file, or an empty string."""
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        return "no such file"
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", "") or str(error)
    if not stat.S_ISREG(status.st_mode):
        return "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
    return "" if os.access(path, os.R_OK) else "no permission to read it"


def sha256(path: str | Path) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
