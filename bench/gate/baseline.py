"""Source of the base version: a path, or the same path at another git revision."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from ...runtime.errors import NotAvailable, UsageError


def at_revision(revision: str, path: Path, folder: Path) -> Path:
    """Extract a file or folder from a git revision.

    Args:
        revision: A commit, branch or tag.
        path: The file or folder in the working tree.
        folder: Target folder, which the caller created for this.

    Raises:
        UsageError: No git repository, no such revision, or the path is not in it.
        NotAvailable: git is not installed.
    """
    if shutil.which("git") is None:
        raise NotAvailable("git is not installed", do="name the base version by its path")
    inside = _git(["rev-parse", "--show-prefix"], path.resolve().parent, revision).decode().strip()
    name = inside + path.name
    top = Path(_git(["rev-parse", "--show-toplevel"], path.resolve().parent, revision).decode().strip())
    archive = _git(["archive", "--format=tar", revision, "--", name], top, revision)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return folder / name


def _git(arguments: list[str], folder: Path, revision: str) -> bytes:
    if revision.startswith("-"):
        raise UsageError(f"{revision!r} is not a git revision")
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise UsageError(f"git cannot read {folder}", got=str(error), do="check the path") from error
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())[:300]
        raise UsageError(
            f"there is no base version at {revision!r}", got=message, do="commit it, or name it by its path"
        )
    return done.stdout
