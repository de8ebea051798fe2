"""Instructions of one inference, counted by valgrind: a second signal that other processes do not disturb.

A process opens the file, calls once, and then counts CALLS further calls with Callgrind (`bench/measure/callgrind.py`).
Address space randomisation is off, the hash seed is fixed, and there is one thread. valgrind supports AVX2 at most, so
the AVX2 kernels are counted. The count does not measure time: a cache miss costs as many instructions as a hit.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

from ...runtime.common.files import scratch
from ...runtime.errors import EdgesmithError, RunError
from ..measure.context import MetricContext
from ..measure.process import Process
from ..measure.workload import BenchTarget
from ..result import Reading

ON_REQUEST = True  # it takes half a minute
CALLS = 2


def measure(context: MetricContext) -> Reading:
    """Return `instructions_count` of one call with the whole batch."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return Reading("instructions", missing="valgrind is not installed; do: apt-get install valgrind")
    target = replace(context.target, threads=1)
    try:
        total = count(valgrind, target, 10 * context.timeout_s, context.end)
    except EdgesmithError as error:
        return Reading("instructions", missing=str(error))
    notes = () if context.target.threads == 1 else ("instructions can be counted only with one thread",)
    return Reading("instructions", {"instructions_count": total}, notes=notes)


def count(valgrind: str, target: BenchTarget, timeout_s: float, end: int | None = None) -> float:
    """Return the instructions of one call of a warm session.

    Args:
        valgrind: Path of the program.
        target: What to call.
        timeout_s: Limit in seconds for each answer of the process.
        end: Time of the clock (ns) after which no answer is awaited; None for no end.

    Raises:
        NotAvailable: valgrind does not work on this machine.
        RunError: The output of valgrind cannot be parsed.
        EdgesmithError: The target cannot be opened.
    """
    with scratch("instructions") as folder:
        out = folder / "out"
        prefix = (valgrind, "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
                  f"--callgrind-out-file={out}", f"--log-file={folder}/log")  # fmt: skip
        with Process(target, timeout_s=timeout_s, end=end, repeatable=True, prefix=prefix) as process:
            process.ask("count", calls=CALLS)
            process.finish()
        text = out.read_text(errors="replace") if out.is_file() else ""
    totals = re.search(r"^totals: (\d+)", text, re.MULTILINE)
    if totals is None or int(totals[1]) == 0:
        raise RunError("valgrind gave no count", got=f"{len(text)} bytes", expected="a line `totals:` above 0")
    return int(totals[1]) / CALLS
