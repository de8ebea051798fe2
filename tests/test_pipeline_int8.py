"""Which layers stay in float where INT8 loses more than is allowed: the loop, and the whole flow with it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from edgesmith import pipeline, pipeline_int8
from edgesmith.pipeline_types import Flow, Settings
from edgesmith.runtime import datasets
from support import quant_graphs

WEIGHTS = str(Path(__file__).parent / "data" / "shufflenetv2_x0_5-digits.safetensors")


@pytest.fixture
def flow(tmp_path):
    onnx.save(quant_graphs.small_cnn(), tmp_path / "fp32.onnx")
    made = Flow(Settings("lenet5", targets=("ort-x86",)), lambda line: None)
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
    monkeypatch.setattr(pipeline_int8, "lost", lambda flow, spec, made: next(asked))
    batches = [image[None] for image in quant_graphs.images(64)]
    pipeline_int8.make_int8(flow, SimpleNamespace(), tmp_path / "fp32.onnx", batches, tmp_path / "net")
    (made,) = flow.artefacts
    assert [len(one["floats"]) for one in made.results["tried"]] == [0, 2, 3][:tried]
    weighted = {node.name for node in onnx.load(tmp_path / "fp32.onnx").graph.node if node.op_type in ("Conv", "Gemm")}
    assert set(made.results["tried"][-1]["floats"]) <= weighted
    record = flow.records["int8-ort-x86"]
    assert sum(record["quantised"].get(kind, 0) for kind in ("Conv", "Gemm")) == len(weighted) - floats
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32.onnx", "net-int8-ort-x86.onnx"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_loss_that_nothing_helps_against_stops_the_bundle(tmp_path):
    settings = Settings(
        "shufflenetv2_x0_5", weights=WEIGHTS, precisions=("fp32", "int8"), targets=("ort-x86",), max_drop=-50.0,
        out=tmp_path / "b",
    )  # fmt: skip
    made = pipeline.run(settings, lambda line: None)
    check = next(check for check in made.checks if check.name == "accuracy int8-ort-x86")
    assert check.passed is False
    assert "layers in float did not help" in check.detail
    assert not made.written
    assert np.isfinite(made.artefacts[1].results["test"]["sqnr_db"])
