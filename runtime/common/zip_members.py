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
