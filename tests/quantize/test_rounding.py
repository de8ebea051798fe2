"""Second moments are those of the convolution, and weights fitted and rounded by them make less noise."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.weights.quantize_weights import mse_scale, quantise, scales
from edgesmith.optimize.quantize.weights.rounding import (
    _inverse_root,
    adaround,
    best_rounding,
    fit,
    gptq,
    loss,
    nearest,
)
from edgesmith.optimize.quantize.weights.second_moments import Moments, measure, merge, patches, sample_positions
from support.quant_graphs import Graph, batches, images, run, small_cnn

CONVOLUTIONS = {
    "dense": ((6, 3, 3, 3), 1, 1, 1, 1),
    "strided": ((6, 3, 5, 5), 1, 2, 2, 1),
    "dilated": ((6, 3, 3, 3), 1, 1, 2, 2),
    "depthwise": ((3, 1, 3, 3), 3, 1, 1, 1),
    "no padding": ((4, 3, 3, 3), 1, 1, 0, 1),
}


def convolution(shape, group, stride, pad, dilation):
    graph = Graph(1)
    names = ["input", graph.array("w", graph.draw.standard_normal(shape)), graph.array("b", np.zeros(shape[0]))]
    values = {"group": group, "strides": [stride] * 2, "pads": [pad] * 4, "dilations": [dilation] * 2}
    graph.node("Conv", names, "output", **values)
    return graph.model({"output": ["N", shape[0], "H", "W"]}), graph.arrays[0], values


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_patches_times_weights_is_the_convolution(case):
    shape, *_ = CONVOLUTIONS[case]
    model, weight, values = convolution(*CONVOLUTIONS[case])
    weight = onnx.numpy_helper.to_array(weight)
    value = images(5)
    answer = run(model, value)
    image, row, column = sample_positions(answer, 27)
    rows = patches(value, shape[2:], values, image, row, column).reshape(len(image), values["group"], -1)
    made = np.einsum("pgd,gmd->pgm", rows, weight.reshape(values["group"], -1, rows.shape[2]))
    assert np.allclose(made.reshape(len(image), -1), answer[image, :, row, column], atol=1e-4)
    fitting, judging = measure(value, answer, weight, values)
    assert fitting.error + judging.error < 1e-6
    assert fitting.count + judging.count == len(image)


@pytest.mark.parametrize("rank", [1, 3])
def test_patches_over_time_or_over_time_and_space(rank):
    draw = np.random.default_rng(rank)
    weight = draw.standard_normal((6, 2, *[3] * rank)).astype(np.float32)
    values = {"group": 2, "strides": [2] * rank, "pads": [0] * rank + [1] * rank, "dilations": [1, 2, 1][:rank]}
    graph = Graph()
    graph.node("Conv", ["input", graph.array("w", weight)], "output", **values)
    model = graph.model({"output": ["N", 6, *"DHW"[:rank]]}, ("N", 4, *[7] * rank))
    value = draw.standard_normal((5, 4, *[7] * rank)).astype(np.float32)
    answer = run(model, value)
    for wrong, least in ((0.0, 0.0), (0.1, 1e-3)):
        fitting, judging = measure(value, answer, weight + np.float32(wrong), values)
        assert least <= fitting.error + judging.error < least * 1e6 + 1e-6


def correlated(outputs=8, width=24, rank=6, count=4000, noise=0.05, seed=0):
    """Signal in a few directions, rounding noise in all: what a layer reads in a quantised network."""
    fixed = np.random.default_rng(7)
    basis, weight = (fixed.standard_normal(shape) for shape in ((rank, width), (outputs, width)))
    draw = np.random.default_rng(seed)
    signal = draw.standard_normal((count, rank)) @ basis
    return signal, signal + noise * np.sqrt(rank) * draw.standard_normal(signal.shape), weight


def moments_of(signal, seen, weight):
    residual = (signal - seen) @ weight.T
    count = len(seen)
    return Moments(
        (seen.T @ seen / count)[None], (seen.T @ residual / count)[None], np.square(residual).sum() / count, count
    )


def test_the_loss_is_the_measured_error():
    signal, seen, weight = correlated()
    change = 0.1 * np.random.default_rng(1).standard_normal((1, *weight.shape))
    measured = np.square(signal @ weight.T - seen @ (weight + change[0]).T).sum(axis=1).mean()
    assert moments_of(signal, seen, weight).loss(change) == pytest.approx(measured)


def test_moments_of_two_halves_are_those_of_the_whole():
    signal, seen, weight = correlated()
    halves = [moments_of(signal[at], seen[at], weight) for at in (slice(0, 1000), slice(1000, None))]
    joined, whole = merge(*halves), moments_of(signal, seen, weight)
    for one, two in ((joined.gram, whole.gram), (joined.cross, whole.cross), (joined.error, whole.error)):
        assert np.allclose(one, two)


def test_fitting_turns_down_directions_that_hold_noise_only():
    signal, seen, weight = correlated()
    half = len(seen) // 2
    change, left = fit(moments_of(signal[:half], seen[:half], weight), moments_of(signal[half:], seen[half:], weight))
    fresh, noisy, _ = correlated(seed=1, count=8000)
    before = np.square(fresh @ weight.T - noisy @ weight.T).mean()
    after = np.square(fresh @ weight.T - noisy @ (weight + change[0]).T).mean()
    assert left < 0.6
    assert after < 0.6 * before


def test_nothing_is_fitted_to_chance():
    """With fewer positions than inputs and an error that the input does not explain, the weights stay."""
    draw = np.random.default_rng(0)
    parts = []
    for _ in range(2):
        rows, residual = draw.standard_normal((12, 40)), draw.standard_normal((12, 5))
        gram, cross = rows.T @ rows / 12, rows.T @ residual / 12
        parts.append(Moments(gram[None], cross[None], np.square(residual).sum() / 12, 12))
    change, left = fit(*parts)
    assert left <= 1
    assert np.abs(change).max() < 0.1


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from([4, 24, 90]), st.sampled_from([1, 3]))
def test_each_rounding_is_to_a_neighbour_and_the_best_is_no_worse_than_the_nearest(seed, width, groups):
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((groups, 300, 5)) @ draw.standard_normal((groups, 5, width))
    gram = (rows.transpose(0, 2, 1) @ rows) / 300 + 0.01 * np.eye(width)
    ratio = draw.uniform(-127, 127, (groups, 4, width))
    for made in (nearest(ratio), gptq(ratio, gram), adaround(ratio, gram, steps=20), best_rounding(ratio, gram)):
        assert np.array_equal(made, np.rint(made))
        assert (np.abs(made - ratio) <= 1).all()
        assert np.abs(made).max() <= 127
    assert (loss(ratio, best_rounding(ratio, gram), gram) <= loss(ratio, nearest(ratio), gram)).all()


@pytest.mark.parametrize("method", [gptq, adaround])
def test_rounding_together_beats_rounding_one_by_one(method):
    _, seen, weight = correlated(width=40)
    gram = (seen.T @ seen / len(seen))[None]
    ratio = 10 * weight[None]
    assert loss(ratio, method(ratio, gram), gram).sum() < 0.5 * loss(ratio, nearest(ratio), gram).sum()


def test_the_loss_of_rounding_is_the_noise_of_the_output():
    _, seen, weight = correlated()
    ratio = 5 * weight
    noise = np.square(seen @ (np.rint(ratio) - ratio).T).mean(axis=0)
    assert np.allclose(loss(ratio[None], np.rint(ratio)[None], (seen.T @ seen / len(seen))[None])[0], noise)


def test_scales_are_narrowed_where_it_lowers_the_error():
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((6, 400)).astype(np.float32)
    weight[:3, 0] = 4.2
    wide = scales(weight, 0, 7.0)
    narrow = mse_scale(weight, scales(weight, 0))
    errors = [
        np.square(quantise(weight, scale, 0).dequantised() - weight).sum(axis=1)
        for scale in (scales(weight, 0), narrow)
    ]
    assert (errors[1] <= errors[0]).all()
    assert (narrow <= scales(weight, 0)).all()
    assert (wide > narrow).all()


def test_fitting_and_rounding_lower_the_noise_of_a_network(tmp_path):
    """On images that nothing was fitted to, in the mean of four forms, and by more than any one of them loses."""
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    field = images(64, seed=7)
    gains = []
    for target in ("trt", "ort-x86", "ort-arm", "openvino"):
        kept = {}
        for fitted in (False, True):
            report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, judges=[field],
                              settings=QuantSettings(reconstruct=fitted))  # fmt: skip
            kept[fitted] = report.sqnr_db["output"]
            assert bool(report.fitted) == fitted
            assert all(0 < share <= 1 for share in report.fitted.values())
        gains.append(kept[True] - kept[False])
    assert sum(gains) / len(gains) > 0.25
    assert min(gains) > -0.25


def test_learnt_rounding_is_another_file_as_good(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    reports = [
        quantize(tmp_path / "m.onnx", tmp_path / f"{learn}.onnx", batches(), settings=QuantSettings(adaround=learn))
        for learn in (False, True)
    ]
    assert (tmp_path / "False.onnx").read_bytes() != (tmp_path / "True.onnx").read_bytes()
    assert reports[1].sqnr_db["output"] > reports[0].sqnr_db["output"] - 1


@pytest.mark.parametrize(("groups", "width"), [(1, 1), (3, 9), (1, 64), (2, 65), (1, 130), (1, 257)])
def test_the_inverse_root_is_that_of_the_inverse(groups, width):
    rows = np.random.default_rng(width).standard_normal((groups, 2 * width + 1, width))
    matrix = rows.transpose(0, 2, 1) @ rows / len(rows[0]) + 0.01 * np.eye(width)
    root = _inverse_root(matrix)
    assert (root == np.triu(root)).all()
    np.testing.assert_allclose(
        root, np.linalg.cholesky(np.linalg.inv(matrix)).transpose(0, 2, 1), rtol=1e-9, atol=1e-12
    )
    np.testing.assert_allclose(root.transpose(0, 2, 1) @ root @ matrix, np.stack([np.eye(width)] * groups), atol=1e-9)
