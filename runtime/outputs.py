"""Rules of where a result may be written: a path that is free, or has a result of Edgesmith of the same kind.

Each kind defines how its files are recognised: a bundle by its manifest, an ONNX file by its fields, a page or picture
by its stamp, a table by its first line. A folder never replaces a file, nor a file a folder; nothing is written into a
bundle, which is sealed; links, devices and mount points are never replaced.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .bundle.manifest import LARGEST_MANIFEST, NAME, SIGNATURE, Manifest, parse_manifest
from .common.files import is_mount_point
from .common.packages import need
from .common.zip_members import read_member
from .engines import header
from .errors import EdgesmithError, UsageError

STAMP = "made by edgesmith"
"""First bytes that identify pictures and pages."""
HEAD_BYTES = 1 << 16
SPEC_HEAD = "# What Edgesmith knows of this network."
LARGEST_JSON, LARGEST_STATE = 1 << 28, 1 << 26
SHOWN, LEAST_SPACE = 5, 1 << 16
_FRAME = re.compile(r"\d{6,}\.png")
_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})  # of ModelProto; 7 is the graph
_TABLES = ("| answer | what | why |", "| model | form |")

_TRITON = {"config.pbtxt", "labels.txt", "1/model.onnx", "1/model.py", "1/spec.json", "1/.keep"}


@dataclass(frozen=True)
class Kind:
    """A kind of result: its name, a check whether `path` is one that Edgesmith wrote, and whether it is a folder."""

    word: str
    ours: Callable[[Path], bool]
    folder: bool = False


def png_stamp() -> Any:
    """Return the `pnginfo` by which a PNG file of Edgesmith is recognised."""
    stamp = need("PIL.PngImagePlugin").PngInfo()
    stamp.add_text("Software", STAMP)
    return stamp


def claim(target: str | Path, kind: str, *, overwrite: bool = False) -> Path:
    """Return the path of a result if it may be written; otherwise refuse before any work is done.

    Args:
        target: Path of the result.
        kind: A key of KINDS.
        overwrite: Also allow a file or folder that Edgesmith did not write.

    Raises:
        UsageError: Something else exists there, the path is inside a bundle, or it cannot be written.
    """
    place, sort = _resolved(target), KINDS[kind]
    _outside_bundles(place)
    _writable(place)
    if not os.path.lexists(place):
        return Path(target)
    status = os.lstat(place)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        raise _refused(target, "a device, a pipe or a socket", sort)
    if not stat.S_ISLNK(status.st_mode) and stat.S_ISDIR(status.st_mode) != sort.folder:
        raise _refused(target, "a file" if sort.folder else "a folder", sort)
    if (mounted := is_mount_point(place)) or (sort.folder and Path.cwd().is_relative_to(place)):
        raise _refused(target, "a mount point" if mounted else "the current folder", sort)
    if not (overwrite or _replaceable(place, status, sort)):
        raise _refused(target, standing(place), sort, "or give --overwrite to replace the existing output")
    return Path(target)


def _resolved(target: str | Path) -> Path:
    """Return the absolute path; a link at its end is not followed."""
    path = Path(target)
    try:
        return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"cannot write {str(target)[:300]!r}", got=str(error)[:200], do="check the path") from error


def standing(place: Path) -> str:
    """Describe what exists at a path, for a message."""
    if place.is_symlink():
        return f"a link to {place.readlink()}"
    if not place.is_dir():
        return f"a file of {place.stat().st_size} bytes"
    names = sorted(path.name for path in place.iterdir())
    if manifest := manifest_of(place):
        names = sorted(_unlisted(place, manifest)) or names
        return f"a bundle with files that its manifest does not list: {_shown(names)}"
    return f"a folder with {_shown(names)}"


def _shown(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def manifest_of(folder: Path) -> Manifest | None:
    """Return the manifest of a bundle's folder; None if this version cannot read the folder as a bundle."""
    try:
        with (folder / NAME).open("rb") as file:
            return parse_manifest(file.read(LARGEST_MANIFEST))
    except (OSError, EdgesmithError):
        return None


def _refused(target: str | Path, got: str, sort: Kind, more: str = "") -> UsageError:
    return UsageError(
        f"{target} cannot be replaced", got=got, expected=f"nothing, or {sort.word} that Edgesmith wrote",
        do=" ".join(["choose another path", more]).strip(),
    )  # fmt: skip


def _outside_bundles(place: Path) -> None:
    for folder in place.parents:
        if (folder / NAME).is_file() and manifest_of(folder):
            raise UsageError(f"{place} is inside a bundle", got=f"the bundle {folder}", expected="another path",
                             do="the digests of a bundle cover all its files: choose another path (-o)")  # fmt: skip


def _writable(place: Path) -> None:
    """Check the nearest existing folder; missing folders below it will be created."""
    near = next(folder for folder in place.parents if os.path.lexists(folder))
    if not near.is_dir():
        raise UsageError(f"cannot write {place}", got=f"{near} is not a folder", do="check the path")
    disk = os.statvfs(near) if hasattr(os, "statvfs") else None
    got = "" if os.access(near, os.W_OK | os.X_OK) else f"no permission to write into {near}"
    if disk and disk.f_flag & os.ST_RDONLY:
        got = "Read-only file system"
    elif disk and disk.f_blocks and disk.f_bavail * disk.f_frsize < LEAST_SPACE:
        got = f"{disk.f_bavail * disk.f_frsize} bytes left on the disk"
    if got:
        raise UsageError(f"cannot write {place}", got=got, do="choose another folder")


def _replaceable(place: Path, status: os.stat_result, sort: Kind) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return False
    try:
        empty = not any(place.iterdir()) if sort.folder else not status.st_size
        return empty or sort.ours(place)
    except Exception:  # whatever a file of others leads its reader to
        return False


def _unlisted(folder: Path, manifest: Manifest) -> set[str]:
    names = {*manifest.files, NAME, SIGNATURE}
    folders = {str(parent) for name in names for parent in Path(name).parents}
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")} - names - folders


def _bundle(folder: Path) -> bool:
    manifest = manifest_of(folder)
    return manifest is not None and not _unlisted(folder, manifest)


def _frames(folder: Path) -> bool:
    return all(_FRAME.fullmatch(path.name) and _stamped(path) for path in folder.iterdir())


def _triton(folder: Path) -> bool:
    """Return whether `write_triton` made this model folder, and it contains no other version."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    strange = [name for name in names - _TRITON if not name.startswith("1/edgesmith_runtime/")]
    return not strange and (folder / "config.pbtxt").read_text(encoding="utf-8").startswith(f"# {STAMP}\n")


def _zip(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        manifest = parse_manifest(read_member(archive, NAME, LARGEST_MANIFEST))
        return not {*archive.namelist()} - {*manifest.files, NAME, SIGNATURE}


def _onnx(path: Path) -> bool:
    """Parse the fields of a file as an ONNX model; they must cover the whole file."""
    size, fields = path.stat().st_size, set()
    with path.open("rb") as file:
        while file.tell() < size:
            key = _varint(file)
            fields.add(key >> 3)
            step = {0: 0, 1: 8, 5: 4}.get(key & 7, -1)
            step = _varint(file) if key & 7 == 2 else step
            if key & 7 == 0:
                _varint(file)
            if step < 0 or file.tell() + step > size or not fields <= _ONNX_FIELDS:
                return False
            file.seek(step, os.SEEK_CUR)
    data = path.with_name(path.name + ".data")
    return 7 in fields and (not data.exists() or data.name.encode() in path.read_bytes())


def _varint(file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 64, 7):
        (byte,) = file.read(1)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise ValueError("a varint that does not end")


def _engine(path: Path) -> bool:
    beside = path.with_name(path.name + ".json")
    header.read_header(path)
    return not beside.exists() or {"sha256", "attestation", "source_sha256"} <= set(_json(beside))


def _json(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        values = json.loads(file.read(LARGEST_JSON))
    return values if isinstance(values, dict) else {}


def _says(path: Path, name: str) -> bool:
    return _json(path).get("format") == name


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace")


def _stamped(path: Path) -> bool:
    return STAMP in _head(path)


def _page(path: Path) -> bool:
    return f'<meta name="generator" content="{STAMP}' in _head(path)


def _markdown(path: Path) -> bool:
    return any(line.startswith(_TABLES) for line in _head(path).splitlines())


def _comma_separated(path: Path) -> bool:
    return _head(path).startswith(("key,model,form,metric,", "epoch,loss,lr,"))


def _junit(path: Path) -> bool:
    return '<testsuite name="edgesmith gate"' in _head(path)


def _parquet(path: Path) -> bool:
    content = path.read_bytes()
    return content[:4] == content[-4:] == b"PAR1" and all(word in content for word in (b"machine", b"metric", b"form"))


def _weights(path: Path) -> bool:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return length < HEAD_BYTES**2 and "edgesmith.spec" in json.loads(file.read(length)).get("__metadata__", {})


def _state(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = read_member(archive, name, LARGEST_STATE)
    return all(word in content for word in (b"recipe", b"global_generator", b"progress"))


def _spec(path: Path) -> bool:
    return _head(path).startswith(SPEC_HEAD)


def _never(path: Path) -> bool:
    return False


KINDS = {
    "bundle": Kind("a bundle", _bundle, folder=True),
    "triton": Kind("a model of a Triton repository", _triton, folder=True),
    "frames": Kind("a folder of frames", _frames, folder=True),
    "zip": Kind("a zipped bundle", _zip),
    "onnx": Kind("an ONNX file", _onnx),
    "engine": Kind("an engine with its sidecar", _engine),
    "result": Kind("a result of `edgesmith bench`", lambda path: _says(path, "edgesmith-bench")),
    "coco": Kind("a COCO file of `edgesmith run`", lambda path: _says(path, "edgesmith-coco")),
    "page": Kind("a page", _page),
    "picture": Kind("a picture", _stamped),
    "video": Kind("a video (Edgesmith cannot recognise its own)", _never),
    "markdown": Kind("a table in Markdown", _markdown),
    "csv": Kind("a table in CSV", _comma_separated),
    "parquet": Kind("a table in Parquet", _parquet),
    "junit": Kind("JUnit XML of `edgesmith gate`", _junit),
    "spec": Kind("a file of `edgesmith spec`", _spec),
    "weights": Kind("weights", _weights),
    "state": Kind("the state of a training run", _state),
}
