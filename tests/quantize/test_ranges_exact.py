"""How a tensor's range is chosen, against sums written out value by value."""

import math

import numpy as np
import pytest

from edgesmith.optimize.calibration.histogram import Histogram
from edgesmith.optimize.calibration.statistics import Stats
from edgesmith.optimize.quantize import range_estimators
from edgesmith.optimize.quantize.quant_params import KINDS, quant_params
from edgesmith.optimize.quantize.range_estimators import candidates, check_method, choose, divergence, error
from edgesmith.runtime.errors import UsageError

DRAW = np.random.default_rng(0)
VALUES = {
    "normal": DRAW.normal(0, 1, (4, 1, 500)),
    "above zero": np.abs(DRAW.normal(0, 1, (4, 1, 500))),
    "below zero": -np.abs(DRAW.normal(0, 0.1, (4, 1, 500))),
    "with outliers": np.append(DRAW.uniform(-1, 2, (4, 1, 499)), [[[-9.0]], [[3.0]], [[7.0]], [[2.0]]], axis=2),
}


def seen(values):
    stats = Stats()
    stats.add("x", values)
    stats.count_values(values)
    return stats


def slow_divergence(counted, low, high):
    """What stands in the docstring, bin by bin."""
    width = counted.width
    inside = [at for at, middle in enumerate(counted.centres) if low - width <= middle <= high + width]
    if len(inside) < 2:
        return math.inf
    counts = counted.counts.tolist()
    kept = [counts[at] for at in inside]
    p = [float(count) for count in kept]
    p[0] += sum(counts[: inside[0]])
    p[-1] += sum(counts[inside[-1] + 1 :])
    levels = min(255, len(kept))
    level = [at * levels // len(kept) for at in range(len(kept))]
    total, used = [0.0] * levels, [0] * levels
    for at, count in zip(level, kept, strict=True):
        total[at] += count
        used[at] += count > 0
    q = [total[at] / used[at] if count else 0.0 for at, count in zip(level, kept, strict=True)]
    if not sum(q):
        return math.inf
    pairs = [(one / sum(p), max(two / sum(q), 1e-12)) for one, two in zip(p, q, strict=True) if one]
    return sum(one * math.log(one / two) for one, two in pairs)


@pytest.mark.parametrize("ends", [(-5.0, 5.0), (-1.0, 2.0), (0.0, 1.0), (-0.05, 0.0), (1.5, 1.6), (-2.5, 0.3)])
@pytest.mark.parametrize("case", VALUES)
def test_the_divergence_is_that_of_its_definition(case, ends):
    counted = seen(VALUES[case]).histogram
    assert divergence(counted, ends) == pytest.approx(slow_divergence(counted, *ends), rel=1e-9)


def test_a_range_with_one_bin_or_nothing_in_it_keeps_nothing():
    counted = Histogram()
    counted.add(np.array([0.9] * 8))
    width = counted.width
    assert divergence(counted, (-0.5, 0.5)) == math.inf
    assert divergence(counted, (0.9 + 2 * width, 0.9)) == math.inf
    at = float(counted.centres[counted.counts.argmax()])
    assert divergence(counted, (at + 0.4 * width, at - 0.6 * width)) == math.inf  # one bin
    assert divergence(counted, (at + 0.4 * width, at - 0.3 * width)) == math.inf
    assert divergence(counted, (at, at)) == pytest.approx(0)  # three: a bin on either side belongs to the range


def test_the_bins_just_beside_a_range_belong_to_it():
    counted = Histogram()
    width = 1 / 4096
    counted.add(np.repeat(np.array([0.5, 0.5 + width, 0.5 + 2 * width]) + width / 2, [5, 10, 30]))
    assert counted.width == width
    low, middle, high = (0.5 + (at + 0.5) * width for at in range(3))
    assert divergence(counted, (low, middle)) == pytest.approx(0)
    assert divergence(counted, (middle, high)) == pytest.approx(0)
    assert divergence(counted, (low, middle - width / 4)) > 0.1
    assert divergence(counted, (middle + width / 4, high)) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", VALUES)
def test_the_error_is_that_of_every_value_on_its_bin(case, kind):
    counted, at = seen(VALUES[case]).histogram, quant_params(-0.7, 1.1, kind)
    smallest, largest = KINDS[kind]
    total = 0.0
    for middle, count in zip(counted.centres.tolist(), counted.counts.tolist(), strict=True):
        integer = min(max(round(middle / at.scale) + at.zero, smallest), largest)
        total += count * ((integer - at.zero) * at.scale - middle) ** 2
    assert error(counted, at) == pytest.approx(total / 2000, rel=1e-9)


def test_nothing_has_no_error_and_one_range():
    empty = Stats(-1.0, 2.0, histogram=Histogram(), average=(-0.5, 0.5))
    assert error(empty.histogram, quant_params(-1, 1, "u8")) == 0
    assert candidates(empty, "u8") == candidates(Stats(-1.0, 2.0), "u8") == {"min-max": (-1.0, 2.0)}
    for method in ("mse", "auto", "min-max"):
        assert choose(Stats(-1.0, 2.0), method, "u8") == (-1.0, 2.0)


def shares(end):
    return [end * (1 - 0.02 * step) for step in range(41)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", VALUES)
@pytest.mark.parametrize("method", ["mse", "entropy"])
def test_both_searches_find_the_least_of_their_steps(case, kind, method):
    stats = seen(VALUES[case])
    counted, low, high = stats.histogram, min(stats.low, 0.0), max(stats.high, 0.0)

    def score(low, high):
        return error(counted, quant_params(low, high, kind)) if method == "mse" else divergence(counted, (low, high))

    if kind == "symmetric":
        tried = [(max(low, -limit), min(high, limit)) for limit in shares(max(-low, high))]
        expected = min(tried, key=lambda ends: score(*ends))
    else:
        high = min(shares(high), key=lambda end: score(low, end))
        expected = min(shares(low), key=lambda end: score(end, high)), high
    assert choose(stats, method, kind) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("case", VALUES)
def test_percentiles_are_those_of_the_values_and_lie_within_them(case, monkeypatch):
    monkeypatch.setattr(range_estimators, "PERCENTILE", 0.9)
    stats = seen(VALUES[case])
    low, high = choose(stats, "percentile", "u8")
    width = stats.histogram.width
    assert low == pytest.approx(np.quantile(VALUES[case], 0.1, method="inverted_cdf"), abs=2 * width)
    assert high == pytest.approx(np.quantile(VALUES[case], 0.9, method="inverted_cdf"), abs=2 * width)
    monkeypatch.setattr(range_estimators, "PERCENTILE", 1.0)
    assert choose(stats, "percentile", "u8") == (stats.low, stats.high)


def test_a_method_answers_with_its_own_range_and_auto_with_the_best():
    values = DRAW.uniform(-1, 1, (250, 1, 4000))
    values[3, 0, :2] = -1.2, 1.3
    stats = seen(values)
    found = candidates(stats, "u8")
    assert tuple(found) == range_estimators.METHODS
    assert found["min-max"] == (-1.2, 1.3)
    assert found["moving-average"] == stats.average
    assert all(choose(stats, method, "u8") == found[method] for method in range_estimators.METHODS)
    errors = {ends: error(stats.histogram, quant_params(*ends, "u8")) for ends in found.values()}
    assert choose(stats, "auto", "u8") == min(errors, key=errors.get) != found["min-max"]


def test_a_method_has_a_name():
    for name in ("auto", *range_estimators.METHODS):
        assert check_method(name) == name
    with pytest.raises(UsageError) as caught:
        check_method("mean")
    known = "auto, min-max, moving-average, percentile, entropy, mse"
    assert str(caught.value).startswith("unknown range method 'mean'; ")
    assert known in str(caught.value)
    with pytest.raises(UsageError, match="choose one of these"):
        check_method("zzzzzz")
    with pytest.raises(UsageError, match="'entropy'"):
        check_method("entropi")
