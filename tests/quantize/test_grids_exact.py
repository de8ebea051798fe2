"""Grids, histograms, scales of weights and their limits: small cases whose numbers follow from the definition alone."""

import itertools

import numpy as np
import pytest

from edgesmith.optimize.calibration.histogram import Histogram, sampled
from edgesmith.optimize.quantize.quant_params import QuantParams, quant_params
from edgesmith.optimize.quantize.weights.int16_saturation import largest_integers, raw_peaks
from edgesmith.optimize.quantize.weights.quantize_weights import (
    NARROWER,
    Quantised,
    bias_scales,
    mse_scale,
    quantise,
    scales,
    spread,
)

f32 = np.float32

# (low, high, kind) -> scale and zero point
GRIDS = {
    "symmetric, high farther": (-1.0, 2.54, "symmetric", 0.02, 0),
    "symmetric, low farther": (-0.127, 0.1, "symmetric", 0.001, 0),
    "symmetric, above zero": (0.5, 1.27, "symmetric", 0.01, 0),
    "symmetric, below zero": (-1.27, -0.5, "symmetric", 0.01, 0),
    "symmetric, nothing": (0.0, 0.0, "symmetric", 1.0, 0),
    "symmetric, hardly anything": (0.0, 1e-31, "symmetric", 1.0, 0),
    "symmetric, little": (0.0, 127e-29, "symmetric", 1e-29, 0),
    "u8 from zero": (0.0, 2.55, "u8", 0.01, 0),
    "u8 above zero": (0.5, 2.55, "u8", 0.01, 0),
    "u8 below zero": (-2.55, -0.5, "u8", 0.01, 255),
    "u8 on both sides": (-0.5, 2.05, "u8", 0.01, 50),
    "u8 of nothing": (0.0, 0.0, "u8", 1.0, 0),
    "u8 of little": (0.0, 255e-29, "u8", 1e-29, 0),
    "s8 from zero": (0.0, 25.5, "s8", 0.1, -128),
    "s8 below zero": (-25.5, 0.0, "s8", 0.1, 127),
    "s8 on both sides": (-5.0, 20.5, "s8", 0.1, -78),
    "s8 of nothing": (0.0, 0.0, "s8", 1.0, -128),
}


@pytest.mark.parametrize("case", GRIDS)
def test_a_grid_covers_its_ends_and_holds_zero(case):
    low, high, kind, scale, zero = GRIDS[case]
    made = quant_params(low, high, kind)
    assert made.scale == pytest.approx(scale, rel=1e-6, abs=0)
    assert (made.zero, made.kind) == (zero, kind)


@pytest.mark.parametrize(
    ("kind", "zero", "dtype", "low", "high"),
    [("u8", 3, np.uint8, -1.5, 126.0), ("s8", -3, np.int8, -62.5, 65.0), ("symmetric", 0, np.int8, -64.0, 63.5)],
)
def test_a_grid_knows_its_type_and_its_ends(kind, zero, dtype, low, high):
    made = QuantParams(0.5, zero, kind)
    assert (made.dtype, made.low, made.high) == (dtype, low, high)
    given = np.array([-1e3, low - 0.1, low, -0.3, -0.2, 0.0, 0.2, 0.3, high, high + 0.1, 1e3])
    assert made.rounded(given).tolist() == [low, low, low, -0.5, 0, 0, 0, 0.5, high, high, high]


def test_a_histogram_counts_like_numpy_between_powers_of_two():
    draw = np.random.default_rng(0)
    parts = [draw.uniform(-0.3, 0.3, (2, 50)), draw.uniform(-3, 5, 70), np.array([0.0, -4.0, 1.0, 5 / 2])]
    seen = Histogram()
    for part, exponent in zip(parts, (-1, 3, 3), strict=True):
        seen.add(part)
        assert seen.exponent == exponent
    assert seen.width == 8 / 4096
    assert (seen.centres[0], seen.centres[4096], seen.centres[-1]) == (-8 + 1 / 1024, 1 / 1024, 8 - 1 / 1024)
    values = np.concatenate([part.ravel() for part in parts])
    assert seen.counts.tolist() == np.histogram(values, np.linspace(-8, 8, 8193))[0].tolist()


@pytest.mark.parametrize(("peak", "exponent"), [(1.0, 1), (-1.0, 1), (0.999, 0), (0.5, 0), (2.0**-60, -59), (0.0, -60)])
def test_a_power_of_two_lies_in_the_next_wider_histogram(peak, exponent):
    seen = Histogram()
    seen.add(np.array([peak, 0.0], f32))
    seen.add(np.array([], f32))
    assert seen.exponent == exponent
    assert seen.counts.sum() == 2
    assert seen.counts[4096 + int(np.floor(peak / seen.width))] >= 1


def test_quantiles_are_edges_of_the_bin_where_the_share_is_reached():
    seen = Histogram()
    seen.add(np.repeat([-0.75, 0.25, 0.5], [2, 2, 4]))
    edges = {share: seen.quantile(share) for share in (0.0, 0.2, 0.25, 0.3, 0.5, 0.51, 1.0)}
    step = seen.width
    assert step == 1 / 4096
    assert edges == {0.0: -1.0, 0.2: -0.75, 0.25: -0.75, 0.3: 0.25, 0.5: 0.25 + step, 0.51: 0.5 + step, 1.0: 0.5 + step}


@pytest.mark.parametrize(
    ("count", "step"), [(5, 1), (4096, 1), (4097, 3), (8192, 3), (8193, 3), (12289, 5), (20480, 5)]
)
def test_an_image_is_sampled_in_odd_steps(count, step):
    value = np.arange(2 * count).reshape(2, count, 1)
    assert sampled(value).tolist() == [list(range(0, count, step)), list(range(count, 2 * count, step))]


THRESHOLD = float(np.finfo(f32).tiny) * 2.0**20
# weights (channels first), axis, largest -> scales
SCALES = {
    "by channel": ([[127, -3], [-254, 1]], 0, 127, [1, 2]),
    "by the second axis": ([[127, -3], [-254, 1]], 1, 127, [2, 3 / 127]),
    "one for all": ([[127, -3], [-254, 1]], None, 127, 2),
    "with a limit for each": ([[127, -3], [-254, 1]], 0, np.array([127.0, 63.5]), [1, 4]),
    "a channel of zeros has the median": ([[127], [381], [254], [0]], 0, 127, [1, 3, 2, 2]),
    "all zeros": ([[0], [0]], 0, 127, [1, 1]),
    "zero, one for all": ([[0], [0]], None, 127, 1),
    "too small for half precision of the product": ([[1e-35], [8]], 0, 1.0, [8, 8]),
    "just too small": ([[THRESHOLD], [8]], 0, 1.0, [8, 8]),
    "all just too small": ([[THRESHOLD], [THRESHOLD]], 0, 1.0, [1, 1]),
    "just large enough": ([[1.01 * THRESHOLD], [8]], 0, 1.0, [1.01 * THRESHOLD, 8]),
}


@pytest.mark.parametrize("case", SCALES)
def test_the_scale_is_the_largest_weight_over_the_largest_integer(case):
    weight, axis, largest, expected = SCALES[case]
    made = scales(np.array(weight, np.float64), axis, largest)
    assert made.dtype == f32
    assert made == pytest.approx(np.array(expected, f32), rel=1e-6, abs=0)


def test_scales_stand_along_their_axis():
    assert spread(np.array([1.0, 2.0]), 1, 3).shape == (1, 2, 1)
    assert spread(np.array([1.0, 2.0]), 0, 4).shape == (2, 1, 1, 1)
    assert spread(np.float32(3), None, 4) == 3
    integers = np.array([[1, -2], [3, 127]], np.int8)
    for axis, factor in ((0, [[0.5], [2]]), (1, [[0.5, 2]])):
        made = Quantised(integers, np.array([0.5, 2], f32), axis).dequantised()
        assert made.dtype == f32
        assert made.tolist() == (integers * np.array(factor)).tolist()


def test_weights_are_rounded_to_even_and_stop_at_127():
    made = quantise(np.array([[0.5, 1.5, -2.5, 300.0], [-300.0, 127.4, 63.6, 0.0]]), np.array([1, 0.5], f32), 0)
    assert made.integers.dtype == np.int8
    assert made.integers.tolist() == [[0, 2, -2, 127], [-127, 127, 127, 0]]
    assert made.axis == 0
    assert quantise(np.array([[3.0], [-1.0]]), np.float32(2), None).integers.tolist() == [[2], [0]]


@pytest.mark.parametrize("shape", [(5, 4000), (5, 500, 4, 2)])
def test_each_channel_is_clipped_where_its_own_error_is_least(shape):
    draw = np.random.default_rng(0)
    weight = draw.normal(0, 1, shape) * np.array([1, 2, 0.1, 5, 1]).reshape(-1, *[1] * (len(shape) - 1))
    weight[1].flat[0] *= 5
    weight[2] = weight[2].clip(-0.2, 0.2)
    weight[4] = np.round(weight[4] * 4) / 4  # hardly any error without clipping
    weight[4].flat[0] = 127 / 4
    importance = draw.uniform(0, 3, (1, *shape[1:]))
    scale = scales(weight, 0)
    for given in (1.0, importance):
        made = mse_scale(weight, scale, given)
        for channel, (row, whole) in enumerate(zip(weight, scale, strict=True)):
            steps = [f32(whole * share) for share in NARROWER]
            errors = [
                (
                    ((np.clip(np.rint(row / float(s)), -127, 127) * s).astype(f32) - row) ** 2
                    * np.broadcast_to(given, (1, *row.shape))[0]
                ).sum()
                for s in steps
            ]
            assert made[channel] == pytest.approx(steps[int(np.argmin(errors))], rel=1e-6)
    assert len(set(np.round(mse_scale(weight, scale) / scale, 3).tolist())) >= 3


def test_a_bias_raises_the_scale_only_where_it_would_overflow():
    made = bias_scales(np.array([1e-3, 1e-3], f32), 1e-9, np.array([1e-6, -4e-3]))
    assert made.dtype == f32
    assert made == pytest.approx([1e-3, 4e-3 / 1e-9 / 2**30], rel=1e-6)


def test_a_peak_has_a_margin_and_stays_a_byte():
    high = np.array([-1.0, 0.0, 1.0, 2.0, 300.0])
    assert raw_peaks(high, 0.1, 0).tolist() == [0, 0, 12, 25, 255]
    assert raw_peaks(high, 0.5, 10).tolist() == [10, 10, 12, 15, 255]
    assert raw_peaks(np.array([0.0]), 1.0, -5).tolist() == [0]


def limit_of(row, peaks, rounding):
    """The largest integer by trying: row in the order of multiplication, with the peak of each of its inputs."""
    share = 0.0
    for sign in (1, -1):
        ratio = sign * np.array(row) / max(np.abs(row).max(), 1e-30)
        products = [max(r, 0) * p for r, p in zip(ratio, peaks, strict=True)]
        share = max(share, *(sum(products[at : at + 2]) for at in range(0, len(products), 2)))
    fits = [top for top in range(1, 128) if top * share + rounding * 2 * 255 <= 32767]
    return max(fits)


@pytest.mark.parametrize("rounding", [0.5, 1.0])
@pytest.mark.parametrize(
    ("shape", "groups"), [((3, 4), 1), ((2, 5), 1), ((4, 3, 3, 3), 2), ((4, 1, 2, 1), 2), ((4, 2, 1, 1), 4)]
)
def test_the_limit_is_the_largest_integer_that_never_saturates(shape, groups, rounding):
    draw = np.random.default_rng(1)
    for _ in range(8):
        weight = draw.uniform(-1, 1, shape)
        weight = np.sign(weight) * np.abs(weight) ** 0.3  # large ones beside each other
        peaks = draw.integers(120, 256, shape[1] * groups).astype(float)
        found = largest_integers(weight, groups, peaks, rounding=rounding)
        for channel, kernel in enumerate(weight):
            group = channel // (shape[0] // groups)
            own = peaks[group * shape[1] : (group + 1) * shape[1]]
            places = [*itertools.product(*map(range, shape[2:]))]
            row = [kernel[(at, *place)] for place in places for at in range(shape[1])]
            assert found[channel] == limit_of(row, np.tile(own, len(places)), rounding)


def test_which_kernels_need_no_limit():
    full = np.full(4, 255.0)
    assert largest_integers(np.ones((4, 1, 3, 3)), 4, full, rounding=1.0).tolist() == [127] * 4
    assert largest_integers(np.ones((1, 1)), 1, full[:1], rounding=1.0).tolist() == [126]  # a product, not depthwise
    assert largest_integers(np.zeros((2, 4)), 1, full).tolist() == [127] * 2
    assert largest_integers(np.ones((2, 4)), 1, np.zeros(4)).tolist() == [127] * 2
    assert largest_integers(np.ones((1, 2)), 1, full[:2]).tolist() == [63]
