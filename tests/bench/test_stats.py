"""The statistics against known distributions and published tables, each with a wrong answer that it tells apart."""

import math

import numpy as np
import pytest

from edgesmith.bench import stats

# Student's t, two-sided 95 % and one-sided 99.5 %: any printed table.
T_TABLE = [(0.975, 1, 12.7062), (0.975, 5, 2.5706), (0.995, 10, 3.1693), (0.975, 100, 1.9840), (0.9, 2, 1.8856)]


@pytest.mark.parametrize(("probability", "degrees", "value"), T_TABLE)
def test_t_quantile_is_the_table(probability, degrees, value):
    assert stats.t_quantile(probability, degrees) == pytest.approx(value, abs=5e-5)
    assert stats.t_quantile(1 - probability, degrees) == pytest.approx(-value, abs=5e-5)
    assert stats.t_cdf(value, degrees) == pytest.approx(probability, abs=1e-5)


def coverage(interval_of, truth, repeats):
    hits = 0
    for seed in range(repeats):
        interval = interval_of(np.random.default_rng(seed), seed)
        hits += interval.low <= truth <= interval.high
    return hits / repeats


def processes(rng, count, size, level=1.0, between=0.02, within=0.05):
    """Latency-like groups: each process has its own level, each sample a one-sided tail."""
    levels = level * np.exp(rng.normal(0, between, count))
    return [one * (1 + rng.exponential(within, size)) for one in levels]


def test_t_interval_holds_its_level_for_few_values():
    held = coverage(lambda rng, _: stats.mean_interval(rng.normal(5, 1, 4), 0.95), 5.0, 600)
    assert 0.92 <= held <= 0.98


def test_a_normal_interval_would_not_hold_for_few_values():
    def too_narrow(rng, _):
        values = rng.normal(5, 1, 4)
        reach = 1.96 * values.std(ddof=1) / 2
        return stats.Interval(0, values.mean() - reach, values.mean() + reach)

    assert coverage(too_narrow, 5.0, 600) < 0.92


def test_hierarchical_bootstrap_covers_and_a_flat_one_does_not():
    truth = 1 + 0.05 * math.log(2)  # the median of 1 + Exp(0.05)
    rows = lambda rng: processes(rng, 10, 40)  # noqa: E731
    deep = coverage(lambda rng, seed: stats.bootstrap(rows(rng), seed=seed, repeats=200), truth, 120)
    flat = coverage(lambda rng, seed: stats.bootstrap([np.concatenate(rows(rng))], seed=seed, repeats=200), truth, 120)
    assert deep >= 0.85
    assert flat <= 0.6


def test_ratio_interval_covers_the_true_slowdown():
    def one(rng, seed):
        return stats.ratio(processes(rng, 10, 30), processes(rng, 10, 30, level=1.05), seed=seed, repeats=200)

    assert coverage(one, 1.05, 120) >= 0.85
    assert coverage(one, 1.15, 120) <= 0.05


def test_percentiles_of_a_known_sample():
    values = list(range(101))
    assert [stats.percentile(values, q) for q in (0, 50, 90, 99, 100)] == [0, 50, 90, 99, 100]
    assert stats.trusted_percentile(1000) == pytest.approx(99)
    assert stats.trusted_percentile(100) == pytest.approx(90)
    assert stats.trusted_percentile(0) == 0


def exact_mann_whitney(base, new):
    """All ways to deal the values into two hands: the definition of the p-value, by enumeration."""
    from itertools import combinations

    every = np.concatenate([base, new])
    u = lambda one, two: sum((a > b) + 0.5 * (a == b) for a in one for b in two)  # noqa: E731
    centre = len(base) * len(new) / 2
    seen = abs(u(base, new) - centre)
    hands = list(combinations(range(len(every)), len(base)))
    far = sum(abs(u(every[list(hand)], np.delete(every, list(hand))) - centre) >= seen - 1e-9 for hand in hands)
    return far / len(hands)


@pytest.mark.parametrize("shift", [0.0, 0.7, 1.5])
def test_mann_whitney_is_near_the_exact_test(shift):
    rng = np.random.default_rng(3)
    base, new = rng.normal(0, 1, 6), rng.normal(shift, 1, 6)
    assert stats.mann_whitney(base, new) == pytest.approx(exact_mann_whitney(base, new), abs=0.03)


def test_mann_whitney_alarms_as_often_as_it_says():
    rng = np.random.default_rng(0)
    alarms = sum(stats.mann_whitney(rng.normal(0, 1, 20), rng.normal(0, 1, 20)) < 0.05 for _ in range(1000))
    assert 30 <= alarms <= 70
    assert stats.mann_whitney([1.0] * 10, [1.0] * 10) == 1.0


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (357, 360), (5, 10)])
def test_wilson_bounds_solve_its_equation(hits, count):
    low, high = stats.wilson(hits, count)
    for bound in {low, high} - {0.0, 1.0}:
        z = abs(hits / count - bound) / math.sqrt(bound * (1 - bound) / count)
        assert z == pytest.approx(1.959964, abs=1e-4)
    assert 0 <= low <= hits / count <= high <= 1


def test_mad_is_the_standard_deviation_of_a_normal_sample_and_ignores_outliers():
    values = np.random.default_rng(1).normal(10, 2, 20_000)
    values[:200] = 1e6
    assert stats.mad(values) == pytest.approx(2, rel=0.05)
