"""Choice of the core to measure on: processes that are compared share one core.

Two processes that alternate tend to stay on different cores, and cores differ in speed while other tenants use the same
hardware: without any change, one in five pairs on two idle virtual cores differed by more than 4 %, and one in a
hundred pairs on one shared core by more than 3 % (decision 064).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import environment
from .workload import BenchTarget

WATCH_S = 0.1


def shared_core(targets: Sequence[BenchTarget], rng: np.random.Generator) -> int | None:
    """Return the core for processes that alternate: the least busy one over a short time; ties are broken at random.

    None if there is no choice (one core, or a system without affinity), and if a target may use several threads:
    more than one was requested, the backend chooses, or the target is a Python file.
    """
    if any(target.threads != 1 or Path(target.path).suffix == ".py" for target in targets):
        return None
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    before = busy_ticks_by_core(allowed)
    if len(before) < 2:
        return None
    time.sleep(WATCH_S)
    busy = {core: ticks - before.get(core, 0) for core, ticks in busy_ticks_by_core(allowed).items()}
    return int(rng.choice([core for core, ticks in busy.items() if ticks == min(busy.values())]))


def busy_ticks_by_core(cores: set[int]) -> dict[int, int]:
    """Return the busy clock ticks of each of these cores since boot; empty if the system does not report them."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    ticks_by_core = {}
    for name, *ticks in filter(None, map(str.split, lines)):
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks_by_core[int(name[3:])] = environment.busy_ticks(ticks)
    return ticks_by_core
