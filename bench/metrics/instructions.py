"""Instructions of one inference, counted by valgrind: a second signal that other work does not reach.

A process opens the file, calls once, and then tells Callgrind to count while it calls CALLS times more
(`bench/measure/callgrind.py`). Address randomisation is off, the hash seed fixed, the thread one. valgrind offers the
processor's AVX2 at most, so the count is that of the AVX2 kernels; it says nothing of time, for a cache miss costs as
many instructions as a hit.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from ...runtime.errors import EdgesmithError, RunError
from ..measure.context import MetricContext
from ..measure.process import Process
from ..measure.workload import BenchTarget
from ..result import Reading

ON_REQUEST = True  # it takes half a minute
CALLS = 2


def measure(context: MetricContext) -> Reading:
    """Return `instructions_count`, of one call of the whole batch."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return Reading("instructions", missing="valgrind is not installed; do: apt-get install valgrind")
    target = replace(context.target, threads=1)
    try:
        counted = count(valgrind, target, 10 * context.timeout_s)
    except EdgesmithError as error:
        return Reading("instructions", missing=str(error))
    notes = () if context.target.threads == 1 else ("instructions can be counted only with one thread",)
    return Reading("instructions", {"instructions_count": counted}, notes=notes)


def count(valgrind: str, target: BenchTarget, timeout_s: float) -> float:
    """Return the instructions of one call of a warm session.

    Args:
        valgrind: The program.
        target: What to call.
        timeout_s: For each answer of the process.

    Raises:
        NotAvailable: valgrind cannot be asked here.
        RunError: valgrind said nothing that can be read.
        EdgesmithError: The target cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="edgesmith-") as folder:
        out = Path(folder) / "out"
        prefix = (valgrind, "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
                  f"--callgrind-out-file={out}", f"--log-file={folder}/log")  # fmt: skip
        with Process(target, timeout_s=timeout_s, repeatable=True, prefix=prefix) as process:
            process.ask("count", calls=CALLS)
            process.finish(timeout_s)
        text = out.read_text(errors="replace") if out.is_file() else ""
    totals = re.search(r"^totals: (\d+)", text, re.MULTILINE)
    if totals is None or int(totals[1]) == 0:
        raise RunError("valgrind gave no count", got=f"{len(text)} bytes", expected="a line `totals:` above 0")
    return int(totals[1]) / CALLS
