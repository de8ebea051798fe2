"""Which layers stay in float where INT8 loses more than is allowed: the loop, and the whole flow with it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgesmith.export import int8, pipeline
from edgesmith.export.measure import _accuracy_check, kept
from edgesmith.export.settings import ExportedArtefact, ExportSettings, Flow, Kept
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.optimize.quantize.float_source import FloatSource
from edgesmith.runtime import datasets
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support import quant_graphs

WEIGHTS = str(Path(__file__).parent / "data" / "shufflenetv2_x0_5-digits.safetensors")


@pytest.fixture
def flow(tmp_path):
    onnx.save(quant_graphs.small_cnn(), tmp_path / "fp32.onnx")
    made = Flow(ExportSettings("lenet5", targets=("ort-x86",)), lambda line: None)
    made.data["calibration"] = datasets.load("digits", "calibration", calibration=64)
    return made


# (points lost with 0, 2, 5, 10 layers in float) -> how many stay there, how many were tried
CASES = {
    "nothing lost": ([0.0], 0, 1),
    "just what is allowed": ([0.5], 0, 1),
    "two are enough": ([0.6, 0.4], 2, 2),
    "two are worse": ([0.6, 0.9, 0.1], 3, 3),
    "nothing helps": ([2.0, 2.0, 2.0], 0, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_layers_go_back_to_float_until_the_loss_is_allowed(case, flow, tmp_path, monkeypatch):
    losses, floats, tried = CASES[case]
    asked = iter(losses)
    monkeypatch.setattr(int8, "kept", lambda flow, spec, made: Kept((lost := next(asked)) <= 0.5, lost))
    batches = [image[None] for image in quant_graphs.images(64)]
    source = FloatSource(GraphFile.read(tmp_path / "fp32.onnx"))
    int8.make_int8(flow, SimpleNamespace(), source, batches, tmp_path / "net")
    (made,) = flow.artefacts
    assert [len(one["floats"]) for one in made.results["tried"]] == [0, 2, 3][:tried]
    weighted = {node.name for node in onnx.load(tmp_path / "fp32.onnx").graph.node if node.op_type in ("Conv", "Gemm")}
    assert set(made.results["tried"][-1]["floats"]) <= weighted
    record = flow.records["int8-ort-x86"]
    assert sum(record["quantised"].get(kind, 0) for kind in ("Conv", "Gemm")) == len(weighted) - floats
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32.onnx", "net-int8-ort-x86.onnx"]


SPEC = ModelSpec("net", (3, 16, 16), 10, input_name="input", preprocess=Preprocess((16, 16), 0))


@pytest.fixture
def unlabelled(flow, tmp_path):
    """A network of ten classes on pictures of three kinds, which are none of its classes."""
    flow.settings = dataclasses.replace(flow.settings, weights="mine.safetensors")
    for split in ("test", "hard"):
        images = np.random.default_rng(len(split)).integers(0, 256, (64, 4, 4, 3), np.uint8).repeat(4, 1).repeat(4, 2)
        flow.data[split] = datasets.Dataset("kinds", split, images, np.arange(64) % 3, ("cat", "dog", "fox"))
    flow.add("fp32", "fp32", "generic", GraphFile.read(tmp_path / "fp32.onnx"))
    return flow


def damaged(folder, shift):
    """The same network, one class's logit shifted: the SQNR falls a little, top-1 as far as is wanted."""
    model = onnx.load(folder / "fp32.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "fc_b")
    value = onnx.numpy_helper.to_array(bias).copy()
    value[0] += shift
    bias.CopyFrom(onnx.numpy_helper.from_array(value, "fc_b"))
    onnx.save(model, folder / "other.onnx")
    return ExportedArtefact("int8-ort-x86", "int8", "ort-x86", folder / "other.onnx", 1)


# shift of a logit, floors -> enough
LIKENESS = {
    "equal": (0.0, {}, True),
    "one class takes all": (50.0, {}, False),
    "top-1 changes, and may": (50.0, {"min_agreement": 0.0, "min_sqnr": -100.0}, True),
    "noise that no top-1 shows": (-0.01, {"min_agreement": 0.0, "min_sqnr": 90.0}, False),
}


@pytest.mark.parametrize("case", LIKENESS)
def test_where_no_label_can_judge_likeness_does(case, unlabelled, tmp_path):
    shift, floors, enough = LIKENESS[case]
    unlabelled.settings = dataclasses.replace(unlabelled.settings, **floors)
    made = damaged(tmp_path, shift)
    found = kept(unlabelled, SPEC, made)
    assert (found.enough, found.lost_points) == (enough, None)
    assert (found.sqnr_db is None) is (shift == 0)
    made.results = {split: {"agreement": found.agreement} for split in ("test", "hard")}
    check = _accuracy_check(unlabelled, SPEC, made, unlabelled.onnx("fp32"), "the data has 3 classes, the network 10")
    assert check.passed is enough
    assert "so similarity decides" in check.detail


def test_random_weights_are_held_against_nothing(unlabelled, tmp_path):
    unlabelled.settings = dataclasses.replace(unlabelled.settings, weights="random")
    assert kept(unlabelled, SPEC, damaged(tmp_path, 50.0)) == Kept()


def test_likeness_too_sends_layers_back_to_float(unlabelled, tmp_path):
    unlabelled.settings = dataclasses.replace(unlabelled.settings, min_sqnr=200.0)
    batches = [image[None] for image in quant_graphs.images(64)]
    int8.make_int8(unlabelled, SPEC, FloatSource(unlabelled.graphs["fp32"]), batches, tmp_path / "net")
    tried = unlabelled.artefacts[-1].results["tried"]
    assert [len(one["floats"]) for one in tried] == [0, 2, 3]
    assert tried[0]["sqnr_db"] < tried[-1]["sqnr_db"]
    assert all("SQNR" in one["said"] for one in tried)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_loss_that_nothing_helps_against_stops_the_bundle(tmp_path):
    settings = ExportSettings(
        "shufflenetv2_x0_5", weights=WEIGHTS, precisions=("fp32", "int8"), targets=("ort-x86",), max_drop=-50.0,
        out=tmp_path / "b",
    )  # fmt: skip
    made = pipeline.run(settings, lambda line: None)
    check = next(check for check in made.checks if check.name == "accuracy int8-ort-x86")
    assert check.passed is False
    assert "layers in float did not help" in check.detail
    assert not made.written
    assert np.isfinite(made.artefacts[1].results["test"]["sqnr_db"])
