"""Which core to measure on: processes that are compared share one.

Two processes that take turns tend to stay each on a core of its own, and cores are not alike while other tenants of the
machine use the hardware below them: of pairs measured on two idle virtual cores one in five differed by more than 4 %
without any change, of pairs that had one core to share one in a hundred by more than 3 % (decision 064).
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
    """Return the core for processes that take turns: the least busy of a short while, of equals one at random.

    None where there is no choice (one core, or a system without affinity), and where a target may use several threads:
    more than one is asked for, the backend chooses, or it is a Python file, which nobody can know.
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
    """Return the clock ticks that each of these cores was busy since boot; empty where the system does not say."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return {}
    ticks_by_core = {}
    for name, *ticks in filter(None, map(str.split, lines)):
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks_by_core[int(name[3:])] = environment.busy_ticks(ticks)
    return ticks_by_core
