"""The tool that judges the tests: which changes it makes, and that it tells a killed mutant from one that lives."""

import ast
import os
import signal
import time
from types import SimpleNamespace

import pytest

from support import mutate, reach
from support.mutants import compiled, mutants

CHANGES = {
    "if a < b: pass": {"a <= b"},
    "if a: pass": {"not a"},
    "if not a: pass": {"a"},
    "return a + 1": {"a - 1", "2", "return None"},
    "return a and b": {"a or b", "return None"},
    "return a is not None": {"a is None", "return None"},
    "return True": {"False", "return None"},
    "return 'word'": {"'wordXX'", "return None"},
    "return None": set(),
    "return 'two words'": {"return None"},
    "return f'{a + 1}'": {"return None"},
    "x: int = 1": {"2"},
    "x[0] = y": {"pass", "1"},
    "x += y": {"x -= y", "pass"},
    "x = f(y, key=True)": {"f(y)", "False"},
    "f(y)": {"pass"},
    "raise ValueError(1 + a)": {"pass"},
    "x = [a for a in b if a]": {"not a"},
}


@pytest.mark.parametrize("line", CHANGES)
def test_what_is_changed(line):
    tree = ast.parse(f"def f():\n    '''A + b is not code.'''\n    {line}")
    found = list(mutants(tree))
    assert {mutant.now for mutant in found} == CHANGES[line]
    assert {mutant.lines[0] for mutant in found} <= {3}


def test_the_rest_of_a_file_is_left_alone():
    text = "A = 1 + 2\n@make(3)\ndef f(a: int = 4) -> list[5]:\n    pass\nclass B:\n    c = 6"
    assert list(mutants(ast.parse(text))) == []


def test_a_mutant_is_in_the_code_and_the_tree_stays():
    tree = ast.parse("class A:\n    def f(self, a):\n        return a * 2")
    before, results = ast.dump(tree), {}
    for mutant in mutants(tree):
        names = {}
        exec(compiled(tree, mutant, "<class A>"), names)
        results[mutant.name] = names["A"]().f(6)
    assert results == {
        "A.f: `a * 2` -> `a / 2`": 3,
        "A.f: `2` -> `3`": 18,
        "A.f: `return a * 2` -> `return None`": None,
    }
    assert ast.dump(tree) == before


def outcome(tmp_path, test):
    """Put the one mutant of `a < b`, `a <= b`, into a living function in a child and run a test there."""
    path = tmp_path / "less.py"
    path.write_text("def less(a, b):\n    return a < b")
    names = {}
    exec(compile(path.read_text(), str(path), "exec"), names)
    tree = ast.parse(path.read_text())
    (mutant,) = [one for one in mutants(tree) if one.now == "a <= b"]
    living = mutate.functions_of(path)

    def action():
        mutate.put_in(tree, mutant, path, living)
        report = SimpleNamespace(failed=not test(names["less"]))
        mutate._Verdict().pytest_runtest_logreport(report)

    code = reach.in_child(action, 60)  # it ends by itself
    assert names["less"](1, 1) is False  # here nothing has changed
    return code


def test_a_good_test_kills_and_a_weak_one_does_not(tmp_path):
    assert outcome(tmp_path, lambda less: less(1, 2) and not less(1, 1)) == reach.KILLED
    assert outcome(tmp_path, lambda less: less(1, 2) and not less(2, 1)) == reach.SURVIVED


def test_a_mutant_of_a_function_that_nobody_imported_is_no_survivor(tmp_path):
    path = tmp_path / "less.py"
    tree = ast.parse("def less(a, b):\n    return a < b")
    for mutant in mutants(tree):
        with pytest.raises(LookupError, match=f"no function less of {path} was imported"):
            mutate.put_in(tree, mutant, path, mutate.functions_of(path))


def spin():
    while True:
        pass


def wait():
    time.sleep(3600)


@pytest.mark.parametrize("hang", [spin, wait])
def test_a_mutant_that_hangs_is_ended(hang):
    """However late the child begins: its time begins with it."""
    assert reach.in_child(hang, 0.1) < 0


def test_a_child_that_begins_late_is_ended_too(monkeypatch):
    """On a loaded machine the session of the child did not exist yet when its time was over."""
    real = os.setsid

    def late():
        time.sleep(1)
        real()

    monkeypatch.setattr(os, "setsid", late)
    assert reach.in_child(wait, 0.1) == -signal.SIGKILL
    assert reach.in_child(lambda: None, 60) == reach.SURVIVED  # ends by itself


def test_what_reaches_a_line_is_run_the_quickest_first_within_a_time(tmp_path):
    path = tmp_path / "less.py"
    (mutant,) = mutants(ast.parse("def less(a):\n    if a:\n        pass"))
    lines = {str(path): {2: {"slow", "quick", "long"}, 3: {"other"}}}
    reached = reach.Reached(lines, {"slow": 3.0, "quick": 0.1, "long": 30.0, "other": 0.0}, [], [])
    assert reached.tests(path, mutant, 10) == ["quick", "slow"]
    assert reached.tests(tmp_path / "more.py", mutant, 10) == []


def test_what_a_fixture_of_a_file_runs_belongs_to_all_its_tests():
    known = {"a.py::x": 1.0, "a.py::y": 1.0, "b.py::z": 1.0}
    assert reach._named(["a.py::"], known) == {"a.py::x", "a.py::y"}
    assert reach._named(["b.py::z", ""], known) == {"b.py::z"}
