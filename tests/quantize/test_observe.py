"""Extremes found inside the runtime are those of the values, and Q/DQ computed fast are Q/DQ as written."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.ort_runs import session, stream
from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.calibration.statistics import collect, with_extremes
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.runtime.errors import DataError
from support.quant_graphs import Graph, batches, images, run, small_cnn

NAMES = ["input", "c0", "r0", "p0", "r1", "c2", "s1", "g0", "f0", "output"]
FROM_ZERO = {"r0", "p0", "r1"}


@pytest.mark.parametrize("opset", [12, 18])
@pytest.mark.parametrize("channels", [True, False])
def test_the_extremes_are_those_of_the_values(opset, channels):
    model = small_cnn(opset=opset)
    found = collect(model, NAMES, batches(), channels=channels)
    seen = list(stream(model, NAMES, batches(), optimise=True))
    for name in NAMES:
        value = np.concatenate([one[name] for one in seen])
        axes = tuple(axis for axis in range(value.ndim) if axis != 1) if channels else None
        lows = np.atleast_1d(value.min(axis=axes)) * (name not in FROM_ZERO)
        np.testing.assert_allclose(found[name].lows(), lows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found[name].highs(), np.atleast_1d(value.max(axis=axes)), rtol=1e-5, atol=1e-6)


def test_no_activation_of_four_dimensions_leaves_the_runtime():
    inside = with_extremes(small_cnn(), NAMES)
    assert inside.tensors == {"c0": 16, "r0": 16, "p0": 16, "r1": 24, "c2": 24, "g0": 32}
    assert set(inside.tensors) - set(inside.lows()) == FROM_ZERO
    answered = session(inside.model).run(None, {"input": images(4)})
    assert [value.shape for value in answered] == [(1, 128, 1, 1), (1, 72, 1, 1), (1, 128, 1, 1)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 7, 63])
def test_one_value_that_is_not_finite_is_found(value, place):
    graph = Graph()
    spoilt = np.zeros((1, 3, 8, 8), np.float32)
    spoilt[0, 1].flat[place] = value
    graph.node("Add", ["input", graph.array("spoilt", spoilt)], "a")
    graph.node("Identity", ["a"], "output")
    model = graph.model({"output": ["N", 3, 8, 8]}, ("N", 3, 8, 8))
    with pytest.raises(DataError, match="tensor 'a' holds NaN or infinity"):
        collect(model, ["a"], batches(size=8))


@pytest.mark.parametrize("channels", [True, False])
def test_infinity_behind_a_relu_is_found(channels):
    graph = Graph()
    graph.conv("input", "c0", (8, 3, 1, 1))
    graph.node("Mul", ["c0", graph.array("large", 3e38)], "m0")
    graph.node("Relu", ["m0"], "r0")
    graph.conv("r0", "output", (8, 8, 1, 1))
    model = graph.model({"output": ["N", 8, 8, 8]}, ("N", 3, 8, 8))
    with pytest.raises(DataError, match="tensor 'r0' holds NaN or infinity"):
        collect(model, ["r0"], batches(size=8), channels=channels)


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_the_fast_way_computes_what_is_written(tmp_path, target):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, settings=QuantSettings(refine=False))
    model = onnx.load(tmp_path / "q.onnx")
    written = run(model, images())
    fast = session(model, optimise=True, integers=False).run(None, {"input": images()})[0]
    assert sqnr_db(written, fast) > 90
    assert sqnr_db(run(small_cnn(), images()), fast) < 60


@pytest.mark.parametrize(("side", "size"), [(16, 16), (64, 16), (128, 4), (224, 1), (512, 1)])
def test_the_batch_follows_the_images(side, size):
    samples = Samples([np.zeros((5, 1, side, side), np.float32)] * 4, (None, 1, None, None))
    sizes = [len(batch) for batch in samples]
    assert sizes[0] == size
    assert sum(sizes) == 20
