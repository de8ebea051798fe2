"""Gemm as a 1x1 convolution for SM 7.5: the same sums, and an engine where there was none."""

import numpy as np
import onnx
import onnxruntime
import pytest

from edgesmith.optimize.trt.gemm_to_conv import gemm_to_conv
from support.engine_graphs import saved, small_net, text_model

WEIGHT = "float[3,2] w = {1.0,2.0,3.0,4.0,5.0,6.0}"
SHAPES = {"inputs": "float[2,3] x", "outputs": "float[2,2] y"}
RESPELLED = {
    "plain": ("y = Gemm(x, w, b)", f"{WEIGHT}, float[2] b = {{1.0,-1.0}}", 17),
    "transposed": ("y = Gemm<transB=1>(x, w, b)", WEIGHT.replace("[3,2]", "[2,3]") + ", float[2] b = {1.0,-1.0}", 17),
    "without bias": ("y = Gemm(x, w)", WEIGHT, 17),
    "one bias for all": ("y = Gemm(x, w, b)", f"{WEIGHT}, float[1] b = {{7.0}}", 17),
    "an old opset": ("y = Gemm(x, w, b)", f"{WEIGHT}, float[2] b = {{1.0,-1.0}}", 11),
}
LEFT = {
    "alpha": ("y = Gemm<alpha=2.0>(x, w)", WEIGHT),
    "a bias per element": ("y = Gemm(x, w, b)", f"{WEIGHT}, float[2,2] b = {{1.0,2.0,3.0,4.0}}"),
    "computed weights": ("v = Relu(x) t = Transpose(v) y = Gemm(x, t)", ""),
}


def run(path):
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) - 2}
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)[0]


@pytest.mark.parametrize("case", RESPELLED)
def test_a_gemm_becomes_a_convolution(case, tmp_path):
    body, weights, opset = RESPELLED[case]
    source = saved(text_model(body, opset, weights=weights, **SHAPES), tmp_path / "s.onnx")
    assert gemm_to_conv(source, tmp_path / "t.onnx") == 1
    assert [node.op_type for node in onnx.load(tmp_path / "t.onnx").graph.node] == ["Unsqueeze", "Conv", "Flatten"]
    np.testing.assert_allclose(run(tmp_path / "t.onnx"), run(source), rtol=1e-6)
    assert gemm_to_conv(tmp_path / "t.onnx", tmp_path / "u.onnx") == 0


@pytest.mark.parametrize("case", LEFT)
def test_another_gemm_stays(case, tmp_path):
    body, weights = LEFT[case]
    assert (
        gemm_to_conv(saved(text_model(body, weights=weights, **SHAPES), tmp_path / "s.onnx"), tmp_path / "t.onnx") == 0
    )
    assert not (tmp_path / "t.onnx").exists()


def test_the_result_builds_for_turing(tmp_path):
    pytest.importorskip("tensorrt_rtx_bindings")
    from edgesmith.runtime.engines.build import build_engine

    gemm_to_conv(saved(small_net(), tmp_path / "s.onnx"), tmp_path / "t.onnx")
    built = build_engine(tmp_path / "t.onnx", tmp_path / "t.engine", sm="7.5")
    assert built.attestation.counts == {"fp32": 5}
