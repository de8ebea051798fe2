"""Instruction counts: what is said where there is no valgrind."""

from edgesmith.bench.context import Context
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Subject
from edgesmith.bench.workload import Target


def counted(path):
    return instructions.measure(Context(Subject("chain", path.name), Target(str(path)), str(path)))


def test_without_valgrind_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    reading = counted(tmp_path / "none.onnx")
    assert reading.values == {}
    assert reading.missing.startswith("valgrind is not installed")
