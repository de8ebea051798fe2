"""Bundles as one .zip: written deterministically; only members that the manifest lists are extracted."""

from __future__ import annotations

import contextlib
import shutil
import weakref
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from ..common.files import scratch
from ..common.zip_members import EXPECTED, member_problem
from ..errors import BundleError, DataError, EdgesmithError
from .manifest import LARGEST_MANIFEST, LARGEST_SIGNATURE, NAME, SIGNATURE, Manifest, parse_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST_ARRAYS, SMALL = 1 << 30, 64 << 20
LARGEST_RATIO = 20
"""Largest ratio of unpacked to packed bytes, above SMALL: weights hardly shrink, and a bomb reaches 1000."""


class Extracted:
    """A zipped bundle in a temporary folder, which is removed with the last reference to this object.

    The folder is locked: what a killed process leaves is removed by the next extraction.
    """

    def __init__(self, path: Path) -> None:
        work = contextlib.ExitStack()
        self.folder = work.enter_context(scratch("bundle"))
        self._remove = weakref.finalize(self, work.close)
        try:
            unpack_zip(path, self.folder)
        except BaseException:
            self._remove()
            raise


def unpack_zip(path: Path, folder: Path) -> None:
    """Extract the listed files of a zipped bundle into an empty folder, after a check of all sizes and methods.

    Raises:
        BundleError: The archive is damaged, lacks a listed member, contains one twice, a member's size differs, it is
            compressed in another way than by deflate, or the files are too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_methods(archive, path)
            manifest = parse_manifest(_extract_small(archive, path, NAME, LARGEST_MANIFEST, folder))
            _check_sizes(archive, path, manifest, folder)
            if SIGNATURE in archive.namelist():
                _extract_small(archive, path, SIGNATURE, LARGEST_SIGNATURE, folder)
            for name, entry in manifest.files.items():
                _extract(archive, path, name, entry.bytes, folder)
    except EdgesmithError:
        raise
    except Exception as error:  # zlib, lzma, struct and others raise whatever a damaged file leads them to
        raise BundleError(f"{path} cannot be read", got=_said(error), expected="a zipped bundle") from error


def _check_methods(archive: zipfile.ZipFile, path: str | Path) -> None:
    """Refuse members that stand twice, and methods that may make very much of a few bytes at once, such as bzip2."""
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise BundleError(f"{path} contains a member twice", do="pack the bundle again")
    if problem := member_problem(archive):
        raise BundleError(f"{path} cannot be read", got=problem, expected=EXPECTED)


def _check_sizes(archive: zipfile.ZipFile, path: Path, manifest: Manifest, folder: Path) -> None:
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    for name, entry in manifest.files.items():
        if name not in sizes:
            raise BundleError(f"{path} is incomplete", got=f"no {name}", do="copy it again")
        if sizes[name] != entry.bytes:
            expected = f"{entry.bytes} bytes"
            raise BundleError(f"{path}: {name} does not have the size in the manifest", expected=expected)
    total = sum(entry.bytes for entry in manifest.files.values())
    largest = SMALL + LARGEST_RATIO * path.stat().st_size
    if total > min(largest, free := shutil.disk_usage(folder).free):
        why = f"at most {largest}, for a .zip of this size" if total > largest else f"{free} free in {folder.parent}"
        raise BundleError(f"{path} is too large", got=f"{total} bytes unpacked", expected=why)


def _extract_small(archive: zipfile.ZipFile, path: Path, name: str, largest: int, folder: Path) -> bytes:
    if name not in archive.namelist():
        raise BundleError(f"{path} is not a bundle", got=f"no {name}", expected="a zipped bundle")
    if (size := archive.getinfo(name).file_size) > largest:
        raise BundleError(f"{path} has too large a {name}", got=f"{size} bytes", expected=f"at most {largest}")
    return _extract(archive, path, name, size, folder).read_bytes()


def _extract(archive: zipfile.ZipFile, path: Path, name: str, size: int, folder: Path) -> Path:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as member, target.open("wb") as file:
        written = _copy(member, file, size)
    if written != size:
        raise BundleError(f"{path}: {name} does not have the size in the manifest", expected=f"{size} bytes")
    return target


def _copy(member: IO[bytes], file: IO[bytes], size: int) -> int:
    """Copy until the end, or until `size` + 1 bytes."""
    written = 0
    while written <= size and (block := member.read(min(1 << 20, size + 1 - written))):
        file.write(block)
        written += len(block)
    return written


def write_arrays(path: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write named arrays as compressed .npz; equal arrays give equal bytes.

    Raises:
        DataError: An array holds NaN or Inf, which cannot be compared.
    """
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(
                f"the golden array {name!r} holds NaN or Inf", expected="finite numbers",
                do="look for the layer that overflows: FP16 ends at 65504; or choose other images",
            )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), "w") as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def read_arrays(source: Path | IO[bytes], empty: bool = False, path: str = "") -> dict[str, NDArray[np.generic]]:
    """Read named batches of numbers; no pickles, at most 1 GiB.

    Args:
        source: The .npz file, or its path.
        empty: Allow arrays without elements, such as the output of a detector that detects nothing.
        path: The path of an open file, for messages.

    Raises:
        BundleError: The file is missing, damaged or too large, or an array is empty, is not a batch, or is not numeric.
    """
    path = path or str(source)
    try:
        with zipfile.ZipFile(source) as archive:
            _check_methods(archive, path)
            if (total := sum(info.file_size for info in archive.infolist())) > LARGEST_ARRAYS:
                raise BundleError(f"{path} is too large", got=f"{total} bytes", expected=f"at most {LARGEST_ARRAYS}")
        if not isinstance(source, Path):
            source.seek(0)
        with np.load(source, allow_pickle=False) as arrays:
            values = {name: np.asarray(arrays[name]) for name in arrays.files}  # no array: NumPy gives its bytes
    except EdgesmithError:
        raise
    except Exception as error:  # NumPy reads headers as Python: TokenError, TypeError, OverflowError, …
        raise BundleError(f"{path} cannot be read", got=_said(error), expected="arrays in .npz") from error
    odd = [f"{name[:80]} {array.dtype} {array.shape}" for name, array in values.items() if not _is_batch(array, empty)]
    if odd or not values:
        got = odd[0] if odd else "no array"
        raise BundleError(f"{path} cannot be used", got=got, expected="batches of numbers, one image or more")
    return values


def _is_batch(array: NDArray[np.generic], empty: bool) -> bool:
    return array.ndim > 0 and (empty or array.size > 0) and array.dtype.kind in "fiub"


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
