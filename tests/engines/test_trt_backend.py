"""The TensorRT backend where no GPU is: what it refuses and in which order, and that the API it calls exists."""

import hashlib
import importlib

import numpy as np
import pytest

from edgesmith.runtime.backends import trt as backend
from edgesmith.runtime.common.files import sha256
from edgesmith.runtime.engines import gpu
from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.errors import BuildError, ModelError, NotAvailable, UsageError
from support.engine_graphs import saved, small_net

trt = pytest.importorskip("tensorrt_rtx_bindings")


def has_gpu():
    try:
        return bool(gpu.device_sm())
    except NotAvailable:
        return False


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engine")
    build_engine(saved(small_net("fp16"), folder / "n.onnx"), folder / "n.engine", sm="8.6", precision="fp16")
    return folder / "n.engine"


@pytest.mark.skipif(has_gpu(), reason="a GPU is here")
def test_without_a_gpu_it_says_why(engine):
    usable, reason = backend.available()
    assert not usable
    assert "no NVIDIA GPU can be used here" in reason
    with pytest.raises(NotAvailable, match="no NVIDIA GPU can be used here; got cudaError"):
        backend.open(engine)


def test_a_foreign_version_is_refused_before_the_gpu_is_asked(engine, tmp_path):
    raw = bytearray(engine.read_bytes())
    raw[24] += 1
    (tmp_path / "v.engine").write_bytes(raw)
    with pytest.raises(BuildError, match=r"another TensorRT version; got 2\..*; expected 1\."):
        backend.open(tmp_path / "v.engine")


def test_no_engine_is_refused(tmp_path):
    (tmp_path / "x.engine").write_bytes(b"not an engine")
    with pytest.raises(ModelError, match="is not a TensorRT engine"):
        backend.open(tmp_path / "x.engine")
    with pytest.raises(UsageError, match="no such file"):
        backend.open(tmp_path / "y.engine")


def test_a_sidecar_that_describes_another_engine_is_refused(engine, tmp_path):
    raw = bytearray(engine.read_bytes())
    raw[-1] ^= 1
    (tmp_path / "t.engine").write_bytes(raw)
    (tmp_path / "t.engine.json").write_text((engine.parent / "n.engine.json").read_text())
    with pytest.raises(ModelError, match="does not match its sidecar"):
        backend._check_sidecar(tmp_path / "t.engine", "8.6", hashlib.sha256(raw).hexdigest())
    with pytest.raises(BuildError, match=r"built for another GPU; got SM 8\.6; expected SM 9\.0"):
        backend._check_sidecar(engine, "9.0", sha256(engine))
    backend._check_sidecar(engine, "8.6", sha256(engine))


CALLED = {
    "ICudaEngine": ["num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape", "get_tensor_dtype",
                    "get_tensor_profile_shape", "create_execution_context", "create_engine_inspector"],
    "IExecutionContext": ["set_input_shape", "get_tensor_shape", "set_tensor_address", "execute_async_v3"],
    "Runtime": ["deserialize_cuda_engine"], "TensorIOMode": ["INPUT"],
    "EngineInspector": ["get_engine_information"], "LayerInformationFormat": ["JSON"],
}  # fmt: skip
CUDA = ["cudaStreamCreate", "cudaStreamSynchronize", "cudaStreamDestroy", "cudaMalloc", "cudaFree", "cudaMemcpyAsync",
        "cudaSetDevice", "cudaGetDeviceCount", "cudaDeviceGetAttribute"]  # fmt: skip


@pytest.mark.parametrize("owner", CALLED)
def test_what_the_backend_calls_is_there(owner):
    assert [name for name in CALLED[owner] if not hasattr(getattr(trt, owner), name)] == []


def test_what_it_calls_in_cuda_python_is_there():
    runtime = gpu.cudart()
    assert [name for name in CUDA if not hasattr(runtime, name)] == []
    assert {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"} <= set(dir(runtime.cudaMemcpyKind))


def test_every_plain_type_has_a_numpy_type():
    for name, expected in {"FLOAT": "float32", "HALF": "float16", "INT8": "int8", "INT32": "int32"}.items():
        assert np.dtype(trt.nptype(getattr(trt.DataType, name))).name == expected


@pytest.mark.skipif(not has_gpu(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_an_engine_computes_what_the_onnx_does(precision, tmp_path):
    ort = importlib.import_module("onnxruntime")
    onnx = saved(small_net(precision, batch="N"), tmp_path / "n.onnx")
    build_engine(onnx, tmp_path / "n.engine", sm="current", precision=precision, batch=(1, 2, 4))
    reference = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    with backend.open(tmp_path / "n.engine") as session:
        for batch in (1, 4, 2):
            x = np.random.default_rng(batch).normal(size=(batch, 3, 32, 32)).astype(np.float32)
            (expected,) = reference.run(None, {"x": x})
            np.testing.assert_allclose(session.run({"x": x})["y"], expected, atol=0.05 * np.abs(expected).max())
