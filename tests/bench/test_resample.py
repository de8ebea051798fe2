"""Simulated gates against the gate itself on the same numbers, and against pools whose answer is known."""

import itertools
import math

import numpy as np
import pytest
from experiments import gate_simulation

from edgesmith.bench.gate import gate
from edgesmith.bench.gate.gate import LatencyPair, Rule

NAMES = {
    gate_simulation.SLOWER: "slower",
    gate_simulation.SAME: "same",
    gate_simulation.FASTER: "faster",
    gate_simulation.OPEN: "cannot tell",
}


def pair(log_ratio):
    return LatencyPair(((1.0,),), ((math.exp(log_ratio),),))


@pytest.mark.parametrize("spread", [0.002, 0.01, 0.04])
@pytest.mark.parametrize("change", [-0.04, 0.0, 0.02, 0.03])
def test_it_judges_as_the_gate_does(spread, change):
    draws = np.random.default_rng(7).normal(change, spread, (40, 24))
    answers, used = gate_simulation.judge(draws, Rule())
    for row, answer, count in zip(draws, answers, used, strict=True):
        pairs = [pair(value) for value in row]
        looks = ((gate.gate_answer(pairs[:n], Rule()), n) for n in range(4, 25))
        told = next((look for look in looks if look[0] != "cannot tell"), ("cannot tell", 24))
        assert (NAMES[int(answer)], int(count)) == told


def test_a_steady_pool_neither_alarms_nor_misses():
    logs = np.random.default_rng(0).normal(0, 0.004, 60)
    calm, slow = (gate_simulation.simulate(logs, slowdown, Rule(), pools=20, gates=200) for slowdown in (0.0, 0.05))
    assert calm.high <= 0.01
    assert slow.low >= 0.99
    assert calm.pool == 60


def test_a_gate_that_looked_at_a_plain_threshold_would_alarm_and_it_shows(monkeypatch):
    """With an interval of no width each look trusts the mean alone: noise of 3 % must then alarm often."""
    monkeypatch.setattr(gate_simulation.stats, "t_quantile", lambda probability, degrees: 0.0)
    logs = np.random.default_rng(0).normal(0, 0.1, 60)
    assert gate_simulation.simulate(logs, 0.0, Rule(), pools=5, gates=200).low > 0.05


def test_a_wild_pair_does_not_alarm():
    logs = [*np.random.default_rng(0).normal(0, 0.004, 47), 0.6]
    assert gate_simulation.simulate(logs, 0.0, Rule(), pools=20, gates=500).high <= 0.01


def test_a_lopsided_pool_is_made_even():
    """All pairs 2 % slower on one side is what a fault of the recording looks like: the coin takes it away."""
    found = gate_simulation.simulate([0.02] * 30, 0.0, Rule(), pools=5, gates=200)
    assert found.alarms < 0.2


def test_pairs_that_hang_together_show():
    rng = np.random.default_rng(0)
    free = rng.normal(0, 1, 400)
    drifting = list(itertools.accumulate(free))
    assert abs(gate_simulation.autocorrelation(free)) < 0.15
    assert gate_simulation.autocorrelation(drifting) > 0.8
