"""Peak memory of a fresh process, told apart by stage, and repeatable.

Address randomisation is off (`setarch -R`) and malloc's thresholds are fixed, where the system allows both; without
them the peak of one and the same inference varies by several megabytes. Source: getrusage(2), mallopt(3), proc(5).
"""

from __future__ import annotations

import itertools

from ...runtime.errors import EdgesmithError
from ..context import Context
from ..process import Process, fixed_layout
from ..result import Reading

CALLS = 10


def measure(context: Context) -> Reading:
    """Return `peak_bytes`, and what importing, loading and calling added to the resident size."""
    try:
        with Process(context.target, repeatable=True, timeout_s=context.timeout_s) as process:
            peak = process.ask("peak", calls=CALLS)
            rss = process.rss
    except EdgesmithError as error:
        return Reading("memory", missing=str(error))
    if peak["peak_bytes"] is None:
        return Reading("memory", missing="this system does not tell a process's peak memory (/proc/self/status)")
    notes = () if fixed_layout() else ("address randomisation could not be switched off; repeat to see the spread",)
    return Reading("memory", {"peak_bytes": float(peak["peak_bytes"]), **attribution(rss)}, notes=notes)


def attribution(rss: dict[str, int]) -> dict[str, float]:
    """Return the growth of the resident size in each stage, in bytes: import, load (weights), first call (arena)."""
    order = ["interpreter_bytes", "import_bytes", "load_bytes", "first_call_bytes"]
    grown = {later: float(rss[later] - rss[earlier]) for earlier, later in itertools.pairwise(order)}
    return {"interpreter_bytes": float(rss["interpreter_bytes"]), **grown}
