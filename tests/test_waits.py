"""No test takes a verdict from a clock: what has to happen is waited for with patience, on a busy machine too."""

import ast
from pathlib import Path

import pytest

from support.patience import PATIENCE_S

TESTS = Path(__file__).resolve().parent
# Calls that wait, by their name, and where their limit stands if it has no name.
WAITS = {"run": None, "check_output": None, "check_call": None, "communicate": 1, "wait": 0, "join": 0, "result": 0,
         "exception": 0, "in_process": None}  # fmt: skip
CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns")


def short_waits(tree: ast.AST) -> list[int]:
    """Return the lines of calls that give up, and fail, after a number of seconds that is written there."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
            at = WAITS[node.func.attr]
            limits = [word.value for word in node.keywords if word.arg == "timeout"]
            limits += node.args[at : at + 1] if at is not None else []
            lines += [node.lineno for limit in limits if _seconds(limit) < PATIENCE_S]
    return lines


def _seconds(limit: ast.expr) -> float:
    value = limit.value if isinstance(limit, ast.Constant) else None
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else PATIENCE_S


def judged_clocks(tree: ast.AST) -> list[int]:
    """Return the lines of assertions in which a clock is read."""
    return [
        node.lineno
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Assert)
        for node in ast.walk(statement.test)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS
    ]


FILES = sorted(path for path in TESTS.rglob("*.py") if path.name.startswith("test_") or path.parent.name == "support")


@pytest.mark.parametrize("rule", [short_waits, judged_clocks])
def test_no_test_fails_for_being_slow(rule):
    found = {str(path.relative_to(TESTS)): lines for path in FILES if (lines := rule(ast.parse(path.read_text())))}
    assert found == {}


PLANTED = {
    "subprocess.run(command, timeout=60)": ([1], []),
    "process.wait(5)": ([1], []),
    "future.result(timeout=0.5)": ([1], []),
    "assert time.monotonic() - start < 20": ([], [1]),
    "process.wait(PATIENCE_S)\nfuture.result()\n' '.join(words)\nassert clock.now < 3": ([], []),
}


@pytest.mark.parametrize("text", PLANTED)
def test_a_planted_wait_is_found(text):
    tree = ast.parse(text)
    assert (short_waits(tree), judged_clocks(tree)) == PLANTED[text]
