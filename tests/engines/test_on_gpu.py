"""What only a GPU can show: engines compute what ONNX Runtime computes, with and without CUDA graphs. Never ran yet."""

import numpy as np
import pytest

from edgesmith.optimize import optimizer
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.quantize.post_training import quantize
from edgesmith.runtime import datasets
from edgesmith.runtime.backends import ort, ort_cuda, trt
from edgesmith.runtime.bundle.writer import TENSORRT_TOLERANCES
from edgesmith.runtime.common.machine import gpu_possible
from edgesmith.runtime.engines import gpu
from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.verify import relative_error
from support.trained import trained, trained_onnx

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not gpu_possible(), reason="no NVIDIA GPU here")]
PRECISIONS = ("fp32", "fp16", "int8")


@pytest.fixture(scope="module")
def images():
    _, spec = trained()
    return next(iter(datasets.load("digits", "test").head(32).batches(spec, 32)))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The trained network in FP32, FP16 and INT8 for TensorRT, batch 1."""
    folder, (_, spec) = tmp_path_factory.mktemp("files"), trained()
    paths = {precision: folder / f"{precision}.onnx" for precision in PRECISIONS}
    optimizer.optimize(trained_onnx(folder), paths["fp32"], target="trt")
    samples = list(datasets.load("digits", "calibration").head(32).batches(spec, 1))
    to_fp16(paths["fp32"], paths["fp16"], samples[:4])
    quantize(paths["fp32"], paths["int8"], samples, target="trt")
    return paths


def outputs_of(session, images):
    return np.concatenate([next(iter(session.run({session.inputs[0].name: image[None]}).values())) for image in images])


@pytest.fixture(scope="module")
def engines(files):
    paths = {precision: path.with_suffix(".engine") for precision, path in files.items()}
    for precision, path in paths.items():
        build_engine(files[precision], path, sm="current", precision=precision)
    return paths


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("graphs", [True, False])
def test_an_engine_computes_what_its_file_computes(precision, graphs, files, engines, images):
    with ort.open(files[precision], **(ort.SIMULATED if precision == "int8" else {})) as session:
        reference = outputs_of(session, images)
    with trt.open(engines[precision], graphs=graphs) as session:
        result = outputs_of(session, images)
    assert relative_error(result, reference) <= TENSORRT_TOLERANCES[precision]
    assert (result.argmax(1) == reference.argmax(1)).mean() >= 0.95


def test_a_cuda_graph_repeats_bit_for_bit(engines, images):
    with trt.open(engines["fp16"], graphs=True) as session:
        assert np.array_equal(outputs_of(session, images), outputs_of(session, images))


def test_onnx_runtime_with_cuda_computes_what_it_computes_on_the_cpu(files, images):
    if not ort_cuda.available()[0]:
        pytest.skip(ort_cuda.available()[1])
    with ort.open(files["fp32"]) as one, ort_cuda.open(files["fp32"]) as two:
        assert relative_error(outputs_of(two, images), outputs_of(one, images)) < 1e-2


def test_the_gpu_says_what_it_is():
    assert gpu.device_name()
    assert float(gpu.device_sm()) >= 5.0
