"""The mix for a GPU: built for real, judged by kernel lists, refused where FP16 is faster; and the command."""

import json

import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.optimize.trt.autotune import autotune
from edgesmith.runtime.engines import cost, sidecar
from edgesmith.runtime.errors import CheckFailed, UsageError
from support.engine_graphs import saved, small_net

pytest.importorskip("tensorrt_rtx_bindings")
# So slow in FP16 that INT8 pays even for a small network.
STARVED = cost.Gpu("starved", "8.6", "discrete", 0.0005, 0.001, 1.0, 500.0, 0.0)


@pytest.fixture
def pair(tmp_path):
    return [saved(small_net(kind), tmp_path / f"{kind}.onnx") for kind in ("fp32", "int8")]


def test_int8_wins_where_arithmetic_is_scarce(pair, tmp_path):
    report = autotune(*pair, tmp_path / "best.onnx", STARVED)
    assert report.best.name in ("int8", "mixed")
    assert [item.name for item in report.candidates] == ["fp16", "int8", "mixed"]
    assert "depthwise" in report.placement.floats
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(tmp_path / "best.onnx").graph.node)
    report.refuse_slower()


def test_fp16_wins_where_launches_are_all(pair, tmp_path):
    report = autotune(*pair, tmp_path / "best.onnx", cost.find_gpu("RTX 4090"))
    assert report.best.name == "fp16"
    assert not (tmp_path / "best.onnx").exists()
    with pytest.raises(
        CheckFailed, match="no build is estimated to be faster than FP16 on RTX 4090 at batch 1; got fp16 0"
    ):
        report.refuse_slower()
    json.dumps(report.to_dict())


def test_without_a_quantised_file_only_fp16_is_built(pair, tmp_path):
    report = autotune(pair[0], None, tmp_path / "best.onnx", cost.find_gpu("L4"))
    assert [item.name for item in report.candidates] == ["fp16"]
    assert report.placement is None
    assert report.to_dict()["winner"] == "fp16"


def edgesmith(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in ("build", *arguments)])


def test_the_command_builds_for_each_sm(pair, tmp_path):
    done = edgesmith(pair[1], "-o", tmp_path / "n.engine", "--sm", "8.6,8.9", "--int8", "--json")
    assert done.exit_code == 0
    assert [(item["engine"], item["sm"]) for item in json.loads(done.stdout)] == [
        ("n-sm86.engine", "8.6"), ("n-sm89.engine", "8.9")]  # fmt: skip
    assert sidecar.read_sidecar(tmp_path / "n-sm89.engine").attestation.counts == {"int8": 4}


EXITS = {
    "INT8 of a float file": (["fp32.onnx", "--int8"], 1, "no convolution of the file has Q/DQ pairs"),
    "an SM it cannot build": (["fp32.onnx", "--sm", "8.7"], 1 + 1, "does not build for SM 8.7"),
    "no such file": (["none.onnx"], 2, "no such file"),
    "a broken profile": (["fp32.onnx", "--batch", "1,x"], 2, "not a list of whole numbers"),
    "half a mix": (["fp32.onnx", "--int8-from", "int8.onnx"], 2, "--int8-from needs --best-for GPU"),
    "an unknown GPU": (
        ["fp32.onnx", "--best-for", "rtx4900", "--int8-from", "int8.onnx"],
        2,
        "did you mean 'RTX 4090'?",
    ),
    "the GPU of a machine without": (["fp32.onnx", "--sm", "current"], 3, "no NVIDIA GPU can be used here"),
}


@pytest.mark.parametrize("case", EXITS)
def test_exit_codes(case, pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, code, message = EXITS[case]
    done = edgesmith(*arguments)
    assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32.onnx", "int8.onnx"]


def test_a_gemm_for_turing_is_respelled(pair, tmp_path):
    done = edgesmith(pair[0], "-o", tmp_path / "t.engine", "--sm", "7.5")
    assert done.exit_code == 0, done.stderr
    assert "SM 7.5 has no FP32 Gemm: 1 became 1x1 convolutions" in done.stderr
    assert sidecar.read_sidecar(tmp_path / "t.engine").source == "t-conv.onnx"


def test_check_only_lists_the_traps(pair):
    done = edgesmith(pair[0], "--sm", "7.5", "--check-only", "--json")
    assert done.exit_code == 1
    assert [item["code"] for item in json.loads(done.stdout)] == ["sm75-gemm"]
    assert edgesmith(pair[0], "--check-only").exit_code == 0


def test_a_gpu_without_rates_is_no_gpu():
    with pytest.raises(UsageError, match="unknown GPU"):
        cost.find_gpu("")
