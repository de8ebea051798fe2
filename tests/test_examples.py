"""Each example runs as its first line says."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.bundles import colour_bundle, colour_net

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = {
    "01_run_a_bundle.py": (lambda folder: [colour_bundle(folder / "b" / "colours").folder], "is seen as"),
    "02_bring_your_own_module.py": (lambda folder: [folder], "bundle: passed"),
    "03_any_onnx_file.py": (lambda folder: [colour_net(folder / "a.onnx"), folder / "b.onnx"], "its source: equal"),
}


def test_each_example_is_listed():
    assert sorted(path.name for path in FOLDER.glob("*.py")) == sorted(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, tmp_path):
    arguments, said = EXAMPLES[name]
    command = [sys.executable, FOLDER / name, *arguments(tmp_path)]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
