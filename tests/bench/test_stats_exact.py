"""The statistics to the last digit: small cases whose answer follows from the definition alone."""

import math
from itertools import combinations
from statistics import NormalDist

import numpy as np
import pytest

from edgesmith.bench import stats
from edgesmith.bench.stats import Interval


def test_half_width_is_relative_to_the_estimate():
    assert Interval(4.0, 3.0, 6.0).half_width == pytest.approx(0.375)
    assert Interval(0.0, -1.0, 1.0).half_width == math.inf


@pytest.mark.parametrize(("count", "percent"), [(0, 0), (1, 0), (5, 0), (10, 0), (11, 100 / 11), (200, 95)])
def test_ten_samples_lie_above_a_percentile_that_can_be_told(count, percent):
    assert stats.trusted_percentile(count) == pytest.approx(percent)


@pytest.mark.parametrize("chunk", [1, 40, 1 << 20])
def test_resamples_are_as_many_as_asked_for_however_they_are_cut(monkeypatch, chunk):
    """A process of two samples weighs as much as one of two hundred, and nothing is drawn that was not measured."""
    monkeypatch.setattr(stats, "CHUNK", chunk)
    groups = [[1.0] * 2, [3.0] * 200]
    chunks = list(stats.resamples(groups, np.random.default_rng(0), 2000))
    assert sum(map(len, chunks)) == 2000
    assert all(chunk.shape[1] == 2 * 101 for chunk in chunks)
    assert len(chunks) == {1: 2000, 40: 2000, 1 << 20: 1}[chunk]
    rows = np.concatenate(chunks)
    assert set(np.unique(rows)) == {1.0, 3.0}
    assert rows.mean() == pytest.approx(2.0, abs=0.05)
    assert set(np.unique(rows.mean(axis=1))) == {1.0, 2.0, 3.0}  # no, one or both of two processes


def test_each_sample_of_a_process_is_drawn_as_often():
    rows = np.concatenate(list(stats.resamples([[0.0, 1.0, 2.0, 3.0]], np.random.default_rng(0), 4000)))
    assert np.bincount(rows.astype(int).ravel()) == pytest.approx([4000] * 4, rel=0.06)


def test_a_statistic_may_have_several_rows(monkeypatch):
    monkeypatch.setattr(stats, "CHUNK", 12)
    groups = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    found = stats.draws(groups, lambda rows: np.stack([rows.min(1), rows.max(1)]), np.random.default_rng(0), 7)
    assert found.shape == (2, 7)
    assert (found[0] <= found[1]).all()


def test_the_bounds_are_percentiles_of_the_draws():
    rng = np.random.default_rng(0)
    groups = [rng.normal(10, 1, 20).tolist() for _ in range(5)]
    interval = stats.bootstrap(groups, level=0.9, seed=3, repeats=500)
    drawn = stats.draws(groups, stats.median, np.random.default_rng(3), 500)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(drawn, [5, 95])))
    assert interval.estimate == pytest.approx(np.median(np.concatenate(groups)))
    assert interval.level == 0.9
    assert stats.bootstrap(groups, seed=3) == stats.bootstrap(groups, stats.median, level=0.95, seed=3, repeats=2000)


def test_the_ratio_is_new_over_base():
    interval = stats.ratio([[2.0] * 3] * 4, [[3.0] * 5] * 2, level=0.8)
    assert (interval.estimate, interval.low, interval.high, interval.level) == (1.5, 1.5, 1.5, 0.8)


def test_the_bounds_of_a_ratio_are_percentiles_of_independent_draws():
    rng = np.random.default_rng(0)
    base, new = ([rng.normal(10, 1, 20).tolist() for _ in range(5)] for _ in range(2))
    interval = stats.ratio(base, new, level=0.9, seed=3, repeats=500)
    again = np.random.default_rng(3)
    above, below = (stats.draws(groups, stats.median, again, 500) for groups in (new, base))
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(above / below, [5, 95])))


def test_the_mean_of_two_values_has_the_interval_of_the_table():
    interval = stats.mean_interval([1.0, 3.0])
    assert (interval.estimate, interval.level) == (2.0, 0.95)
    assert (interval.low, interval.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-4)
    assert stats.mean_interval([7.0], 0.9) == Interval(7.0, -math.inf, math.inf, 0.9)


# A printed table near the middle, the median itself, and Cauchy's distribution far out: tan(pi (p - 1/2)).
T_VALUES = [(0.6, 10, 0.2602), (0.75, 4, 0.7407), (0.5, 3, 0.0), (0.999999, 1, math.tan(math.pi * 0.499999))]


@pytest.mark.parametrize(("probability", "degrees", "value"), T_VALUES)
def test_t_quantile_near_the_middle_and_far_out(probability, degrees, value):
    assert stats.t_quantile(probability, degrees) == pytest.approx(value, rel=1e-6, abs=5e-5)


def test_t_quantile_of_certainty_ends():
    assert 1e9 < stats.t_quantile(1.0, 1) < 1e13


@pytest.mark.parametrize("degrees", [1, 2, 7.5, 60])
def test_t_cdf_is_a_half_in_the_middle_and_even(degrees):
    assert stats.t_cdf(0.0, degrees) == pytest.approx(0.5)
    assert stats.t_cdf(1.3, degrees) + stats.t_cdf(-1.3, degrees) == pytest.approx(1)
    assert stats.t_cdf(1.0, 1) == pytest.approx(0.75, abs=1e-12)  # Cauchy's
    assert stats.t_cdf(1.0, 2) == pytest.approx(0.5 + 1 / math.sqrt(12), abs=1e-12)


def moments_of_u(base, new):
    """Mean and variance of U over all ways to deal the values into two hands: ties need no formula here."""
    every = [*base, *new]

    def u(hand):
        one = [every[at] for at in hand]
        two = [value for at, value in enumerate(every) if at not in hand]
        return sum((a > b) + 0.5 * (a == b) for a in one for b in two)

    dealt = [u(set(hand)) for hand in combinations(range(len(every)), len(base))]
    return u(set(range(len(base)))), float(np.mean(dealt)), float(np.std(dealt))


@pytest.mark.parametrize(
    ("base", "new"),
    [
        ([1, 2, 3, 4], [5, 6, 7, 8, 9]),
        ([1, 2, 2, 5], [2, 3, 5, 5, 7, 8]),
        ([3, 3, 9], [1, 3, 3, 9, 10]),
        ([1, 4], [2, 3]),
    ],
)
def test_mann_whitney_is_its_normal_approximation(base, new):
    seen, mean, spread = moments_of_u(base, new)
    expected = 2 * NormalDist().cdf(-max(0.0, abs(seen - mean) - 0.5) / spread)
    assert stats.mann_whitney(base, new) == pytest.approx(expected, rel=1e-9)
    assert stats.mann_whitney(new, base) == pytest.approx(expected, rel=1e-9)


def test_mad_of_five_values():
    assert stats.mad([1.0, 2.0, 3.0, 5.0, 100.0]) == pytest.approx(1.4826 * 2)


@pytest.mark.parametrize("level", [0.5, 0.99])
def test_wilson_keeps_its_level(level):
    low, high = stats.wilson(3, 10, level)
    for bound in (low, high):
        z = abs(0.3 - bound) / math.sqrt(bound * (1 - bound) / 10)
        assert NormalDist().cdf(z) == pytest.approx(0.5 + level / 2)
    assert (stats.wilson(0, 10)[0], stats.wilson(10, 10)[1]) == (0.0, 1.0)


def test_small_floats_are_computed_in_double():
    values = np.array([0.1, 0.2, 0.7, 0.4], np.float16)
    same = values.tolist()
    assert stats.percentile(values, 33.3) == stats.percentile(same, 33.3)
    assert stats.mad(values) == stats.mad(same)
    assert stats.mean_interval(values) == stats.mean_interval(same)
    assert stats.bootstrap([values, values]).estimate == stats.bootstrap([same, same]).estimate
