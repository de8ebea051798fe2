"""Write a rewritten graph only if its outputs equal those of its source."""

from __future__ import annotations

from pathlib import Path

from ..runtime.common.files import atomic_file
from ..runtime.errors import CheckFailed
from .equivalence import compare
from .graph.graph import Graph
from .graph.writer import write


def write_checked(net: Graph, source: str | Path, target_path: str | Path) -> None:
    """Write a graph completely, and only if its outputs equal those of its source file.

    Raises:
        CheckFailed: It has other outputs (a bug; nothing is written).
    """
    with atomic_file(target_path) as temporary:
        write(net, temporary)
        check = compare(Path(source), temporary)
        if check.verdict != "equal":
            raise CheckFailed(f"the rewritten {source} computes something else", got=check.detail, do="report it")
