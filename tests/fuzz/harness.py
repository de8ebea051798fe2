"""One hostile input after the other, each in a forked child under limits; what is wrong with how it ended is named.

What a child had to import, the parent imports after it, so that the children after that need not: an import can take
longer than the input.

An input is (kind, seed, index) and nothing else: the same three make the same bytes. It is accepted, refused with one
line of our own errors, or, where a native library reads foreign graphs, stopped by the guard. Anything else is a fault.
"""

import contextlib
import fnmatch
import gc
import importlib
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np

from edgesmith.cli import console
from edgesmith.runtime.common import isolation
from edgesmith.runtime.errors import LONGEST_PART

LONGEST_LINE = 4 * LONGEST_PART + 100


@dataclass(frozen=True)
class Case:
    """What was done to the input, what reads it, and patterns of the names that it may write.

    A refusal may leave none of these, unless `partly`: then each is whole in itself.
    """

    label: str
    action: Callable[[], object]
    makes: tuple[str, ...] = ()
    partly: bool = False


@dataclass
class Tally:
    """What became of the inputs of one kind.

    `contained` are the (index, label) that the guard stopped; `faults`, (index, label, what), should be empty.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashes_contained: int = 0
    late_contained: int = 0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    seconds: float = 0.0
    labels: Counter = field(default_factory=Counter)
    contained: list = field(default_factory=list)
    faults: list = field(default_factory=list)


def generator(kind: str, seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), index])


def run(kind: ModuleType, *, seed: int, first: int = 0, inputs: int | None = None, seconds: float | None = None,
        keep: bool = False) -> Tally:  # fmt: skip
    """Try inputs `first`, `first` + 1, … until there were as many as asked, or the time is over."""
    tally, name = Tally(), kind.__name__.rpartition(".")[2]
    root = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    os.environ["EDGESMITH_CACHE"] = str(root / "cache")
    start = time.monotonic()
    try:
        (root / "material").mkdir()
        material = kind.material(root / "material")
        index = first
        while (inputs is None or index < first + inputs) and (seconds is None or time.monotonic() - start < seconds):
            folder = root / "case"
            folder.mkdir()
            one(kind, tally, material, folder, generator(name, seed, index), index, debug=keep)
            if not keep:
                shutil.rmtree(folder)
            index += 1
    finally:
        tally.seconds = time.monotonic() - start
        if keep:
            sys.stderr.write(f"{root}\n")
        else:
            shutil.rmtree(root, ignore_errors=True)
    return tally


def one(kind: ModuleType, tally: Tally, material: object, folder: Path, rng: np.random.Generator, index: int,
        debug: bool = False) -> None:  # fmt: skip
    case = kind.case(rng, material, folder)
    given, said, imported = listing(folder), folder.parent / "said", folder.parent / "imported"
    began = time.monotonic()
    ended = isolation.run_isolated(lambda: attempt(case.action, said, imported, debug), kind.LIMITS)
    took = time.monotonic() - began
    warm(imported)
    text = said.read_text(errors="replace")
    tally.inputs += 1
    tally.labels[case.label] += 1
    tally.slowest_s = max(tally.slowest_s, took)
    tally.peak_bytes = max(tally.peak_bytes, ended.peak_bytes)
    contained = ended.late or bool(ended.signal)
    tally.late_contained += ended.late
    tally.crashes_contained += contained and not ended.late
    tally.accepted += ended.code == 0
    tally.refused += ended.code in (1, 2, 3)
    tally.contained += [(index, case.label)] if contained else []
    wrong = faults(ended, text, kind.CONTAINS)
    left = listing(folder) - given
    allowed = case.makes if ended.code == 0 or case.partly else ()
    if over := sorted(name for name in left if not any(fnmatch.fnmatch(name, pattern) for pattern in allowed)):
        wrong.append(f"left behind {over[:3]}")
    if ended.peak_bytes > kind.LIMITS.bytes:
        wrong.append(f"{ended.peak_bytes >> 20} MB")
    tally.faults += [(index, case.label, what) for what in wrong]


def attempt(action: Callable[[], object], said: Path, imported: Path, debug: bool = False) -> int:
    """Do it as a command would, its output in a file, and the names of the modules that it imported in another."""
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    known = set(sys.modules)

    def act() -> int:
        action()
        return 0

    try:
        return console.guarded(act, debug=debug)
    finally:
        if new := [name for name in sys.modules if name not in known]:
            imported.write_text("\n".join(new))


def warm(imported: Path) -> None:
    """Import what a child imported, and put it where the collector, and so copying on write, does not touch it."""
    if not imported.exists():
        return
    for name in imported.read_text().splitlines():
        if name.startswith("openvino"):  # its import starts threads
            continue
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    imported.unlink()
    gc.collect()
    gc.freeze()


def faults(ended: isolation.Ended, text: str, contains: bool) -> list[str]:
    """Say what is wrong with how an input ended."""
    if ended.late or ended.signal:
        what = "took too long" if ended.late else f"signal {ended.signal}"
        return [] if contains else [what]
    if "Traceback" in text:
        return [text[-3000:]]
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    if ended.code not in (0, 1, 2, 3):
        return [f"exit code {ended.code}: {text[-300:]}"]
    if ended.code and (len(lines) != 1 or len(lines[0]) > LONGEST_LINE):
        return [f"{len(lines)} error lines: {text[-300:]}"]
    if lines and lines[0].startswith("error: unexpected"):
        return [lines[0][:300]]
    return []


def listing(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
