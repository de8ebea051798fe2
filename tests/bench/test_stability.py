"""Warm-up and verdicts on made-up time series whose answer is known."""

import os
import subprocess
import sys

import numpy as np
import pytest

from edgesmith.bench.measure import clock, stability

RNG = np.random.default_rng(0)
STEADY = 1 + RNG.exponential(0.01, 200)
SERIES = {
    "steady": (STEADY, True),
    "too short": (STEADY[:19], False),
    "still falling": (np.linspace(2, 1, 40), False),
    "a step": (np.r_[STEADY[:10] + 1, STEADY[:10]], False),
    "settled after a step": (np.r_[STEADY[:10] + 1, STEADY[:20]], True),
}


@pytest.mark.parametrize("case", SERIES)
def test_stationary(case):
    series, expected = SERIES[case]
    assert stability.stationary(list(series)) is expected


def groups(level=(1.0, 1.0, 1.0), size=400, spread=0.01, drift=0.0):
    rng = np.random.default_rng(7)
    return [one * (1 + rng.exponential(spread, size)) * np.linspace(1, 1 + drift, size) for one in level]


VERDICTS = {
    "trusted": (groups(), [True] * 3, 0.0, ""),
    "cold": (groups(), [True, False, True], 0.0, "1 of 3 processes never reached a stable latency"),
    "noisy": (groups(spread=0.2), [True] * 3, 0.0, "samples spread by"),
    "drifting": (groups(drift=0.1), [True] * 3, 0.0, "latency drifts by +5%"),
    "disagreeing": (groups(level=(1.0, 1.2, 1.0)), [True] * 3, 0.0, "processes differ by 2"),
    "few": (groups(size=50), [True] * 3, 0.0, "150 samples are too few for p99"),
    "interrupted": (groups(), [True] * 3, 0.0, "other processes interrupted 17% of the samples"),
    "loaded": (groups(), [True] * 3, 1.4, "other processes kept 1.4 of 2 cores busy"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdict(case):
    samples, warm, load, expected = VERDICTS[case]
    verdict = stability.judge_samples(samples, warm, load, cores=2, disturbed=200 if case == "interrupted" else 3)
    assert verdict.stable is (expected == "")
    assert [text for text in verdict.problems if not text.startswith(expected)] == []
    assert all("; do: " in text for text in verdict.problems)


class VirtualTime:
    """A clock that only the measured call moves: the n-th call takes `seconds(n)`, whatever else the machine does."""

    def __init__(self, monkeypatch, seconds):
        self.ns, self.calls, self.seconds = 0, 0, seconds
        monkeypatch.setattr(clock, "now_ns", lambda: self.ns)

    def __call__(self):
        self.calls += 1
        self.ns += round(self.seconds(self.calls) * 1e9)


def test_warm_up_waits_for_a_slow_start(monkeypatch):
    call = VirtualTime(monkeypatch, lambda n: 0.003 + 0.01 * 0.9**n)
    count, ready = stability.warm_up(call, most_s=5)
    assert ready
    assert count == call.calls
    assert 0.01 * 0.9 ** (count - 20) < 0.01


def test_warm_up_gives_up_in_time(monkeypatch):
    call = VirtualTime(monkeypatch, lambda n: 0.001 * n)
    assert stability.warm_up(call, most_s=2)[1] is False
    assert 2 <= call.ns * 1e-9 < 2.1


def test_short_calls_are_batched_and_long_ones_are_not():
    assert clock.batch_size(lambda: None) * clock.once(lambda: None, 10_000) > 1e-4
    stop = lambda: [i for i in range(30_000)]  # noqa: E731, C416
    assert clock.batch_size(stop) <= 4


def test_a_preemption_is_seen():
    """Two spinning processes on one core must take it from each other."""
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(1, flush=True)\nwhile True: pass"
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        other.stdout.readline()
        seen = any(any(clock.sample(lambda: sum(range(100_000)), 0.5)[1]) for _ in range(40))
    finally:
        os.sched_setaffinity(0, before)
        other.kill()
        other.wait()
        other.stdout.close()
    assert seen


def test_sample_counts_and_lasts():
    start = clock.now_ns()
    samples, disturbed = clock.sample(lambda: None, 0.02, batch=100, least=5)
    assert clock.now_ns() - start >= 20_000_000
    assert len(disturbed) == len(samples)
    assert len(samples) >= 5
    assert len(clock.sample(lambda: None, 0.0, least=7)[0]) == 7
    assert 0 < clock.overhead_ns() < 100_000
