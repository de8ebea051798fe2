"""Instruction counts: what is said where there is no valgrind."""

import shutil

from edgesmith.bench.context import Context
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Subject
from edgesmith.bench.workload import Target


def test_without_valgrind_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    reading = instructions.measure(Context(Subject("n", "n"), Target(str(tmp_path / "n.onnx")), "n"))
    assert reading.values == {}
    assert reading.missing == "valgrind is not installed; do: apt-get install valgrind"
