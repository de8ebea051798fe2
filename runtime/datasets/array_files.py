"""Arrays as a data set: what a network takes, ready to be fed, from `.npy` and `.npz` files; nothing is preprocessed.

FILE.npy            the samples of the only input, (N, ...)
FILE.npz            one array (N, ...) for each input, by its name
FOLDER/*.npz        one sample a file, or several: each array has the batch as its first axis
FOLDER/*.npy        the same, for a network with one input
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..common.machine import memory_bytes
from ..common.zip_members import EXPECTED, member_problem
from ..errors import DataError
from .sampling import rank_by_hash, stratified

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIXES = (".npy", ".npz")
ONLY_INPUT = ""  # the name of the only input in a .npy file
TEST_PERCENT = 20


def is_array_source(source: str | Path) -> bool:
    """Say whether this is a `.npy` or `.npz` file, or a folder that holds some and no folders."""
    path = Path(source)
    return path.suffix in SUFFIXES if path.is_file() else path.is_dir() and bool(_files(path))


def load_arrays(source: Path, split: str, calibration: int) -> dict[str, NDArray[Any]]:
    """Return the samples of a split: input name -> (N, ...), "" for the input of `.npy` files.

    A sample belongs to the test split by the SHA-256 of its number, 20 % of them; at least one is in each split.

    Raises:
        DataError: A file cannot be read, holds objects, or has other inputs or sizes than the others.
    """
    paths = [source] if source.is_file() else _files(source)
    arrays = _joined([read_arrays(path) for path in paths], paths)
    count = len(next(iter(arrays.values())))
    if count < 2:
        raise DataError(f"{source} holds too few samples", got=str(count), expected="at least 2: to fit and to judge")
    held_out = [rank_by_hash(str(at), "test") % 100 < TEST_PERCENT for at in range(count)]
    if all(held_out) or not any(held_out):
        held_out[0] = not held_out[0]
    chosen = [at for at, out in enumerate(held_out) if out == (split in ("test", "hard"))]
    if split == "calibration" and calibration < len(chosen):
        picks = stratified([str(at) for at in chosen], [0] * len(chosen), calibration, seed="calibration")
        chosen = [chosen[at] for at in picks]
    return {name: array[chosen] for name, array in arrays.items()}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays in a file, each (N, ...): input name -> array, "" for the one in a `.npy` file.

    Raises:
        DataError: It cannot be read, holds objects or nothing, or arrays of unequal lengths.
    """
    try:
        with path.open("rb") as file:
            _check_members(file, path)
            content = np.load(file, allow_pickle=False)
            one = isinstance(content, np.ndarray)
            arrays = {ONLY_INPUT: content} if one else {key: content[key] for key in content}
    except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        got = " ".join(str(error).split())[:200]
        expected = "arrays as numpy.save or numpy.savez write them"
        raise DataError(f"cannot read {path}", got=got, expected=expected) from error
    if not arrays or any(array.ndim < 1 or not len(array) for array in arrays.values()):
        raise DataError(f"{path} holds no samples", got=describe(arrays), expected="arrays (N, ...)")
    if len({len(array) for array in arrays.values()}) > 1:
        raise DataError(
            f"the arrays in {path} have unequal lengths", got=describe(arrays), expected="one N for all inputs"
        )
    return arrays


def _check_members(file: IO[bytes], path: Path) -> None:
    """Refuse a zip file whose members cannot be read in bounded memory, or whose arrays do not fit into it."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            problem, expected = member_problem(archive), EXPECTED
            total, most = sum(info.file_size for info in archive.infolist()), memory_bytes()
        if not problem and most is not None and total > most:
            problem, expected = f"{total} bytes unpacked", f"at most {most}, the memory here"
        if problem:
            raise DataError(f"cannot read {path}", got=problem, expected=expected,
                            do="write it with numpy.savez_compressed, in parts if it is large")  # fmt: skip
    file.seek(0)


def _joined(parts: list[dict[str, NDArray[Any]]], paths: list[Path]) -> dict[str, NDArray[Any]]:
    first = parts[0]
    for part, path in zip(parts, paths, strict=True):
        kinds = [{name: (array.shape[1:], array.dtype) for name, array in one.items()} for one in (first, part)]
        if kinds[0] != kinds[1]:
            raise DataError(f"{path} does not fit {paths[0].name}", got=describe(part), expected=describe(first))
    return {name: np.concatenate([part[name] for part in parts]) for name in first}


def describe(arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return names, types and shapes as text."""
    return ", ".join(f"{name or 'array'} {array.dtype} {array.shape}" for name, array in arrays.items())[:300]
