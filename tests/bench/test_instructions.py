"""Instructions of a call: absent without valgrind, proportional to the work with it, and the same twice."""

import shutil

import pytest

from edgesmith.bench.context import Context
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Subject
from edgesmith.bench.workload import Target
from support.gate_corpus import chain


def counted(path):
    return instructions.measure(Context(Subject("net", path.name), Target(str(path)), str(path), timeout_s=120))


def test_without_valgrind_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    reading = instructions.measure(Context(Subject("n", "n"), Target(str(tmp_path / "n.onnx")), "n"))
    assert reading.values == {}
    assert reading.missing == "valgrind is not installed; do: apt-get install valgrind"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="no valgrind here: apt-get install valgrind")
def test_twice_the_layers_are_nearly_twice_the_instructions(tmp_path):
    """A call has a share of its own beside its layers; the rest doubles."""
    one, two = (counted(chain(tmp_path / f"{layers}.onnx", layers)) for layers in (100, 200))
    assert (one.missing, two.missing) == ("", "")
    ratio = two.values["instructions_count"] / one.values["instructions_count"]
    assert 1.8 < ratio < 2.02
