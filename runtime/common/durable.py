"""Durable replacement: fsync of files and folders, and exchange of a folder; a whole one exists at each moment."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

MOVED, COPIED = ".earlier", ".copied"
"""Endings of an earlier folder that is moved or copied aside while it is replaced."""


def swap(new: Path, target: Path) -> None:
    """Put a folder at `target`; a folder that exists there is moved to where the new one was.

    Where neither an exchange nor a rename of the earlier folder is possible (a lower layer of overlayfs), it is copied
    aside. If the process is killed before the new folder is in place, the next write to `target` restores the earlier.

    Args:
        new: A folder in a `workplace` of `target`.
        target: The final path.

    Raises:
        OSError: `target` is a file or a link, or the file system refuses.
    """
    sync_tree(new)
    if not os.path.lexists(target):
        new.replace(target)
    elif target.is_symlink() or not target.is_dir():
        raise NotADirectoryError(20, "a file or a link stands there")
    elif not _exchanged(new, target):
        _replace_folder(new, target)
    sync(target.parent)
    sync(new.parent)


def _replace_folder(new: Path, target: Path) -> None:
    aside = new.with_name(target.name + MOVED)
    for place in (*new.parent.parent.glob(".*"), new.parent, new.parent.parent, target.parent):
        sync(place)  # the work folder and its mark, so that `restore` is called
    try:
        target.replace(aside)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copytree(target, aside, symlinks=True)
        sync_tree(aside)
        aside = aside.replace(new.with_name(target.name + COPIED))
        sync(aside.parent)
        shutil.rmtree(target)
    sync(aside.parent)
    try:
        new.replace(target)
    except OSError:
        aside.replace(target)
        raise
    if aside.suffix == COPIED:
        aside.replace(new)


def restore(work: Path, folder: Path) -> None:
    """Return the earlier outputs that a killed `swap` left in `work` and did not replace to `folder`."""
    for ending in (MOVED, COPIED):
        for aside in work.glob(f"*{ending}"):
            target = folder / aside.name[: -len(ending)]
            if ending == COPIED:  # whose original may be removed in part
                shutil.rmtree(target, ignore_errors=True)
            if not os.path.lexists(target):
                aside.replace(target)
                sync(folder)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths in one step: renameat2 with RENAME_EXCHANGE; return False if that is not supported."""
    import ctypes

    here, exchange = -100, 2
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def sync_tree(path: Path) -> None:
    """Write a file, or a folder with all that it contains, to the disk (fsync); links are not followed."""
    if path.is_symlink():
        return
    for inner in path.iterdir() if path.is_dir() else ():
        sync_tree(inner)
    if path.is_dir() or path.is_file():
        sync(path)


def sync(path: Path) -> None:
    """Call fsync on a file or folder; some network file systems have none for folders, and Windows opens none."""
    descriptor = opened(path)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        close(descriptor)


def opened(path: Path) -> int:
    """Return a descriptor of a file or folder, -1 if it cannot be opened."""
    try:
        return os.open(path, os.O_RDONLY)
    except OSError:
        return -1


def close(descriptor: int) -> None:
    """Close what `opened` returned."""
    if descriptor >= 0:
        os.close(descriptor)
