"""Source of the base version: a path, or the same path at another git revision."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from ...runtime.common.external_data import read_locations
from ...runtime.engines.sidecar import path_of
from ...runtime.errors import NotAvailable, UsageError
from .thresholds import ENGINE


def at_revision(revision: str, path: Path, folder: Path) -> Path:
    """Extract a file or folder from a git revision, with an engine's sidecar, and an ONNX file's external weights.

    Args:
        revision: A commit, branch or tag.
        path: The file or folder in the working tree.
        folder: Target folder, which the caller created for this.

    Raises:
        UsageError: No git repository, no such revision, or the path is not in it.
        NotAvailable: git is not installed, or the revision has the engine without its sidecar, or no weights.
        ModelError: It is not an ONNX file.
    """
    if shutil.which("git") is None:
        raise NotAvailable("git is not installed", do="name the base version by its path")
    inside = _git(["rev-parse", "--show-prefix"], path.resolve().parent, revision).decode().strip()
    name = inside + path.name
    top = Path(_git(["rev-parse", "--show-toplevel"], path.resolve().parent, revision).decode().strip())
    _extract(revision, name, top, folder)
    for companion in _companions(folder / name):
        beside = str(PurePosixPath(name).parent / companion)
        if not _git(["ls-tree", "--name-only", revision, "--", beside], top, revision):
            raise NotAvailable(
                f"{name} cannot be used as it is in {revision!r}", got=f"no {beside} in that revision",
                do="commit it beside the file, or name the base version by its path",
            )  # fmt: skip
        _extract(revision, beside, top, folder)
    return folder / name


def _extract(revision: str, name: str, top: Path, folder: Path) -> None:
    archive = _git(["archive", "--format=tar", revision, "--", name], top, revision)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def _companions(path: Path) -> list[str]:
    """Return the files that belong to an extracted file, relative to its folder; none that would leave the folder."""
    if path.suffix == ENGINE:
        return [path_of(path).name]
    if path.suffix != ".onnx":
        return []
    places = [PurePosixPath(place) for place in read_locations(path.read_bytes(), path)]
    return sorted({str(place) for place in places if not place.is_absolute() and ".." not in place.parts})


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
