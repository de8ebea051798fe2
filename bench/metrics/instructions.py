"""Instructions of one inference, counted by valgrind: a second signal that no noise reaches.

Two fresh processes call the network FEW and MANY times; the difference of their counts, divided by the difference of
their calls, is one call, for all the rest is equal (no address randomisation, fixed hash seed, one thread). valgrind
offers the processor's AVX2 at most, so the count is that of the AVX2 kernels. It says nothing of time: a cache miss
costs as many instructions as a hit. Source: Cachegrind's manual (`--cache-sim=no` counts instructions only).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ...runtime.errors import EdgesmithError, RunError
from ..context import Context
from ..process import Process
from ..result import Reading
from ..workload import Target

ON_REQUEST = True  # it takes half a minute
FEW, MANY = 2, 6


def measure(context: Context) -> Reading:
    """Return `instructions_count`, of one call of the whole batch."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return Reading("instructions", missing="valgrind is not installed; do: apt-get install valgrind")
    target = replace(context.target, threads=1)
    try:
        with ThreadPoolExecutor(2) as pool:
            few, many = pool.map(lambda calls: count(valgrind, target, calls, 10 * context.timeout_s), (FEW, MANY))
    except EdgesmithError as error:
        return Reading("instructions", missing=str(error))
    notes = () if context.target.threads == 1 else ("counted with one thread",)
    return Reading("instructions", {"instructions_count": (many - few) / (MANY - FEW)}, notes=notes)


def count(valgrind: str, target: Target, calls: int, timeout_s: float) -> int:
    """Return the instructions of a process that opens the target and calls it `calls` times more.

    Raises:
        RunError: valgrind said nothing that can be read.
        EdgesmithError: The target cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="edgesmith-") as folder:
        log = Path(folder) / "log"
        prefix = (
            valgrind,
            "--tool=cachegrind",
            "--cache-sim=no",
            f"--cachegrind-out-file={folder}/out",
            f"--log-file={log}",
        )
        with Process(target, timeout_s=timeout_s, repeatable=True, prefix=prefix) as process:
            process.ask("peak", calls=calls)
            process.finish(timeout_s)
        said = log.read_text(errors="replace")
    found = re.search(r"I\s+refs:\s+([\d,]+)", said)
    if found is None:
        raise RunError("valgrind gave no count", got=" ".join(said.split())[-200:], expected="a line «I refs»")
    return int(found[1].replace(",", ""))
