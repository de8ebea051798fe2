"""The script for a machine with a GPU, run dry, so that no minute on a GPU is spent on a typo."""

import json

import pytest
import torch
from click.testing import CliRunner
from gpu import __main__ as script
from gpu import ways

from edgesmith.runtime.common.machine import gpu_possible
from edgesmith.runtime.errors import NotAvailable

NETWORK = "shufflenetv2_x0_5"


@pytest.mark.slow
def test_a_dry_run_goes_as_far_as_each_way_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "SAMPLE_S", 0.01)
    out = tmp_path / "gpu.json"
    words = ["--dry", "--no-tests", "--networks", NETWORK, "--folder", str(tmp_path / "files"), "--out", str(out)]
    done = CliRunner().invoke(script.main, words, catch_exceptions=False)
    assert done.exit_code == 0
    result = json.loads(out.read_text())
    assert result["dry"]
    assert result["missing"]["torch-compile"] == "a dry run does not compile"
    cells = result["cells"]
    built, run = cells[f"{NETWORK} fp16 batch 1 tensorrt-rtx"], cells[f"{NETWORK} fp32 batch 1 ort-cuda"]
    assert built["never_ran"]
    assert built["kernels"] > 20
    assert run["samples"] >= script.LEAST
    assert 0 < run["p50_s"] <= run["p99_s"]
    assert 0 < run["roofline_s"] < run["estimate_s"]
    assert f"{NETWORK} fp32 batch 1 torch-graph" in cells
    before = out.read_text()
    assert CliRunner().invoke(script.main, words).exit_code == 0
    assert json.loads(out.read_text())["cells"] == json.loads(before)["cells"]  # nothing is measured twice


def test_where_no_way_works_each_says_what_it_lacks():
    with pytest.raises(NotAvailable, match="tensorrt: it is gone; torch-graph: no torch"):
        ways.require_any({"tensorrt": "it is gone", "torch-graph": "no torch"})
    ways.require_any({"tensorrt": "it is gone", "torch-graph": ""})


@pytest.mark.skipif(gpu_possible(), reason="this machine may have a GPU")
def test_without_a_gpu_no_way_works(tmp_path):
    lacks = {name: way.missing() for name, way in ways.ways(dry=False).items()}
    assert all(lacks.values())
    done = CliRunner().invoke(script.main, ["--out", str(tmp_path / "o.json")])
    assert isinstance(done.exception, NotAvailable)
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(("values", "good"), [([1.0, 2.0], True), ([1.0, float("nan")], False)])
def test_outputs_of_nonsense_are_no_measurement(values, good):
    assert ways.finite({"y": torch.tensor(values)}) is good
    assert ways.finite(torch.tensor(values).numpy()) is good
    row = script.measured(ways.Opened(lambda: {"y": torch.tensor(values).numpy()}, {"kernels": 3}), 1, [])
    assert ("failed" in row, row["kernels"]) == (not good, 3)
