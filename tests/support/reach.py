"""Tests in forked processes: which of them reach which line, and what a child that runs some of them ended with."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import coverage
import pytest

from support.mutants import Mutant

KILLED, SURVIVED, UNFIT = 1, 0, 4


@dataclass
class Reached:
    """What the first child found: tests by file and line, their seconds, which failed, what was imported."""

    by_line: dict[str, dict[int, set[str]]]
    seconds: dict[str, float]
    failed: list[str]
    modules: list[str]

    def tests(self, path: Path, mutant: Mutant, most: float) -> list[str]:
        """Return the tests that reach a mutant's statement, the quickest first, within a time."""
        lines = self.by_line.get(str(path), {})
        found = set().union(*(lines.get(at, set()) for at in range(mutant.lines[0], mutant.lines[1] + 1)))
        total, chosen = 0.0, []
        for name in sorted(found - set(self.failed), key=lambda name: (self.seconds[name], name)):
            total += self.seconds[name]
            if chosen and total > most:
                break
            chosen.append(name)
        return chosen


@dataclass(eq=False)  # pytest puts plugins into sets
class _Witness:
    """Tells coverage which test is running; what a fixture of a whole file runs belongs to all tests of the file."""

    cover: Any
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    failed: list[str] = field(default_factory=list)
    test: str = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: Any) -> None:
        for module in [module for name, module in sys.modules.items() if name.startswith("edgesmith")]:
            for cached in vars(module).values():
                if isinstance(cached, functools._lru_cache_wrapper):  # else only its first user reaches it
                    cached.cache_clear()
        self.test = item.nodeid
        self.cover.switch_context(self.test)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        if fixturedef.scope in ("function", "session"):
            return (yield)
        self.cover.switch_context(f"{self.test.split('::')[0]}::")
        try:
            return (yield)
        finally:
            self.cover.switch_context(self.test)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)


def run(items: list[Any]) -> None:
    for item, after in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)


def in_child(action: Callable[[], None], seconds: float) -> int:
    """Do something in a forked process and return its exit code, or minus the signal that ended it.

    Args:
        action: What to do; it runs with a folder of its own for temporary files and nothing to write to.
        seconds: Of a processor that it may take; three times as long by the clock.
    """
    folder = tempfile.mkdtemp(prefix="mutant-")
    begun, begins = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            os.write(begins, b"1")  # from now on the parent can end the whole session, and its clock runs
            tempfile.tempdir = os.environ["TMPDIR"] = folder
            loud, silent = os.dup(2), os.open(os.devnull, os.O_WRONLY)
            os.dup2(silent, 1)
            os.dup2(silent, 2)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            action()
        except BaseException:
            os.write(loud, traceback.format_exc().encode())
            os._exit(UNFIT)
        os._exit(SURVIVED)
    os.close(begins)
    os.read(begun, 1)
    os.close(begun)
    limit, ended = time.monotonic() + 3 * seconds, (0, 0)
    while ended[0] == 0 and time.monotonic() < limit:
        ended = os.waitpid(child, os.WNOHANG)
        time.sleep(0.005)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if ended[0] == 0:
        ended = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    return os.waitstatus_to_exitcode(ended[1])


def reach(items: list[Any], files: list[Path], kept: Path) -> Reached:
    """Run all tests once under coverage, in a child, and return which of them reach which line.

    Args:
        items: The collected tests.
        files: Those of the package that are looked at.
        kept: Where the answer is kept for the next time, as long as neither these files nor those of the tests change.
    """
    sources = sorted({*files, *(item.path for item in items)})
    names = "\n".join(item.nodeid for item in items).encode()
    digest = hashlib.sha256(b"\0".join([names, *(path.read_bytes() for path in sources)])).hexdigest()
    found = json.loads(kept.read_text()) if kept.exists() else {}
    if found.get("digest") != digest:
        code = in_child(lambda: _trace(items, files, digest, kept), 3000)
        if code:
            pytest.exit(f"the tests without any mutant ended with {code}", returncode=2)
        found = json.loads(kept.read_text())
    by_line: dict[str, dict[int, set[str]]] = {}
    for file, contexts in found["lines"].items():
        by_line[file] = {int(line): _named(names, found["seconds"]) for line, names in contexts.items()}
    return Reached(by_line, found["seconds"], found["failed"], found["modules"])


def _trace(items: list[Any], files: list[Path], digest: str, kept: Path) -> None:
    before = set(sys.modules)
    cover = coverage.Coverage(data_file=None, config_file=False, include=[str(file) for file in files])
    witness = _Witness(cover)
    items[0].config.pluginmanager.register(witness)
    cover.start()
    run(items)
    cover.stop()
    data = cover.get_data()
    lines = {file: data.contexts_by_lineno(file) for file in data.measured_files()}
    modules = sorted(set(sys.modules) - before)
    found = {"digest": digest, "lines": lines, "seconds": witness.seconds, "failed": witness.failed, "modules": modules}
    fresh = kept.with_suffix(".tmp")
    fresh.write_text(json.dumps(found))
    fresh.replace(kept)


def _named(contexts: list[str], known: dict[str, float]) -> set[str]:
    """Return the tests of some contexts: FILE:: stands for all tests of a file."""
    whole = tuple(name for name in contexts if name.endswith("::"))
    return {name for name in known if name in contexts or (whole and name.startswith(whole))}
