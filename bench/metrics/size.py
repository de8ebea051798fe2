"""Size of the artefact on disk."""

from __future__ import annotations

from pathlib import Path

from ..measure.context import MetricContext
from ..result import Reading


def measure(context: MetricContext) -> Reading:
    """Return `file_bytes`: size of the artefact with its external data file, if it has one."""
    path = Path(context.artifact)
    if not path.is_file():
        return Reading("size", missing=f"{path.name} is not a file")
    beside = path.with_name(path.name + ".data")
    size = path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
    return Reading("size", {"file_bytes": float(size)})
