"""The blocked file in the whole flow: made, checked, in the bundle with its contract, beside the portable one."""

import pytest

from edgesmith import pipeline
from edgesmith.pipeline_types import Settings
from edgesmith.runtime import bundle, load, nchwc
from edgesmith.runtime.errors import UsageError

pytestmark = pytest.mark.timeout(900)


def made(model, out, **others):
    settings = Settings(
        model, weights="random", precisions=("fp32",), targets=("ort-x86",), calibration=8, evaluate=False,
        blocked=True, out=out, **others,
    )  # fmt: skip
    return pipeline.run(settings, lambda line: None)


@pytest.mark.skipif(not nchwc.block(), reason="ONNX Runtime has no blocked layout on this machine")
def test_a_network_with_squeeze_excite_gets_one(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    summary = made("mobilenetv3_small", tmp_path / "bundle", input="uint8-nhwc")
    assert {check.name: check.passed for check in summary.checks}["blocked layout"] is True
    assert summary.written
    opened, name = bundle.read(tmp_path / "bundle"), f"mobilenetv3_small-fp32-nchwc{nchwc.block()}"
    portable, kept = opened.artefacts
    assert (portable.role, kept.role, kept.name) == ("onnx", "nchwc", name)
    assert kept.requires == nchwc.contract()
    assert {entry.status for entry in bundle.verify(opened).replays if entry.backend == "ort"} == {"passed"}
    assert any(line.endswith(f"ms {name} with ort, 1 threads") for line in load(opened, threads=1).why().splitlines())


@pytest.mark.slow
def test_a_network_that_gains_nothing_gets_none_and_says_why(tmp_path):
    summary = made("mobilenetv1_0.25", tmp_path / "bundle")
    (check,) = (check for check in summary.checks if check.name == "blocked layout")
    assert check.passed is None
    assert check.detail
    assert [artefact.role for artefact in bundle.read(tmp_path / "bundle").artefacts] == ["onnx"]


def test_a_free_batch_is_refused_before_anything_is_made():
    with pytest.raises(UsageError, match="fixed batch"):
        Settings("mobilenetv2", blocked=True, dynamic_batch=True)
