"""Processes that are compared run on one core, and only where each uses one thread."""

import os

import numpy as np
import pytest

from edgesmith.bench.gate import gate
from edgesmith.bench.measure import cpu_affinity, interleave
from edgesmith.bench.measure.process import Process
from edgesmith.bench.measure.workload import BenchTarget

RNG = np.random.default_rng(0)
WHERE = """
import os
def setup():
    return lambda: None
"""


@pytest.fixture
def two_cores(monkeypatch):
    """Two cores in name, so that this runs on a machine with one; the first did more."""
    ticks = iter([{0: 100, 1: 100}, {0: 109, 1: 101}])
    monkeypatch.setattr(cpu_affinity, "busy_ticks_by_core", lambda cores: next(ticks))
    monkeypatch.setattr(cpu_affinity, "WATCH_S", 0.0)


def test_the_idler_core_is_shared(two_cores):
    assert cpu_affinity.shared_core([BenchTarget("a.onnx"), BenchTarget("b.onnx")], RNG) == 1


@pytest.mark.parametrize(
    "target",
    [BenchTarget("a.onnx", threads=2), BenchTarget("a.onnx", threads=0), BenchTarget("work.py")],
    ids=["two threads", "the backend chooses", "a Python file"],
)
def test_what_may_use_several_threads_is_not_pinned(target, two_cores):
    assert cpu_affinity.shared_core([BenchTarget("a.onnx"), target], RNG) is None


def test_one_core_is_no_choice(monkeypatch):
    monkeypatch.setattr(cpu_affinity, "busy_ticks_by_core", lambda cores: {0: 100})
    assert cpu_affinity.shared_core([BenchTarget("a.onnx")], RNG) is None


def test_ticks_grow_with_work():
    mine = os.sched_getaffinity(0)
    before = cpu_affinity.busy_ticks_by_core(mine)
    assert set(before) == mine
    end = sum(os.times()[:2]) + 0.2
    while sum(os.times()[:2]) < end:
        pass
    after = cpu_affinity.busy_ticks_by_core(mine)
    assert sum(after.values()) > sum(before.values())


def test_a_process_stays_on_its_core(tmp_path):
    path = tmp_path / "work.py"
    path.write_text(WHERE)
    core = max(os.sched_getaffinity(0))
    with Process(BenchTarget(str(path)), core=core) as process:
        assert os.sched_getaffinity(process.pid) == {core}
    with Process(BenchTarget(str(path)), core=4095) as process:
        assert os.sched_getaffinity(process.pid) == os.sched_getaffinity(0)


@pytest.mark.parametrize("measure", ["gate", "interleave"])
def test_all_that_is_compared_is_on_one_core(measure, tmp_path, monkeypatch):
    path, used = tmp_path / "work.py", []
    path.write_text(WHERE)
    core = min(os.sched_getaffinity(0))
    monkeypatch.setattr(gate, "shared_core", lambda targets, rng: core)
    monkeypatch.setattr(interleave, "shared_core", lambda targets, rng: core)

    class Watched(Process):
        def __init__(self, *words, **named):
            super().__init__(*words, **named)
            used.append(os.sched_getaffinity(self.pid))

    monkeypatch.setattr(gate, "Process", Watched)
    monkeypatch.setattr(interleave, "Process", Watched)
    if measure == "gate":
        gate.measure_pair(
            BenchTarget(str(path)), BenchTarget(str(path)), gate.Rule(blocks=1, slice_s=0.001, warm_up_s=0.05), RNG
        )
    else:
        plan = interleave.SamplingPlan(processes=1, slice_s=0.001, least_s=0.002, least=1, warm_up_s=0.05)
        interleave.collect_samples([BenchTarget(str(path)), BenchTarget(str(path))], plan)
    assert used == [{core}, {core}]
