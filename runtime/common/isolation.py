"""Work in a forked child: a crash, a hang or excessive memory use of a native library becomes one error line.

The commands that read external files run like this (docs/threat-model.md). It contains faults but is not a
sandbox: the child has the rights of its parent.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import tempfile
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import EdgesmithError, RunError, UsageError
from . import files
from .machine import gpu_possible, memory_bytes

TIME_VARIABLE, MEMORY_VARIABLE = "EDGESMITH_MAX_SECONDS", "EDGESMITH_MAX_BYTES"
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")
CAN_FORK = hasattr(os, "fork")


@dataclass(frozen=True)
class Limits:
    """Limits in wall-clock seconds and bytes of private memory; None: no limit."""

    seconds: float | None = None
    bytes: int | None = None

    @classmethod
    def from_environment(cls, seconds: float | None) -> Limits:
        """Return the limits of a command: $EDGESMITH_MAX_SECONDS or `seconds`, $EDGESMITH_MAX_BYTES or all memory.

        If there may be a GPU, memory has no limit unless one is set: drivers reserve more than there is.

        Raises:
            UsageError: A variable is not a positive number.
        """
        seconds_set, most = _positive(TIME_VARIABLE), _positive(MEMORY_VARIABLE)
        return cls(seconds_set or seconds, int(most) if most else None if gpu_possible() else memory_bytes())


def _positive(variable: str) -> float | None:
    text = os.environ.get(variable, "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < 1e18:
        raise UsageError(f"{variable} is not a limit", got=repr(text), expected="a positive number")
    return value


@dataclass(frozen=True)
class Ended:
    """The end of a child: its exit code, the signal that ended it (0: none), whether it timed out, its peak memory."""

    code: int
    signal: int = 0
    late: bool = False
    peak_bytes: int = 0

    def error(self, what: str, limits: Limits) -> EdgesmithError | None:
        """Return the error to raise if the child did not end by itself, else None."""
        if self.late:
            return RunError(
                f"{what} was stopped: it took too long", got=f"more than {limits.seconds:g} s",
                do=f"check whether the file is malformed, or raise {TIME_VARIABLE}",
            )  # fmt: skip
        if self.signal == signal.SIGKILL:
            return RunError(f"{what} was killed", got="SIGKILL", do="free memory: the system may have run out of it")
        name = signal.Signals(self.signal).name if self.signal else ""
        if name in FORWARDED:
            return RunError(f"{what} was stopped", got=f"{name} from outside", do="start it again")
        if self.signal:
            return RunError(
                f"a native library crashed during {what}", got=name, expected="a result or a refusal",
                do="the file is probably malformed: check its origin",
            )  # fmt: skip
        return None


def run_isolated(action: Callable[[], object], limits: Limits) -> Ended:
    """Run an action in a forked child and wait for it; work folders that a crash leaves are removed.

    SIGINT, SIGTERM and SIGHUP are passed on. The child is killed at its time limit, or if this process dies. Call it
    before starting threads and loading heavy libraries.

    Args:
        action: The action; its return value, or the code of its SystemExit, is the child's exit code.
        limits: Limits of time and memory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    leash, lifeline = os.pipe()
    with tempfile.TemporaryFile() as ledger:
        child = os.fork()
        if child == 0:
            os.close(lifeline)
            _be_child(action, limits, leash, ledger.fileno())
        os.close(leash)
        with _forwarding(child):
            ended = _wait(child, limits.seconds)
        os.close(lifeline)
        if ended.signal:
            ledger.seek(0)
            for name in ledger.read().split(b"\0")[:-1]:
                files.remove_abandoned(Path(os.fsdecode(name)))
    return ended


def _be_child(action: Callable[[], object], limits: Limits, leash: int, ledger: int) -> None:
    code: object = 1
    try:
        _forget_parents_end()
        os.setpgid(0, 0)
        if hasattr(signal, "SIGTTOU"):  # with `stty tostop` only the group in the foreground may write to the terminal
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        limit_memory(limits.bytes)
        files.write_down(ledger)
        threading.Thread(target=_end_with_parent, args=(leash,), daemon=True).start()
        code = action()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1 if code else 0)


def _forget_parents_end() -> None:
    """Do not run the parent's exit functions and finalizers in the child."""
    atexit._clear()
    weakref.finalize._registry.clear()  # type: ignore[attr-defined]
    weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]


def limit_memory(most: int | None) -> None:
    """Limit the private memory of this process and its children, and write no core files; None does nothing."""
    if most is None:
        return
    import resource

    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _end_with_parent(leash: int) -> None:
    os.read(leash, 1)
    os.killpg(0, signal.SIGKILL)


@contextlib.contextmanager
def _forwarding(child: int) -> Iterator[None]:
    """Forward signals to the child, which cleans up and ends; then this process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in FORWARDED if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda got, _: _kill(child, got)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _kill(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _wait(child: int, seconds: float | None) -> Ended:
    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)

    timer = threading.Timer(seconds, stop) if seconds else None
    if timer:
        timer.daemon = True
        timer.start()
    _, status, usage = os.wait4(child, 0)
    if timer:
        timer.cancel()
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Ended(128 + number, number, late.is_set() and number == signal.SIGKILL, peak)
    return Ended(os.WEXITSTATUS(status), peak_bytes=peak)
