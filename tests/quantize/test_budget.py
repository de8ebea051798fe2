"""Sensitivity finds a layer made fragile, a budget leaves it in float, one that nothing meets is refused."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.inputs import input_layout
from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.graph.proto_graph import ProtoGraph
from edgesmith.optimize.quantize import QuantSettings, quantize
from edgesmith.optimize.quantize.mixed_precision.latency_model import layer_work, model_costs
from edgesmith.optimize.quantize.mixed_precision.points_judge import PointsJudge
from edgesmith.optimize.quantize.mixed_precision.search import Configuration, points_lost, sensitivity
from edgesmith.optimize.quantize.mixed_precision.search import _with_front as with_front
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.runtime.errors import CheckFailed
from support.quant_graphs import batches, run, small_cnn

FRAGILE = "n_c4"


@pytest.fixture(scope="module")
def fragile(tmp_path_factory):
    """One weight of each output channel stands far out: the others are left with few of the 8 bits."""
    net = ProtoGraph(small_cnn())
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
    found = sensitivity(model, find_target(target), Samples(batches(), input_layout(model)))
    assert next(iter(found)) == FRAGILE
    assert list(found.values()) == sorted(found.values())
    assert len(found) == 7


@pytest.fixture
def cheap(monkeypatch):
    """INT8 at a third of the time, as the model has it: what this busy machine measures would decide otherwise."""
    monkeypatch.setattr("edgesmith.optimize.quantize.mixed_precision.search.is_here", lambda target: False)


def test_a_budget_leaves_as_few_layers_in_float_as_it_needs(fragile, cheap):
    common = {"target": "ort-x86", "settings": QuantSettings()}
    plain = quantize(fragile, fragile.with_name("free.onnx"), batches(), **common).sqnr_db["output"]
    report = quantize(fragile, fragile.with_name("q.onnx"), batches(), **common, budget_db=plain + 1)
    meets = [one for one in report.tried if one["meets"] and one["sqnr_db"] is not None]
    fewest = min(one["layers_in_float"] for one in meets)
    assert 1 <= fewest <= 3
    assert len(report.floats) == fewest
    assert report.sqnr_db["output"] >= plain + 1
    assert f"{fewest} of 7 layers in float meet {plain + 1:g} dB" in report.reason
    assert all(one["seconds"] <= report.tried[-1]["seconds"] for one in meets)
    easy = quantize(fragile, fragile.with_name("q.onnx"), batches(), **common, budget_db=plain - 1)
    assert (len(easy.tried), easy.floats) == (2, {})
    assert easy.sqnr_db["output"] == pytest.approx(plain)


def test_points_of_top1(fragile, cheap):
    report = quantize(fragile, fragile.with_name("q.onnx"), batches(), target="ort-x86", budget_points=0.0)
    assert report.agreement == 1
    loose = quantize(fragile, fragile.with_name("q.onnx"), batches(), target="ort-x86", budget_points=100.0)
    assert loose.floats == {}


def test_points_lost_against_labels():
    model, samples = small_cnn(), Samples(batches(), (None, 3, 16, 16))
    labels = run(model, np.concatenate(batches())).argmax(axis=1)
    other = small_cnn()
    weight = next(item for item in other.graph.initializer if item.name == "fc_w")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), "fc_w"))
    changed = 100 * float((run(other, np.concatenate(batches())).argmax(axis=1) != labels).mean())
    assert points_lost(model, model, samples, PointsJudge(truths=labels)) == 0
    assert points_lost(model, other, samples, PointsJudge(truths=labels)) == pytest.approx(changed)
    assert points_lost(other, model, samples, PointsJudge(truths=labels)) == 0
    assert points_lost(other, model, samples, PointsJudge()) == pytest.approx(changed)


@pytest.mark.parametrize("wanted", [{"budget_db": 150}])
def test_a_budget_that_nothing_meets_is_refused(fragile, tmp_path, wanted):
    with pytest.raises(CheckFailed, match=r"no configuration reaches 150 dB; got at best .* layers in float"):
        quantize(fragile, tmp_path / "q.onnx", batches(), **wanted)
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize("target", ["trt", "ort-x86"])
def test_where_int8_is_slower_the_float_network_is_chosen(target, tmp_path, monkeypatch):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    monkeypatch.setattr("edgesmith.optimize.quantize.mixed_precision.search.is_here", lambda target: True)
    monkeypatch.setattr(
        "edgesmith.optimize.quantize.mixed_precision.search.latencies", lambda models, image: [1e-3, 1.04e-3]
    )
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target=target, budget_db=10)
    name = {"trt": "FP16", "ort-x86": "FP32"}[target]
    assert report.reason == f"INT8 is 4 % slower than {name} (measured here): {name} chosen"
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "q.onnx").graph.initializer}
    assert (onnx.TensorProto.FLOAT16 in kinds) == (target == "trt")
    assert onnx.TensorProto.INT8 not in kinds


def tried(seconds, sqnr):
    return Configuration((), seconds, sqnr, 0.0, meets=True)


def test_the_front_holds_what_no_other_beats_in_both():
    front = with_front([tried(1, 20), tried(2, 30), tried(3, 25), tried(4, np.inf), tried(1.5, 19)])
    assert [one.best for one in front] == [True, True, False, True, False]


def test_the_work_of_a_layer_is_its_multiply_adds():
    work = layer_work(small_cnn())
    assert work["n_c0"].operations == 2 * 16 * 8 * 8 * 27
    assert work["n_c2"].operations == 2 * 24 * 4 * 4 * 9
    assert work["n_output"].operations == 2 * 32 * 10
    assert (work["n_c1"].dense, work["n_c2"].dense) == (True, False)


@pytest.mark.parametrize(("target", "kind"), [("trt", "FP16"), ("ort-x86", "FP32")])
def test_the_costs_add_up_and_can_be_anchored(target, kind):
    costs = model_costs(small_cnn(), target)
    assert costs.float_name == kind
    assert costs.total(()) == pytest.approx(sum(costs.int8_s.values()))
    assert costs.total(costs.float_s) == pytest.approx(sum(costs.float_s.values()))
    fixed = costs.anchored(2e-3, 1e-3)
    assert fixed.total(fixed.float_s) == pytest.approx(2e-3)
    assert fixed.total(()) == pytest.approx(1e-3)
    assert 1e-3 < fixed.total(["n_c4"]) < 2e-3
