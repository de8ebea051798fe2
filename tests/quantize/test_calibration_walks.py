"""Calibration reads and computes no more than it has to, and what it leaves out changes no answer."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.samples import repeatable
from edgesmith.optimize.quantize import QuantSettings, float_source, quantize
from edgesmith.optimize.quantize.report import COMPARED, spread
from support.quant_graphs import batches, images, small_cnn


def pixels(count, each):
    """So many batches of one image; each says its number, and holds that many pixels of one channel."""
    return (np.full((1, 1, 1, each), number, np.float32) for number in range(count))


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33, 128])
@pytest.mark.parametrize("share", [1, 2, 10, 40])
def test_what_is_compared_is_spread_evenly_over_one_walk(count, share):
    each = COMPARED // share
    taken = [int(one.flat[0]) for one in spread(pixels(count, each))]
    apart = set(np.diff(taken).tolist())
    assert taken[0] == 0
    assert len(apart) <= 1
    assert count - taken[-1] <= max(apart, default=count)
    assert len(taken) * each >= min(count, share) * each  # as much as there is, or COMPARED
    assert len(taken) == 1 or len(taken) * each < 2 * COMPARED
    if count < 2 * share:
        assert taken == list(range(count))


def test_what_was_spooled_comes_back_whatever_its_kind():
    given = [
        images(3),
        images(2).transpose(0, 2, 3, 1)[:, ::2],
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.zeros((0, 3, 4, 4), np.float32),
        np.array(["2026-11-21"], "datetime64[D]"),
        [[1.5, 2.5]],
    ]
    with repeatable(iter(given)) as spool:
        for _ in range(2):
            for one, other in zip(given, spool, strict=True):
                assert np.asarray(one).dtype == other.dtype
                assert np.array_equal(one, other)


@pytest.mark.parametrize("settings", [QuantSettings.quick(), QuantSettings(adaround=False)])
def test_a_batch_that_is_right_already_is_freed_only_where_that_serves(tmp_path, monkeypatch, settings):
    tried = []
    real = float_source.free_graph
    monkeypatch.setattr(
        float_source, "free_graph", lambda model, image, layout: tried.append(len(image)) or real(model, image, layout)
    )
    written = []
    for size in (16, 4):
        source, target = tmp_path / f"{size}.onnx", tmp_path / f"q{size}.onnx"
        onnx.save(small_cnn(batch=size), source)
        quantize(source, target, batches(), target="ort-x86", settings=settings)
        written.append([tensor.SerializeToString() for tensor in onnx.load(target).graph.initializer])
    assert written[0] == written[1]
    assert tried == ([16, 4] if settings.refine else [4])
