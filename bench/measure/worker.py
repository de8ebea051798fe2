"""The fresh measuring process: `main()` reads one JSON request per line and writes one answer.

    {"do": "open", "target": {…}}              -> {"stages": {…}, "rss": {…}, "ready_ns": …}
    {"do": "warm", "most_s": 3.0}              -> {"calls": 120, "stationary": true, "batch": 1}
    {"do": "run", "seconds": 0.1, "least": 3}  -> {"samples": [seconds of one call, …],
                                                   "disturbed": [false, …]}
    {"do": "cold", "seconds": 1, "least": 20, "evict_bytes": 67108864} -> as "run", each call with cold caches
    {"do": "peak", "calls": 20}                -> {"peak_bytes": …, "resident_bytes": …}
    {"do": "count", "calls": 2}                -> {"calls": 2}, counted by the valgrind that it runs under
    {"do": "streams", "count": 2, "seconds": 1} -> {"calls": 400, "seconds": 1.0}
    {"do": "end_to_end", "count": 20}          -> {"decode_s": [...], "preprocess_s": [...], …}
    {"do": "device_time", "count": 20}         -> {"copy_in_s": [...], "compute_s": [...], …}
    {"do": "layers", "count": 20}              -> {"rows": [{"layer": …, "op": …, "seconds": …}, …]}

Output of libraries to standard output is redirected to standard error, so that it cannot corrupt an answer.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

import numpy as np

from ...runtime.errors import EdgesmithError
from . import clock
from .workload import BenchTarget, Workload, open_workload, peak_rss_bytes, resident_bytes


class Worker:
    """The state between requests: the open workload and its batch."""

    def __init__(self) -> None:
        self.workload: Workload | None = None
        self.target: BenchTarget | None = None
        self.batch = 1

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Execute one request; an error is returned as an answer with its class."""
        action = getattr(self, f"do_{request.pop('do', '')}", None)
        try:
            if action is None:
                return {"error": "unknown request", "kind": "RunError"}
            done: dict[str, Any] = action(**request)
        except EdgesmithError as error:
            return {"error": str(error), "kind": type(error).__name__}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "kind": "RunError"}
        return done

    @property
    def call(self) -> clock.Call:
        """The inference call of the open workload."""
        if self.workload is None:
            raise RuntimeError("nothing is open")
        return self.workload.call

    def do_open(self, target: dict[str, Any]) -> dict[str, Any]:
        """Open a target and call it once."""
        self.target = BenchTarget(**target)
        self.workload = open_workload(self.target)
        workload = self.workload
        return {"stages": dict(workload.stages), "rss": dict(workload.rss), "ready_ns": clock.now_ns()}

    def do_warm(self, most_s: float) -> dict[str, Any]:
        """Choose the batch and call until stationary."""
        from . import stability

        self.batch = clock.batch_size(self.call)
        calls, stationary = stability.warm_up(self.call, self.batch, most_s)
        return {"calls": calls, "stationary": stationary, "batch": self.batch}

    def do_run(self, seconds: float, least: int = 1) -> dict[str, Any]:
        """Time calls for some seconds."""
        samples, disturbed = clock.sample(self.call, seconds, self.batch, least)
        return {"samples": samples, "disturbed": disturbed}

    def do_cold(self, seconds: float, least: int, evict_bytes: int) -> dict[str, Any]:
        """Time calls, each after writing `evict_bytes`, which removes the network from the caches."""
        buffer = np.zeros(evict_bytes // 8)

        def evict() -> None:
            np.add(buffer, 1.0, out=buffer)

        samples, disturbed = clock.cold(self.call, seconds, evict, least)
        return {"samples": samples, "disturbed": disturbed}

    def do_peak(self, calls: int) -> dict[str, Any]:
        """Call `calls` times and return the highest resident size."""
        for _ in range(calls):
            self.call()
        return {"peak_bytes": peak_rss_bytes(), "resident_bytes": resident_bytes()}

    def do_count(self, calls: int) -> dict[str, Any]:
        """Call `calls` times while Callgrind counts."""
        from .callgrind import counted

        call = self.call
        with counted():
            for _ in range(calls):
                call()
        return {"calls": calls}

    def do_streams(self, count: int, seconds: float) -> dict[str, Any]:
        """Call from several threads at once for some seconds."""
        from .in_process import streams

        return streams(self.call, count, seconds)

    def do_end_to_end(self, count: int) -> dict[str, Any]:
        """Process an image file `count` times and time each stage."""
        from .in_process import end_to_end

        if self.workload is None:
            raise RuntimeError("nothing is open")
        return end_to_end(self.workload, count)

    def do_layers(self, count: int, optimise: bool = True) -> dict[str, Any]:
        """Profile the operators, or an engine's kernels."""
        from .layer_profile import profile, profile_engine

        if self.target is None or self.workload is None:
            raise RuntimeError("nothing is open")
        if hasattr(self.workload.session, "layers"):
            return {"rows": profile_engine(self.workload.session, self.target, count, self.workload.spec)}
        return {"rows": profile(self.target, count, optimise, self.workload.spec)}

    def do_device_time(self, count: int) -> dict[str, Any]:
        """Return the seconds by the GPU's clock."""
        from .in_process import device_time

        if self.workload is None:
            raise RuntimeError("nothing is open")
        return device_time(self.workload, count)


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer each line until the input ends."""
    worker = Worker()
    for line in requests:
        answers.write(json.dumps(worker.answer(json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    """Serve standard input and output; redirect other standard output to standard error."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
