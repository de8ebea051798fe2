"""Second moments and the fit of weights by them, against float64 sums over every position."""

import numpy as np
import pytest

from edgesmith.optimize.quantize.weights import rounding, second_moments
from edgesmith.optimize.quantize.weights.second_moments import Moments, measure, merge, patches, sample_positions

# weights, images, attributes; the input is 7x6
LAYERS = {
    "dense": ((4, 2, 3, 3), 8, {"pads": [1, 1, 1, 1]}),
    "groups": ((4, 2, 3, 3), 8, {"group": 2, "pads": [1, 0, 1, 2], "strides": [2, 1]}),
    "depthwise": ((4, 1, 3, 3), 5, {"group": 4, "dilations": [1, 2], "pads": [0, 1, 2, 1]}),
    "1x1": ((4, 2, 1, 1), 4, {}),
    "few images": ((4, 2, 1, 1), 2, {}),
    "Gemm": ((3, 5), 9, {"transB": 1}),
    "Gemm with a group by another name": ((4, 6), 9, {"group": 2}),
}


def slow_rows(value, weight, values):
    """What each output position reads, (N, H', W', C, taps), by plain loops."""
    pads, strides = values.get("pads", [0] * 4), values.get("strides", [1, 1])
    far = values.get("dilations", [1, 1])
    padded = np.pad(value, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    sides = [
        (size - step * (kernel - 1) - 1) // stride + 1
        for size, step, kernel, stride in zip(padded.shape[2:], far, weight.shape[2:], strides, strict=True)
    ]
    rows = np.zeros((len(value), *sides, value.shape[1], weight.shape[2] * weight.shape[3]))
    for image, top, left in np.ndindex(len(value), *sides):
        for tap, (down, right) in enumerate(np.ndindex(*weight.shape[2:])):
            y, x = top * strides[0] + down * far[0], left * strides[1] + right * far[1]
            rows[image, top, left, :, tap] = padded[image, :, y, x]
    return rows


def problem(case):
    """Value, the float layer's answer, weights; rows (P, G, d), answers (P, G, m) and the image of each position."""
    shape, count, values = LAYERS[case]
    draw = np.random.default_rng(1)
    groups = values.get("group", 1) if len(shape) > 2 else 1
    inputs = shape[1] * groups
    value = draw.normal(1, 1, (count, inputs, 7, 6) if len(shape) > 2 else (count, inputs))
    weight = draw.normal(0, 1, shape)
    if len(shape) > 2:
        rows = slow_rows(value, weight, values)
        image = np.repeat(np.arange(count), rows.shape[1] * rows.shape[2])
        flat = rows.reshape(len(image), groups, -1)
    else:
        rows, image = None, np.arange(count)
        flat = value.reshape(count, groups, -1)
    true = (weight + 0.1 * draw.normal(0, 1, shape)).reshape(groups, shape[0] // groups, -1)
    target = np.einsum("pgd,gmd->pgm", flat, true) + 0.3
    answer = target.reshape(len(image), -1)
    if rows is not None:
        answer = np.moveaxis(answer.reshape(*rows.shape[:3], -1), 3, 1)
    return value, answer, weight, flat, target, image, groups


@pytest.mark.parametrize("case", LAYERS)
def test_the_moments_are_those_of_every_position(case):
    value, answer, weight, rows, target, image, groups = problem(case)
    rows = rows - rows.mean(axis=0)
    residual = target - np.einsum("pgd,gmd->pgm", rows, weight.reshape(groups, len(weight) // groups, -1))
    residual = residual - residual.mean(axis=0)
    judge = np.isin(image % 8, [2, 5, 7, 0]) & ((image + image // 2) % 4 == 3)
    if not judge.any():
        judge = np.arange(len(image)) % 4 == 3
    for made, which in zip(measure(value, answer, weight, LAYERS[case][2]), (~judge, judge), strict=True):
        count = max(int(which.sum()), 1)
        assert made.count == count
        assert made.gram == pytest.approx(np.einsum("pgd,pge->gde", rows[which], rows[which]) / count)
        assert made.cross == pytest.approx(np.einsum("pgd,pgm->gdm", rows[which], residual[which]) / count)
        assert made.error == pytest.approx(np.square(residual[which]).sum() / count)


def test_a_quarter_of_the_images_judges_even_and_odd_ones():
    value = np.random.default_rng(0).normal(0, 1, (16, 3))
    _, judging = measure(value, value @ np.ones((3, 1)), np.zeros((1, 3)), {})
    rows = value - value.mean(axis=0)
    chosen = [at for at in range(16) if (at + at // 2) % 4 == 3]
    assert chosen == [2, 5, 10, 13]
    assert judging.gram[0] == pytest.approx(rows[chosen].T @ rows[chosen] / 4)


def test_the_error_of_large_answers_is_summed_in_double_precision():
    residual = np.full((1, 2, 1), 1e20, np.float32)
    made = second_moments._moments(np.zeros((1, 2, 1), np.float32), residual)
    assert made.error == pytest.approx(1e40)
    assert made.gram.dtype == made.cross.dtype == np.float64
    assert second_moments._moments(np.zeros((1, 0, 1)), np.zeros((1, 0, 1))).count == 1


def test_the_loss_of_a_change_is_the_error_of_the_changed_weights():
    draw = np.random.default_rng(2)
    rows, residual = draw.normal(0, 1, (2, 30, 4)), draw.normal(0, 1, (2, 30, 3))
    made = second_moments._moments(rows, residual)
    for change in (np.zeros((2, 3, 4)), draw.normal(0, 1, (2, 3, 4))):
        left = residual - rows @ change.transpose(0, 2, 1)
        assert made.loss(change) == pytest.approx(np.square(left).sum() / 30)


def test_moments_of_both_sets_weigh_by_their_positions():
    draw = np.random.default_rng(3)
    rows, residual = draw.normal(0, 1, (1, 30, 4)), draw.normal(0, 1, (1, 30, 3))
    parts = [second_moments._moments(rows[:, at], residual[:, at]) for at in (slice(0, 10), slice(10, 30))]
    whole, joined = second_moments._moments(rows, residual), merge(*parts)
    assert joined.count == 30
    for key in ("gram", "cross", "error"):
        assert getattr(joined, key) == pytest.approx(getattr(whole, key))


@pytest.mark.parametrize(
    ("elements", "most", "width", "count"),
    [(1 << 23, 1 << 13, 10, 600), (6000, 1 << 13, 10, 600), (5999, 1 << 13, 10, 599), (10, 1 << 13, 10, 256),
     (1 << 23, 600, 10, 600), (1 << 23, 300, 10, 300), (9000, 1 << 13, 30, 300)],
)  # fmt: skip
def test_as_many_places_as_fit_are_drawn_once_each(elements, most, width, count, monkeypatch):
    monkeypatch.setattr(second_moments, "ELEMENTS", elements)
    monkeypatch.setattr(second_moments, "PLACES", most)
    found = sample_positions(np.zeros((5, 7, 12, 10)), width)
    assert [part.max() < size for part, size in zip(found, (5, 12, 10), strict=True)] == [True] * 3
    flat = np.ravel_multi_index(found, (5, 12, 10))
    assert len(flat) == count
    assert (np.diff(flat) > 0).all()
    assert (
        flat.tolist() == np.ravel_multi_index(sample_positions(np.zeros((5, 7, 12, 10)), width), (5, 12, 10)).tolist()
    )
    assert len(set(found[0].tolist())) == 5


def test_what_a_convolution_reads_is_laid_out_by_channel_and_tap():
    value = np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3)
    values = {"pads": [1, 0, 0, 0], "strides": [1, 1], "dilations": [1, 1]}
    made = patches(value, (2, 2), values, np.array([0, 1]), np.array([0, 2]), np.array([1, 0]))
    assert made.tolist() == [[[0, 0, 1, 2], [0, 0, 10, 11]], [[21, 22, 24, 25], [30, 31, 33, 34]]]


def random_moments(seed, groups=2, outputs=3, inputs=4, positions=40, noise=1.0):
    draw = np.random.default_rng(seed)
    rows = draw.normal(0, 1, (groups, positions, inputs)) * np.array([1, 0.5, 2, 0.1])
    true = np.random.default_rng(9).normal(0, 1, (groups, outputs, inputs))
    residual = rows @ true.transpose(0, 2, 1) + noise * draw.normal(0, 1, (groups, positions, outputs))
    return second_moments._moments(rows, residual)


def solved(made, ridge):
    """The minimum of the damped problem, each group and output by itself."""
    change = np.zeros(made.cross.shape).transpose(0, 2, 1)
    for group, gram in enumerate(made.gram):
        size = np.diag(gram)
        damped = gram + np.diag(ridge * (size + 1e-3 * size.mean()) + 1e-12)
        change[group] = np.linalg.inv(damped).dot(made.cross[group]).T
    return change


@pytest.mark.parametrize("noise", [0.01, 1.0, 10.0])
def test_the_fit_takes_the_ridge_that_judges_best(noise):
    fitting, judging = random_moments(1, noise=noise, positions=12), random_moments(2, noise=noise)
    losses = {ridge: judging.loss(solved(fitting, ridge)) for ridge in (1e-1, 1e-2, 1e-3, 1e-4)}
    best = min(losses, key=losses.get)
    change, left = rounding.fit(fitting, judging)
    if losses[best] >= judging.error:
        assert (left, np.abs(change).max(), change.shape) == (1.0, 0, (2, 3, 4))
    else:
        assert left == pytest.approx(losses[best] / judging.error)
        assert change == pytest.approx(solved(merge(fitting, judging), best), rel=1e-6)


def test_a_fit_that_helps_nobody_is_left_out():
    fitting, judging = random_moments(1), random_moments(2)
    against = Moments(judging.gram, -judging.cross, judging.error, judging.count)
    change, left = rounding.fit(fitting, against)
    assert (left, change.shape, np.abs(change).max()) == (1.0, (2, 3, 4), 0)


def slow_feedback(ratio, gram):
    """One input after the other; what is left is fitted anew to each error by the inverse of what is left of H."""
    order = np.argsort(-np.diag(gram), kind="stable")
    size = np.diag(gram)
    inverse = np.linalg.inv(gram + np.diag(1e-2 * (size + 1e-3 * size.mean()) + 1e-12))[np.ix_(order, order)]
    made = np.zeros_like(ratio)
    for row, weights in enumerate(ratio):
        left, inner = weights[order].copy(), inverse.copy()
        for step, at in enumerate(order):
            made[row, at] = np.clip(np.rint(left[step]), np.floor(weights[at]), np.ceil(weights[at]))
            left[step:] -= (left[step] - made[row, at]) / inner[step, step] * inner[step:, step][: len(left) - step]
            inner = inner - np.outer(inner[:, step], inner[step]) / inner[step, step]
    return np.clip(made, -127, 127)


@pytest.mark.parametrize("block", [2, 5, 64])
def test_feedback_is_optimal_brain_surgery_in_any_blocks(block, monkeypatch):
    monkeypatch.setattr(rounding, "BLOCK", block)
    draw = np.random.default_rng(0)
    reads = draw.normal(0, 1, (1, 200, 11)) @ draw.normal(0, 1, (1, 11, 11))
    gram = reads.transpose(0, 2, 1) @ reads / 200
    ratio = draw.uniform(-130, 130, (1, 30, 11))
    made = rounding.gptq(ratio, gram)
    assert made.shape == ratio.shape
    assert (made[0] == slow_feedback(ratio[0], gram[0])).mean() > 0.99  # a tie may fall on either side
    assert np.abs(made).max() == 127


def test_the_loss_of_rounding_is_the_weighted_square_of_its_error():
    draw = np.random.default_rng(0)
    ratio, half = draw.uniform(-200, 200, (2, 3, 4)), draw.normal(0, 1, (2, 4, 4))
    gram = half @ half.transpose(0, 2, 1)
    integers = rounding.nearest(ratio)
    assert integers.tolist() == np.clip(np.round(ratio), -127, 127).tolist()
    made = rounding.loss(ratio, integers, gram)
    for group, output in np.ndindex(2, 3):
        error = integers[group, output] - ratio[group, output]
        assert made[group, output] == pytest.approx(error @ gram[group] @ error)


def test_adaround_is_nearest_where_inputs_hang_not_together_and_stops_at_127():
    draw = np.random.default_rng(0)
    ratio = draw.uniform(-120, 120, (1, 20, 6))
    ratio[0, 0] = [127.2, -127.2, 126.9, -126.9, 0.3, 0.7]
    for size in (1e-6, 1.0, 1e6):
        made = rounding.adaround(ratio, size * np.eye(6)[None])
        assert (made[0, 0] == [127, -127, 127, -127, 0, 1]).all()
        assert (made == rounding.nearest(ratio)).mean() > 0.97
    assert (rounding.adaround(ratio, np.zeros((1, 6, 6))) - ratio).max() < 1
