"""The clock of every measurement: monotonic, in nanoseconds, read before and after a batch of calls.

A call that is much shorter than reading the clock is timed in batches; the batch size is chosen once, before measuring.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

try:
    import resource
except ImportError:  # no such thing on Windows
    resource = None  # type: ignore[assignment]

SHORTEST_BATCH_NS = 200_000  # 1,000 times what reading the clock twice costs: an error of at most 0.1 %

Call = Callable[[], Any]


def now_ns() -> int:
    """Return the monotonic clock in nanoseconds; only differences are meaningful."""
    return time.perf_counter_ns()


def once(call: Call, batch: int = 1) -> float:
    """Time `batch` calls in a row and return the seconds of one."""
    start = now_ns()
    for _ in range(batch):
        call()
    return (now_ns() - start) / batch * 1e-9


def batch_size(call: Call, shortest_ns: int = SHORTEST_BATCH_NS) -> int:
    """Return the number of calls per sample at which the cost of the clock is negligible: 1 for most networks."""
    batch = 1
    while batch < 1 << 20:
        took = once(call, batch) * batch * 1e9
        if took >= shortest_ns:
            return batch
        batch = max(batch * 2, min(int(batch * shortest_ns / max(took, 1.0)), batch * 100))
    return batch


def sample(call: Call, seconds: float, batch: int = 1, least: int = 1) -> tuple[list[float], list[bool]]:
    """Time calls for at least `seconds` and at least `least` samples.

    Returns:
        Seconds of one call for each sample, and for each whether the process was preempted during it.
    """
    samples, disturbed = list[float](), list[bool]()
    stop = now_ns() + round(seconds * 1e9)
    while now_ns() < stop or len(samples) < least:
        before = preemptions()
        samples.append(once(call, batch))
        disturbed.append(preemptions() > before)
    return samples, disturbed


def cold(call: Call, seconds: float, evict: Call, least: int = 1) -> tuple[list[float], list[bool]]:
    """Time single calls, each after an untimed `evict`, for about `seconds` in total; return values as `sample`."""
    samples, disturbed = list[float](), list[bool]()
    stop = now_ns() + round(seconds * 1e9)
    while now_ns() < stop or len(samples) < least:
        evict()
        before = preemptions()
        samples.append(once(call))
        disturbed.append(preemptions() > before)
    return samples, disturbed


def preemptions() -> int:
    """Return the number of involuntary context switches of this process; 0 if the system does not report it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw if resource else 0


def overhead_ns(samples: int = 1000) -> float:
    """Return the cost of the clock: the mean nanoseconds between two consecutive readings."""
    start = now_ns()
    for _ in range(samples):
        now_ns()
    return (now_ns() - start) / samples
