"""Instruction counts: half more work is half more instructions."""

import shutil

import pytest

from edgesmith.bench.context import Context
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Subject
from edgesmith.bench.workload import Target
from support.gate_corpus import chain


def counted(path):
    return instructions.measure(Context(Subject("chain", path.name), Target(str(path)), str(path)))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind here: apt-get install valgrind")
def test_half_more_work_is_half_more_instructions(tmp_path):
    base = counted(chain(tmp_path / "base.onnx", 100)).values["instructions_count"]
    more = counted(chain(tmp_path / "more.onnx", 150)).values["instructions_count"]
    assert more / base == pytest.approx(1.5, abs=0.06)


def test_without_valgrind_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    reading = counted(tmp_path / "none.onnx")
    assert reading.values == {}
    assert reading.missing.startswith("valgrind is not installed")
