"""Which small changes to the code do the tests notice? One forked process per mutant, with the tests that reach it.

PYTHONPATH=tests python tests/support/mutate.py [AREA …] [--sample N] [--seed S] [--again]

Everything is imported and collected once. A first child runs all tests of the area under coverage, a context for each.
Each mutant is then put into its function's code in a child of its own, which runs the tests that reach the line, the
quickest first, until one fails. Tests beyond `--most` seconds for one mutant are left out: the share of killed ones is
a lower bound. Results are appended to results/mutants/AREA.jsonl; a second call goes on where the first one ended, and
`--again` tries the survivors once more, after tests were added.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from support.mutants import Mutant, compiled, mutants
from support.reach import KILLED, SURVIVED, UNFIT, Reached, in_child, reach, run

ROOT = Path(__file__).resolve().parents[2]
SLOWER = 3  # times as long as its tests took without it: a mutant that hangs


@dataclass(frozen=True)
class Area:
    """Files of the package, the tests that judge them and how many mutants are tried (None: all)."""

    files: str
    tests: tuple[str, ...]
    sample: int | None = None


# Those that compare with peers or take whole networks are slow and see little more.
PASS_TESTS = tuple(
    f"tests/optimize/test_{name}.py"
    for name in ("one_pass", "rewrites", "traps", "traps_foreign", "traps_kinds", "traps_shuffles", "traps_values",
                 "spellings", "shuffles", "contract", "interface", "carry", "turing")
)  # fmt: skip
AREAS = {
    "stats": Area(
        "bench/stats.py",
        ("tests/bench/test_stats.py", "tests/bench/test_stats_exact.py", "tests/bench/test_resample.py"),
    ),
    "compare": Area("bench/gate/compare.py", ("tests/bench/test_compare.py", "tests/bench/test_compare_rules.py")),
    "passes": Area("optimize/passes/*.py", PASS_TESTS, 200),
    "quantize": Area("optimize/quantize/*.py", ("tests/quantize",), 200),
}


class _Verdict:
    """Ends a child with the first test that fails."""

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os._exit(KILLED)


def functions_of(path: Path) -> dict[tuple[str, int], list[FunctionType]]:
    """Return the living functions that a file defines, by name and first line."""
    found: dict[tuple[str, int], list[FunctionType]] = defaultdict(list)
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename == str(path):
            found[one.__code__.co_name, one.__code__.co_firstlineno].append(one)
    return found


def put_in(tree: ast.Module, mutant: Mutant, path: Path, living: dict[tuple[str, int], list[FunctionType]]) -> None:
    """Give the living functions a mutant's code; where none lives the tests would run without it, and all pass."""
    key = mutant.function.split(".")[-1], mutant.first_line
    if key not in living:
        raise LookupError(f"no function {mutant.function} of {path} was imported")
    codes = [compiled(tree, mutant, str(path))]
    for code in codes:
        codes += [one for one in code.co_consts if hasattr(one, "co_code")]
    (code,) = (one for one in codes if (one.co_name, one.co_firstlineno) == key)
    for function in living[key]:
        function.__code__ = code


@dataclass(eq=False)
class _Loop:
    """Takes the place of pytest's own loop over the collected tests."""

    area: str
    options: argparse.Namespace

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("mutants", database=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
        settings.load_profile("mutants")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            pytest.exit("the tests cannot be collected", returncode=2)
        area = AREAS[self.area]
        files = sorted(ROOT.glob(area.files))
        for file in files:
            importlib.import_module(".".join(("edgesmith", *file.relative_to(ROOT).with_suffix("").parts)))
        records = ROOT / "results" / "mutants" / f"{self.area}.jsonl"
        records.parent.mkdir(parents=True, exist_ok=True)
        reached = reach(
            session.items, files, records.with_suffix(".some.json" if self.options.tests else ".reached.json")
        )
        for name in reached.failed:
            _say(f"{name} is left out: it fails in a child without any mutant")
        for name in reached.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        trees = {file: ast.parse(file.read_text()) for file in files}
        every = [(file, mutant) for file in files for mutant in mutants(trees[file])]
        size = self.options.sample or area.sample
        chosen = random.Random(self.options.seed).sample(every, size) if size and size < len(every) else every
        _say(f"{self.area}: {len(chosen)} of {len(every)} mutants, {len(session.items)} tests in "
              f"{sum(reached.seconds.values()):.0f} s")  # fmt: skip
        self._try_all(session.items, reached, trees, chosen, records)
        return True

    def _try_all(
        self, items: list[Any], reached: Reached, trees: Any, chosen: list[tuple[Path, Mutant]], records: Path
    ) -> None:
        done = _read(records)
        if self.options.again:
            done = {key: record for key, record in done.items() if record["outcome"] in ("killed", "hung", "unfit")}
        living = {file: functions_of(file) for file in trees}
        gc.freeze()  # so that a child's collector copies no pages
        items[0].config.pluginmanager.register(_Verdict())
        for file, mutant in chosen:
            key = _key(file, mutant)
            if key not in done:
                done[key] = self._try(items, reached, trees[file], file, mutant, living[file])
                with records.open("a") as stream:
                    stream.write(json.dumps(done[key]) + "\n")
        _report(self.area, [done[_key(file, mutant)] for file, mutant in chosen])

    def _try(self, items: list[Any], reached: Reached, tree: Any, file: Path, mutant: Mutant, living: Any) -> Any:
        names = reached.tests(file, mutant, self.options.most)
        by_name = {item.nodeid: item for item in items}

        def action() -> None:
            put_in(tree, mutant, file, living)
            run([by_name[name] for name in names])

        began = time.monotonic()
        code = in_child(action, 10 + SLOWER * sum(reached.seconds[name] for name in names)) if names else None
        outcome = {None: "not reached", SURVIVED: "survived", UNFIT: "unfit", KILLED: "killed"}.get(code, "hung")
        where, _, _, was, now = _key(file, mutant)
        return {
            "file": where, "line": mutant.lines[0], "column": mutant.column, "function": mutant.function, "was": was,
            "now": now, "outcome": outcome, "tests": len(names), "seconds": round(time.monotonic() - began, 2),
        }  # fmt: skip


Key = tuple[str, int, int, str, str]


def _key(file: Path, mutant: Mutant) -> Key:
    return file.relative_to(ROOT).as_posix(), mutant.lines[0], mutant.column, mutant.was, mutant.now


def _read(path: Path) -> dict[Key, Any]:
    """Return what is known, the newest of each mutant."""
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    return {(one["file"], one["line"], one["column"], one["was"], one["now"]): one for one in records}


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _report(area: str, records: list[Any]) -> None:
    from edgesmith.bench.stats import wilson

    count = Counter(record["outcome"] for record in records)
    total = len(records) - count["unfit"]
    dead = count["killed"] + count["hung"]
    low, high = wilson(dead, total)
    for record in records:
        if record["outcome"] in ("survived", "not reached"):
            _say(f"{record['file']}:{record['line']} {record['function']}: {record['was']} -> {record['now']}"
                  f" ({record['outcome']}, {record['tests']} tests)")  # fmt: skip
    _say(f"{area}: {dead} of {total} killed ({dead / total:.1%}, 95 % of {low:.1%} to {high:.1%}), {count['hung']} by"
          f" their time, {count['not reached']} not reached")  # fmt: skip


def main() -> None:
    """Try the mutants of some areas, each in a pytest session of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", choices=[*AREAS, []], default=[], metavar="AREA")
    parser.add_argument("--sample", type=int, help="mutants of each area, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--most", type=float, default=20.0, help="seconds of tests for one mutant")
    parser.add_argument("--tests", nargs="+", help="instead of the area's own")
    parser.add_argument("--again", action="store_true", help="try the survivors once more")
    options = parser.parse_args()
    for name in options.areas or AREAS:
        child = os.fork()
        if child == 0:
            os._exit(_session(name, options))
        signal.signal(signal.SIGTERM, lambda *_, child=child: (os.kill(child, signal.SIGKILL), sys.exit(143)))
        if os.waitpid(child, 0)[1]:
            sys.exit(1)


def _session(name: str, options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = [
        *(options.tests or AREAS[name].tests),
        "-s",
        "-m",
        "not slow",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
    ]
    return int(pytest.main(words, plugins=[_Loop(name, options)]))


if __name__ == "__main__":
    main()
