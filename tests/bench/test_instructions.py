"""Instruction counts: asked of valgrind where it is installed, and what is said where it is not."""

import platform
import shutil

import pytest

from edgesmith.bench.measure import callgrind
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.bench.metrics import instructions
from edgesmith.bench.result import Subject
from edgesmith.runtime.errors import NotAvailable
from support.gate_corpus import chain


def chained(path, layers):
    chain(path, layers)
    return MetricContext(Subject("chain", "chain"), BenchTarget(str(path)), str(path))


def test_without_valgrind_the_reason_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    reading = instructions.measure(MetricContext(Subject("n", "n"), BenchTarget(str(tmp_path / "n.onnx")), "n"))
    assert reading.values == {}
    assert reading.missing == "valgrind is not installed; do: apt-get install valgrind"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the request is written for x86-64")
def test_a_request_outside_valgrind_changes_nothing():
    assert callgrind.request(callgrind.RUNNING_ON_VALGRIND) == 0
    assert callgrind.request(callgrind.TOGGLE_COLLECT) == 0
    with pytest.raises(NotAvailable, match="not run under valgrind"), callgrind.counted():
        raise AssertionError("it must not be reached")


def test_another_processor_is_told(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    callgrind._page.cache_clear()
    with pytest.raises(NotAvailable, match="only on x86-64; got riscv64"):
        callgrind.request(callgrind.RUNNING_ON_VALGRIND)
    callgrind._page.cache_clear()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: apt-get install valgrind")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the request is written for x86-64")
def test_counts_repeat_and_show_what_was_added(tmp_path):
    base = chained(tmp_path / "base.onnx", 10)
    once, again = (instructions.measure(base).values["instructions_count"] for _ in range(2))
    assert once == pytest.approx(again, rel=1e-3)
    assert once > 10 * 32 * 32 * 28 * 28 / 16  # no processor does more than 16 of these in one instruction
    more = instructions.measure(chained(tmp_path / "more.onnx", 11)).values["instructions_count"]
    assert 1.05 < more / once < 1.15


def test_a_process_that_nobody_watches_gives_no_count(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/env")
    reading = instructions.measure(chained(tmp_path / "base.onnx", 1))
    assert reading.values == {}
    assert reading.missing
