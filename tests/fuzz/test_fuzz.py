"""The fuzzer: some inputs of each kind, that the same seed makes the same inputs, and that it finds what is planted."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgesmith.runtime.common import isolation
from fuzz import harness
from fuzz.__main__ import KINDS
from support.patience import PATIENCE_S

pytestmark = pytest.mark.skipif(not isolation.CAN_FORK, reason="this system cannot fork")
TESTS = Path(__file__).resolve().parents[1]


def python(*arguments: str, timeout: float = PATIENCE_S) -> subprocess.CompletedProcess:
    """Run it in a process of its own: it forks."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, env=environment
    )


def test_what_goes_wrong_is_found_and_what_is_right_is_not():
    code = (
        "from fuzz import planted\n"
        "for group in (planted.FAULTS, planted.FINE):\n"
        "  print({one.__name__: len(planted.tally(one).faults) for one in group})\n"
        "print(planted.tally(planted.crash, True).crashes_contained, planted.tally(planted.hang, True).late_contained)"
    )
    done = python("-c", code)
    faults, fine, contained = done.stdout.splitlines()
    assert set(eval(faults).values()) == {1}, done.stdout
    assert set(eval(fine).values()) == {0}, done.stdout
    assert contained == "1 1"


@pytest.mark.parametrize("name", ["images", "bundles"])
def test_the_same_seed_makes_the_same_input(name, tmp_path):
    kind = importlib.import_module(f"fuzz.{name}")
    (tmp_path / "material").mkdir()
    material = kind.material(tmp_path / "material")

    def digest(index: int, again: str) -> tuple[str, str]:
        folder = tmp_path / f"{index}{again}"
        folder.mkdir()
        case = kind.case(harness.generator(name, 0, index), material, folder)
        found = hashlib.sha256()
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1 << 26):
            found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        return case.label, found.hexdigest()

    first = [digest(index, "a") for index in range(12)]
    assert first == [digest(index, "b") for index in range(12)]
    assert len(set(first)) > 6


@pytest.mark.parametrize(
    "inputs", [pytest.param(25, marks=pytest.mark.slow), pytest.param(250, marks=pytest.mark.nightly)]
)
def test_hostile_inputs_of_each_kind(inputs, tmp_path):
    done = python("-m", "fuzz", "--inputs", str(inputs), "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == set(KINDS)
    for name, values in found.items():
        assert values["inputs"] == inputs, name
        assert values["refused"] > 0, name
