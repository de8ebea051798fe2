"""Resident size of another process over time, read from outside every two milliseconds without slowing it.

Source: proc(5), /proc/PID/statm, the second number, in pages.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import clock

EVERY_S, MOST_ROWS = 0.002, 80
Sample = tuple[float, int]  # seconds since the watch began, bytes


class Watch:
    """Reads the resident size of a process from `start` to `stop`."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._stop, self._thread = threading.Event(), threading.Thread()

    def start(self, pid: int) -> None:
        """Take the first sample at once, so that there is one of the interpreter; the others in a separate thread."""
        path, began = Path(f"/proc/{pid}/statm"), clock.now_ns()
        if self._sample(path, began):
            self._thread = threading.Thread(target=self._look, args=(path, began), daemon=True)
            self._thread.start()

    def stop(self) -> list[Sample]:
        """Stop sampling and return the samples; empty if the system has no such file."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.samples

    def _look(self, path: Path, began: int) -> None:
        while not self._stop.wait(EVERY_S) and self._sample(path, began):
            pass

    def _sample(self, path: Path, began: int) -> bool:
        """Add a sample; return whether the process is still there."""
        try:
            resident = int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError, ValueError):
            return False
        self.samples.append(((clock.now_ns() - began) * 1e-9, resident))
        return True


def rss_rows(samples: Sequence[Sample], stages: Mapping[str, float], last: str = "calls") -> list[dict[str, Any]]:
    """Return the samples as rows with their stage; of each interval only the highest sample is kept.

    Args:
        samples: Samples of `stop`.
        stages: The seconds of each stage (`import_s`) in their order, from the start of the process.
        last: Name of the stage after them.
    """
    ends, sum_s = list[tuple[str, float]](), 0.0
    for name, seconds in stages.items():
        sum_s += seconds
        ends.append((name.removesuffix("_s"), sum_s))
    rows = [
        {
            "stage": next((name for name, end in ends if at <= end), last),
            "seconds": round(at, 4),
            "resident_bytes": size,
        }
        for at, size in samples
    ]
    width = max(1, -(-len(rows) // MOST_ROWS))
    return [max(rows[at : at + width], key=lambda row: row["resident_bytes"]) for at in range(0, len(rows), width)]
