"""Members of zip files (.zip, .npz, .pt) that can be read in bounded memory: stored or deflated, not encrypted."""

from __future__ import annotations

import zipfile

_ENCRYPTED = 1
EXPECTED = "members that are stored or deflated"


def member_problem(archive: zipfile.ZipFile) -> str:
    """Return the first member that must not be read, and why; an empty string if there is none.

    Other methods, such as bzip2, may make gigabytes of a few bytes in one read, however little is asked for.
    """
    for info in archive.infolist():
        if info.flag_bits & _ENCRYPTED:
            return f"{info.filename[:80]}: encrypted"
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return f"{info.filename[:80]}: another method"
    return ""


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return a member of at most `most` bytes.

    Raises:
        KeyError: There is none of this name.
        ValueError: It is larger, or a member must not be read.
    """
    if problem := member_problem(archive):
        raise ValueError(problem)
    if (size := archive.getinfo(name).file_size) > most:
        raise ValueError(f"{name}: {size} bytes, more than {most}")
    return archive.read(name)
