"""Histograms do not depend on order or batches, and each method of choosing a range does what its source says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.optimize.calibration.histogram import HALF, Histogram, sampled
from edgesmith.optimize.calibration.statistics import Stats
from edgesmith.optimize.quantize import range_estimators
from edgesmith.optimize.quantize.quant_params import KINDS, quant_params
from edgesmith.optimize.quantize.range_estimators import METHODS, candidates, check_method, choose, divergence, error
from edgesmith.runtime.errors import UsageError


def counted(values: np.ndarray, batch: int = 64) -> Stats:
    stats = Stats()
    for at in range(0, len(values), batch):
        stats.add("x", values[at : at + batch])
        stats.count_values(values[at : at + batch])
    return stats


def tails(count=512, seed=0):
    """Even values between -1 and 1, and one far outlier: most of the range is empty."""
    values = np.random.default_rng(seed).uniform(-1, 1, (count, 4, 32, 32)).astype(np.float32)
    values[count // 2, 0, 0, 0] = 8
    return values


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(-30, 30))
def test_a_histogram_does_not_depend_on_order_or_batches(seed, pieces, size):
    draw = np.random.default_rng(seed)
    values = (draw.standard_normal(500) * 2.0**size).astype(np.float32)
    whole, other = Histogram(), Histogram()
    whole.add(values)
    for part in np.array_split(draw.permutation(values), pieces):
        other.add(part)
    assert other.exponent == whole.exponent
    assert np.array_equal(other.counts, whole.counts)
    assert whole.counts.sum() == 500
    edges = np.arange(-HALF, HALF + 1) * whole.width
    assert np.array_equal(whole.counts, np.histogram(values.astype(np.float64), edges)[0])


def test_a_quantile_is_within_a_bin_of_the_true_one():
    values = np.random.default_rng(0).gamma(2, size=100_000)
    seen = Histogram()
    seen.add(values)
    for share in (0.01, 0.5, 0.9, 0.9999):
        assert abs(seen.quantile(share) - np.quantile(values, share)) <= 2 * seen.width


def test_what_is_sampled_of_an_image_does_not_depend_on_its_batch():
    values = np.random.default_rng(0).standard_normal((6, 8, 40, 40)).astype(np.float32)
    together = sampled(values)
    assert 2000 < together.shape[1] <= 4096
    assert np.array_equal(together, np.concatenate([sampled(values[at : at + 2]) for at in (0, 2, 4)]))


def test_the_statistics_do_not_depend_on_batches():
    one, two = (counted(tails(), batch) for batch in (64, 7))
    assert (one.low, one.high, one.average) == (two.low, two.high, two.average)
    assert np.array_equal(one.histogram.counts, two.histogram.counts)


def test_moving_average_follows_its_formula():
    values = tails()
    low, high = values[0].min(), values[0].max()
    for image in values[1:]:
        low, high = 0.99 * low + 0.01 * image.min(), 0.99 * high + 0.01 * image.max()
    assert counted(values).average == pytest.approx((low, high), rel=1e-5)


def test_percentile_leaves_out_one_in_ten_thousand():
    values = np.random.default_rng(1).exponential(size=(64, 4, 32, 32)).astype(np.float32)
    low, high = candidates(counted(values), "u8")["percentile"]
    assert low <= np.quantile(values, 1e-4) + 0.01
    assert high == pytest.approx(np.quantile(values, 0.9999), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["percentile", "entropy", "mse"])
def test_outliers_are_clipped(method, kind):
    stats = counted(tails())
    low, high = choose(stats, method, kind)
    assert stats.low <= low < 0 < high < 0.7 * stats.high
    assert choose(stats, "min-max", kind) == (stats.low, stats.high)


def test_mse_is_the_least_of_a_fine_search():
    values, stats = tails(), counted(tails())
    measured = {
        high: np.square(quant_params(stats.low, high, "u8").rounded(values) - values).mean()
        for high in np.linspace(0.5, 8, 60)
    }
    low, high = choose(stats, "mse", "u8")
    found = np.square(quant_params(low, high, "u8").rounded(values) - values).mean()
    assert found <= 1.1 * min(measured.values())
    assert found < 0.5 * measured[8.0]


@pytest.mark.parametrize("kind", KINDS)
def test_auto_is_no_worse_than_any_method(kind):
    for values in (tails(), np.abs(tails(seed=3)), tails().clip(-1, 1)):
        stats = counted(values)
        errors = {
            name: error(stats.histogram, quant_params(*choose(stats, name, kind), kind)) for name in (*METHODS, "auto")
        }
        assert errors["auto"] == min(errors.values())


def test_the_error_of_a_histogram_is_that_of_its_values():
    values = tails()
    stats, at = counted(values), quant_params(-3, 4, "u8")
    assert error(stats.histogram, at) == pytest.approx(np.square(at.rounded(values) - values).mean(), rel=0.1)


def test_divergence_is_nothing_where_each_bin_is_a_level_and_grows_where_much_is_cut():
    stats = counted(np.linspace(0, 0.99, 64 * 1024, dtype=np.float32).reshape(64, 1, 32, 32))
    whole, cut = (divergence(stats.histogram, (0.0, high)) for high in (0.99, 0.3))
    assert whole < 0.01
    assert cut > 10 * whole


def test_zeros_alone_have_a_range():
    stats = counted(np.zeros((4, 2, 8, 8), np.float32))
    for method in (*METHODS, "auto"):
        at = quant_params(*choose(stats, method, "u8"), "u8")
        assert np.array_equal(at.rounded(np.zeros(3)), np.zeros(3))


def test_an_unknown_method_gets_a_suggestion():
    with pytest.raises(UsageError, match="unknown range method 'minmax'.*did you mean 'min-max'"):
        check_method("minmax")
    assert [check_method(name) for name in ("auto", *METHODS)] == ["auto", *METHODS]


@pytest.mark.parametrize("method", METHODS)
def test_one_method_is_computed_alone_and_gives_what_it_gives_among_all(method, monkeypatch):
    stats = counted(tails())
    each = candidates(stats, "u8")
    assert set(each) == set(METHODS)
    ran = []
    monkeypatch.setattr(range_estimators, "divergence", lambda *ends: ran.append("entropy") or divergence(*ends))
    monkeypatch.setattr(range_estimators, "error", lambda *ends: ran.append("mse") or error(*ends))
    assert choose(stats, method, "u8") == each[method]
    assert set(ran) == {method} & {"entropy", "mse"}
