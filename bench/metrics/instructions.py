"""Instructions of one inference, counted by valgrind: a second signal that other work does not reach.

Callgrind counts while a warm process calls the network, and not while it starts: the median of WINDOWS windows of CALLS
calls each. Address randomisation is off, the hash seed fixed, the thread one. valgrind offers the processor's AVX2 at
most, so the count is that of the AVX2 kernels; it says nothing of time, for a cache miss costs as many instructions as
a hit. Switching the counting leaves about 0.5 M instructions of uncertainty in a call.
Source: Callgrind's manual (`--instr-atstart=no`, `callgrind_control`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from ...runtime.errors import EdgesmithError, RunError
from ..context import Context
from ..process import Process
from ..result import Reading
from ..workload import Target

ON_REQUEST = True  # it takes half a minute
CALLS, WINDOWS = 5, 3


def measure(context: Context) -> Reading:
    """Return `instructions_count`, of one call of the whole batch."""
    valgrind, control = shutil.which("valgrind"), shutil.which("callgrind_control")
    if valgrind is None or control is None:
        return Reading("instructions", missing="valgrind is not installed; do: apt-get install valgrind")
    target = replace(context.target, threads=1)
    try:
        counted = count(valgrind, control, target, 10 * context.timeout_s)
    except EdgesmithError as error:
        return Reading("instructions", missing=str(error))
    notes = () if context.target.threads == 1 else ("counted with one thread",)
    return Reading("instructions", {"instructions_count": counted / CALLS}, notes=notes)


def count(valgrind: str, control: str, target: Target, timeout_s: float) -> int:
    """Return the instructions of CALLS calls in a process that was warm: the median of WINDOWS windows.

    Raises:
        RunError: valgrind said nothing that can be read.
        EdgesmithError: The target cannot be opened.
    """
    with tempfile.TemporaryDirectory(prefix="edgesmith-") as folder:
        out = f"--callgrind-out-file={folder}/out"
        prefix = (valgrind, "--tool=callgrind", "--instr-atstart=no", out, f"--log-file={folder}/log")
        with Process(target, timeout_s=timeout_s, repeatable=True, prefix=prefix) as process:
            process.ask("peak", calls=1)
            for _ in range(WINDOWS):
                _control(control, process.pid, "-i", "on")
                process.ask("peak", calls=CALLS)
                _control(control, process.pid, "-i", "off")
                _control(control, process.pid, "-d")
            process.finish(timeout_s)
        dumps = [path.read_text(errors="replace") for path in Path(folder).glob("out.*")]
    counts = [int(found[1]) for text in dumps if (found := re.search(r"^totals: (\d+)", text, re.MULTILINE))]
    counts = [number for number in counts if number]
    if len(counts) < WINDOWS:
        raise RunError("valgrind gave no count", got=f"{len(counts)} windows", expected=f"{WINDOWS}")
    return int(median(counts))


def _control(control: str, pid: int, *words: str) -> None:
    done = subprocess.run([control, *words, str(pid)], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode or "OK" not in done.stdout:
        said = " ".join((done.stdout + done.stderr).split())[-200:]
        raise RunError(f"callgrind did not obey {' '.join(words)}", got=said)
