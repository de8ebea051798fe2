"""The measuring process: real children on real work, and each way in which one goes wrong."""

import pytest

from edgesmith.bench.measure import interleave, rss_sampler
from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.process import Process, fixed_layout
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.bench.metrics import cold_cache, cold_start, latency, memory, size
from edgesmith.bench.result import Subject
from edgesmith.runtime.errors import DataError, EdgesmithError, RunError, UsageError
from support.patience import PATIENCE_S

SPIN = """
import time

def setup():
    def call():
        stop = time.perf_counter_ns() + {us} * 1000
        while time.perf_counter_ns() < stop:
            pass
    return call
"""
BAD = {
    "no such file": (None, UsageError, "no such file"),
    "no setup": ("x = 1", DataError, "setup = None"),
    "setup gives no call": ("def setup():\n    return 3", DataError, "call = 3"),
    "an error while opening": ("1 / 0", RunError, "ZeroDivisionError"),
    "an error in the first call": ("def setup():\n    return lambda: [][0]", RunError, "IndexError"),
    "death": ("import os\nos._exit(7)", RunError, "died at 'open'; got exit code 7"),
    "a crash of native code": ("import os\nos.abort()", RunError, "died at 'open'; got signal 6"),
    "silence": ("import time\ntime.sleep(60)", RunError, "no answer to 'open' in 1 s"),
}


def work(tmp_path, text, name="work.py"):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    return BenchTarget(str(path), backend="python")


@pytest.mark.parametrize("case", BAD)
def test_what_goes_wrong_is_an_error(case, tmp_path):
    text, kind, message = BAD[case]
    with pytest.raises(EdgesmithError) as caught:
        Process(work(tmp_path, text), timeout_s=1 if case == "silence" else PATIENCE_S)
    assert type(caught.value) is kind
    assert message in str(caught.value)


def test_what_the_work_prints_does_not_break_an_answer(tmp_path):
    text = 'import os\ndef setup():\n    os.write(1, b"noise\\n")\n    return lambda: print("{}")'
    with Process(work(tmp_path, text)) as process:
        assert len(process.ask("run", seconds=0.0, least=3)["samples"]) == 3


def test_several_targets_are_measured_and_one_that_fails_fails_alone(tmp_path):
    targets = [
        work(tmp_path, SPIN.format(us=1000), "one.py"),
        work(tmp_path, SPIN.format(us=2000), "two.py"),
        work(tmp_path, "1 / 0", "bad.py"),
    ]
    plan = interleave.SamplingPlan(processes=2, slice_s=0.02, least_s=0.05, least=20, warm_up_s=0.3)
    steps = []
    one, two, bad = interleave.collect_samples(targets, plan, progress=steps.append)
    assert "ZeroDivisionError" in bad.failure
    assert bad.samples == []
    assert sum(steps) == 6
    for timings, seconds in ((one, 0.001), (two, 0.002)):
        assert timings.failure == ""
        assert [len(group) >= 15 for group in timings.samples] == [True, True]
        assert seconds <= min(map(min, timings.samples)) < seconds * 1.2
    check_metrics(tmp_path, one, bad)


def check_metrics(tmp_path, timings, failed):
    target = BenchTarget(str(tmp_path / "one.py"), backend="python")
    context = MetricContext(Subject("one", "one.py"), target, target.path, timings)
    read = latency.measure(context)
    assert 0.001 <= read.values["min_s"] <= read.values["p50_s"] <= read.values["p99_s"]
    assert read.values["throughput_per_s"] == pytest.approx(1 / read.values["mean_s"])
    low, high = read.intervals["p50_s"]
    assert low <= read.values["p50_s"] <= high
    start = cold_start.measure(context).values
    assert start["total_s"] > start["interpreter_s"] > 0
    broken = MetricContext(Subject("bad", "bad.py"), target, target.path, failed)
    assert "ZeroDivisionError" in latency.measure(broken).missing
    assert "ZeroDivisionError" in cold_start.measure(broken).missing


HOLD = "def setup():\n    kept = bytearray({mb} << 20)\n    return lambda: len(kept)"


def test_memory_repeats_and_sees_eight_megabytes(tmp_path):
    if not fixed_layout():
        pytest.skip("setarch -R is not allowed here, so a process's peak does not repeat")
    base = [peak(tmp_path, 8), peak(tmp_path, 8)]
    more = peak(tmp_path, 16)
    assert abs(base[0] - base[1]) <= 256 * 1024
    assert more - base[0] == pytest.approx(8 << 20, abs=512 * 1024)


def peak(tmp_path, megabytes):
    target = work(tmp_path, HOLD.format(mb=megabytes))
    reading = memory.measure(MetricContext(Subject("hold", "work.py"), target, target.path))
    return reading.values["peak_bytes"]


GROWS = """
import pathlib, time

def setup():
    def call():
        if not kept:
            wait_for_a_sample("before")
            kept.append(bytearray(32 << 20))
            wait_for_a_sample("after")
    kept = []
    return call

def wait_for_a_sample(when):
    mark = pathlib.Path(__file__).parent / when
    mark.touch()
    while mark.exists():
        time.sleep(0.001)
"""


def test_memory_over_time_shows_when_it_was_taken(tmp_path, monkeypatch):
    real, seen = rss_sampler.Watch._sample, {}

    def sample(watch, *arguments):
        marks = [mark for mark in (tmp_path / "before", tmp_path / "after") if mark.exists()]
        more = real(watch, *arguments)
        for mark in marks:
            seen[mark.name] = watch.samples[-1][1]
            mark.unlink()
        return more

    monkeypatch.setattr(rss_sampler.Watch, "_sample", sample)
    target = work(tmp_path, GROWS)
    reading = memory.measure(MetricContext(Subject("grows", "work.py"), target, target.path))
    assert reading.values["arena_bytes"] == pytest.approx(32 << 20, abs=2 << 20)
    rows = {row["stage"]: row["resident_bytes"] for row in reading.rows}
    assert {"interpreter", "first_call"} <= set(rows)
    assert seen["after"] - seen["before"] == pytest.approx(32 << 20, abs=4 << 20)
    assert max(row["resident_bytes"] for row in reading.rows if row["stage"] == "first_call") >= seen["after"]
    assert [row["seconds"] for row in reading.rows] == sorted(row["seconds"] for row in reading.rows)
    assert max(row["resident_bytes"] for row in reading.rows) <= reading.values["peak_bytes"] + (1 << 20)


def test_memory_is_attributed_without_a_rest():
    rss = {"interpreter_bytes": 30, "import_bytes": 50, "load_bytes": 95, "first_call_bytes": 115}
    parts = memory.attribution(rss, 40, 130)
    assert parts["weights_bytes"] == 40
    assert parts["session_bytes"] == 5
    names = ("interpreter", "import", "weights", "session", "arena", "transient")
    assert sum(parts[f"{name}_bytes"] for name in names) == 130


COLD = """
import numpy as np

def setup():
    table = np.zeros({kb} * 128)
    return lambda: float(table.sum())
"""


def test_cold_caches_cost_time(tmp_path, monkeypatch):
    """A megabyte lies in a cache from call to call; once evicted, every call reads it from further away."""
    target = work(tmp_path, COLD.format(kb=1024))
    context = MetricContext(Subject("cold", "work.py"), target, target.path)
    monkeypatch.setattr(cold_cache, "SECONDS", 0.2)
    with Process(target) as process:
        warm = process.ask("run", seconds=0.2, least=20)["samples"]
    found = cold_cache.measure(context)
    assert found.values["p50_s"] > min(warm)
    assert found.values["p90_s"] >= found.values["p50_s"]
    assert len(found.samples[0]) >= cold_cache.LEAST


def test_the_largest_cache_is_found(tmp_path):
    for index, text in enumerate(("32K", "512K", "16M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(text + "\n")
    assert cold_cache.last_level(tmp_path) == 16 << 20
    assert 2 * cold_cache.last_level(tmp_path / "none") == cold_cache.FALLBACK_BYTES


def test_size_counts_external_data(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"x" * 10)
    (tmp_path / "net.onnx.data").write_bytes(b"x" * 90)
    context = MetricContext(Subject("net", "net.onnx"), BenchTarget(str(path)), str(path))
    assert size.measure(context).values == {"file_bytes": 100.0}
    path.unlink()
    assert size.measure(context).missing == "net.onnx is not a file"
