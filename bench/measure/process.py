"""The parent's side of a measuring process: starts it, sends requests, and reports a crash or timeout as an error."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from ...runtime import errors
from ...runtime.common import child_process
from ...runtime.common.closeable import Closeable
from ...runtime.errors import EdgesmithError, RunError, UsageError
from . import clock
from .workload import BenchTarget

# glibc then gives large blocks back and never moves its threshold: what a run holds no longer depends on the past.
FIXED_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1",
                "PYTHONHASHSEED": "0"}  # fmt: skip


class Process(Closeable):
    """A fresh process with one open target.

    Args:
        target: The artefact or file to open.
        timeout_s: Seconds without an answer after which the process is killed.
        repeatable: Disable address space randomisation (`setarch -R`) and fix malloc's thresholds, for memory.
        prefix: Command that runs the process, such as valgrind.
        started: Called with the process ID as soon as it is known.
        core: The only core that the process may use; None for any.
        end: Time of the clock (ns) after which no answer is awaited; None for no end.

    Raises:
        RunError: It crashed, or did not answer in time.
        EdgesmithError: Opening the target failed; the class is that of the original error.
    """

    def __init__(
        self, target: BenchTarget, *, timeout_s: float = 120.0, repeatable: bool = False, prefix: tuple[str, ...] = (),
        started: Callable[[int], None] | None = None, core: int | None = None, end: int | None = None,
    ) -> None:  # fmt: skip
        self.target, self.timeout_s, self._end = target, timeout_s, end
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by close()
        command = [*(fixed_layout() if repeatable else ()), *prefix, *child_process.python(f"{__package__}.worker")]
        began = clock.now_ns()
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._complaints,
            env={**os.environ, **(FIXED_MALLOC if repeatable else {})},
        )  # fmt: skip
        self._rest = b""
        if core is not None:
            with contextlib.suppress(OSError):  # a core that was taken away: any will do
                os.sched_setaffinity(self._child.pid, {core})
        if started:
            started(self._child.pid)
        try:
            answer = self.ask("open", target=target.to_dict())
        except BaseException:
            self.close()
            raise
        total = (answer["ready_ns"] - began) * 1e-9  # by the child, as this process may be late to read it
        self.stages: dict[str, float] = {"interpreter_s": total - sum(answer["stages"].values()), **answer["stages"]}
        self.rss: dict[str, int] = answer["rss"]

    @property
    def pid(self) -> int:
        """The process ID."""
        return self._child.pid

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        line = json.dumps({"do": do, **request}).encode() + b"\n"
        try:
            self._pipe("stdin").write(line)
            self._pipe("stdin").flush()
        except BrokenPipeError:
            raise self._died(do) from None
        answer: dict[str, Any] = json.loads(self._line(do))
        if "error" in answer:
            kind = getattr(errors, answer["kind"], RunError)
            raise (kind if issubclass(kind, EdgesmithError) else RunError)(answer["error"])
        return answer

    def finish(self) -> None:
        """Let the process end by itself, so that the command of `prefix` can finish."""
        self._pipe("stdin").close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=max(0, self._last_moment() - clock.now_ns()) * 1e-9)

    def close(self) -> None:
        """Terminate the process; a second call does nothing."""
        for name in ("stdin", "stdout"):
            with contextlib.suppress(BrokenPipeError):
                self._pipe(name).close()
        try:
            self._child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._complaints.close()

    def _pipe(self, name: str) -> Any:
        return getattr(self._child, name)

    def _line(self, do: str) -> bytes:
        began, end = clock.now_ns(), self._last_moment()
        out = self._pipe("stdout").fileno()
        while b"\n" not in self._rest:
            left = (end - clock.now_ns()) * 1e-9
            if left <= 0 or not select.select([out], [], [], left)[0]:
                self._child.kill()
                raise self._late(do, end - began, end == self._end)
            if not (block := os.read(out, 1 << 16)):
                raise self._died(do)
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_moment(self) -> int:
        """Return the time of the clock until which an answer is awaited that is asked for now."""
        return min(clock.now_ns() + round(self.timeout_s * 1e9), self._end or sys.maxsize)

    def _late(self, do: str, waited: int, over: bool) -> RunError:
        """Tell a process that hangs from one that the end of all measuring (`over`) interrupted."""
        what, remedy = "hangs", "raise the time limit, or look at the backend"
        if over:
            what = "did not answer before the time was over"
            remedy = "stop other work on this machine, allow more time (--max-seconds), or see whether it hangs"
        got = f"no answer to {do!r} in {max(0, waited) * 1e-9:.3g} s"
        return RunError(f"{self.target.path} {what}", got=got, do=remedy)

    def _died(self, do: str) -> RunError:
        code = self._child.wait()
        self._complaints.seek(0)
        complaint = " ".join(self._complaints.read().decode(errors="replace").split())[-300:]
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        return RunError(f"the process measuring {self.target.path} died at {do!r}", got=f"{end} {complaint}".strip())


def require_sizes(path: str, shape: str = "", timeout_s: float = 30.0) -> None:
    """Refuse an ONNX file that leaves a size free which nothing says; whatever else is wrong shows when it is measured.

    Raises:
        UsageError: Neither its ModelSpec nor `shape` says the size.
    """
    if not path.endswith(".onnx"):
        return
    try:
        Process(BenchTarget(path, shape=shape), timeout_s=timeout_s).close()
    except UsageError:
        raise
    except EdgesmithError:
        return


def fixed_layout() -> tuple[str, ...]:
    """Return the command prefix that disables address space randomisation; empty if this is not permitted."""
    setarch = shutil.which("setarch")
    if setarch is None or not sys.platform.startswith("linux"):
        return ()
    prefix = (setarch, os.uname().machine, "-R")
    allowed = subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0
    return prefix if allowed else ()
