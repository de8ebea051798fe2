"""Sensitivity finds a layer made fragile, a budget leaves it in float, one that nothing meets is refused."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.quantize import quantize
from edgesmith.optimize.quantize.budget import sensitivity
from edgesmith.optimize.quantize.checks import input_shape
from edgesmith.optimize.quantize.forms import find
from edgesmith.optimize.quantize.net import Net
from edgesmith.optimize.quantize.samples import Samples
from edgesmith.runtime.errors import CheckFailed
from support.quant_graphs import batches, small_cnn

FRAGILE = "n_c4"


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """One weight of each output channel stands far out: the others are left with few of the 8 bits."""
    net = Net(small_cnn())
    node = next(item for item in net.nodes if item.name == FRAGILE)
    weight = net.arrays[node.input[1]].copy()
    weight[:, 0, 0, 0] = 40 * np.abs(weight).max()
    net.set_array(node.input[1], weight)
    path = tmp_path_factory.mktemp("budget") / "m.onnx"
    onnx.save(net.model, path)
    return path


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_the_fragile_layer_is_the_most_sensitive(fragile, target):
    model = onnx.load(fragile)
    found = sensitivity(model, find(target), Samples(batches(), input_shape(model)))
    assert next(iter(found)) == FRAGILE
    assert list(found.values()) == sorted(found.values())
    assert len(found) == 7


def test_a_budget_leaves_as_few_layers_in_float_as_it_needs(fragile):
    free = quantize(fragile, fragile.with_name("free.onnx"), batches())
    plain = free.sqnr_db["output"]
    report = quantize(fragile, fragile.with_name("q.onnx"), batches(), budget_db=plain + 1)
    assert list(report.tried) in ([0, 1], [0, 1, 2])
    assert report.tried[0] == pytest.approx(plain)
    assert FRAGILE in report.floats
    assert report.sqnr_db["output"] >= plain + 1
    easy = quantize(fragile, fragile.with_name("q.onnx"), batches(), budget_db=plain - 1)
    assert (list(easy.tried), easy.floats) == ([0], {})


def test_a_budget_that_nothing_meets_is_refused(fragile, tmp_path):
    with pytest.raises(CheckFailed, match=r"no configuration reaches 150 dB; got at best .* layers in float"):
        quantize(fragile, tmp_path / "q.onnx", batches(), budget_db=150)
    assert not (tmp_path / "q.onnx").exists()
