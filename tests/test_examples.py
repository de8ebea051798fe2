"""Each example runs as its first line says, and one that does not, planted, is found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.bundles import colour_bundle, colour_net
from support.patience import PATIENCE_S

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = {
    "01_run_a_bundle.py": (lambda folder: [colour_bundle(folder / "b" / "colours").folder], "is seen as"),
    "02_bring_your_own_module.py": (lambda folder: [folder], "bundle: passed"),
    "03_any_onnx_file.py": (lambda folder: [colour_net(folder / "a.onnx"), folder / "b.onnx"], "its source: equal"),
}
CALLED = re.compile(r'^""".*: python examples/(\S+\.py)((?: [A-Z]+(?:\.onnx)?)*)\."""$')


def problem(example: Path, arguments: list[object], said: str) -> str:
    """Run an example as its first line says; return what is wrong, or nothing."""
    first = example.read_text().splitlines()[0]
    called = CALLED.match(first)
    if not called or called[1] != example.name or len(called[2].split()) != len(arguments):
        return f"its first line does not say how to call it: {first}"
    command = [sys.executable, example, *arguments]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=PATIENCE_S)
    if done.returncode:
        return f"exit code {done.returncode}: {done.stderr[-500:]}"
    return "" if said in done.stdout else f"it says {done.stdout[-500:]!r}"


def unlisted(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.py")} ^ set(EXAMPLES)


def test_each_example_is_listed():
    assert unlisted(FOLDER) == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path):
    arguments, said = EXAMPLES[name]
    assert problem(FOLDER / name, arguments(tmp_path), said) == ""


GOOD = '"""Say it: python examples/x.py FOLDER."""\nimport sys\nprint("done in", sys.argv[1])\n'
PLANTED = {
    "nothing": (GOOD, ""),
    "an error": (GOOD + "raise SystemExit('no')\n", "exit code 1: no"),
    "another result": (GOOD.replace("done", "begun"), "it says 'begun in there"),
    "an argument that is not said": (GOOD.replace(" FOLDER", ""), "its first line does not say how to call it"),
    "another name": (GOOD.replace("x.py", "y.py"), "its first line does not say how to call it"),
    "no first line": (GOOD[GOOD.index("import") :], "its first line does not say how to call it"),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_example_is_judged(case, tmp_path):
    text, found = PLANTED[case]
    (tmp_path / "x.py").write_text(text)
    said = problem(tmp_path / "x.py", ["there"], "done in there")
    assert said.startswith(found)
    assert bool(said) is bool(found)
    assert "x.py" in unlisted(tmp_path)
