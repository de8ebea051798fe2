"""Kinds whose inputs go wrong on purpose, one way each: what the harness has to find."""

import os
import signal
import time
from types import SimpleNamespace

from edgesmith.runtime.common import isolation
from edgesmith.runtime.errors import DataError
from fuzz import harness
from fuzz.harness import Case
from support.patience import PATIENCE_S


def surprise(folder):
    raise ValueError("not one of ours")


def two_lines(folder):
    os.write(2, b"error: one\n")
    raise DataError("two")


def half_a_file(folder):
    (folder / "half").write_bytes(b"x")
    raise DataError("refused")


def left_work(folder):
    (folder / ".x.abc.tmp").mkdir()


def crash(folder):
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(folder):
    time.sleep(2 * PATIENCE_S)


def memory(folder):
    bytearray(1 << 30)
    raise AssertionError("it was given more than the limit")


def essay(folder):
    raise DataError("x" * 10_000)


def refusal(folder):
    raise DataError("a refusal", got="x", expected="y")


def success(folder):
    (folder / "out").write_bytes(b"whole")


FAULTS = (surprise, two_lines, half_a_file, left_work, crash, hang)
FINE = (refusal, essay, success, memory)


def tally(action, contains=False):
    kind = SimpleNamespace(
        __name__=action.__name__, LIMITS=isolation.Limits(1 if action is hang else PATIENCE_S, 512 << 20),
        CONTAINS=contains,
        material=lambda folder: None,
        case=lambda rng, material, folder: Case(action.__name__, lambda: action(folder), ("out",)),
    )  # fmt: skip
    return harness.run(kind, seed=0, inputs=1)
