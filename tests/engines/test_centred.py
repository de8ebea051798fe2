"""Zero points that stand in biases cost TensorRT-RTX no kernel and no INT8 convolution."""

import dataclasses

import onnx
import pytest

from edgesmith.optimize.calibration.samples import Samples
from edgesmith.optimize.fp16.cast_graph import cast_graph
from edgesmith.optimize.quantize import QuantSettings
from edgesmith.optimize.quantize.pipeline import convert
from edgesmith.optimize.quantize.targets import find_target
from edgesmith.runtime.engines.build import build_engine
from support.quant_graphs import batches, relu_paths, small_cnn

pytest.importorskip("tensorrt_rtx_bindings")


@pytest.mark.parametrize("make", [relu_paths, small_cnn])
def test_the_engine_has_as_many_kernels(make, tmp_path):
    built = {}
    for centred in (False, True):
        form = dataclasses.replace(find_target("trt-rtx"), zero_points_in_biases=centred)
        made = convert(make(1), form, Samples(batches(batch=1), (1, 3, 16, 16)), QuantSettings(noise=0.0))
        assert bool(made.centred) is centred
        onnx.save(cast_graph(made.model).model, tmp_path / "m.onnx")
        sidecar = build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", sm="8.6", precision="int8")
        built[centred] = sidecar.attestation
    assert built[True].kernels <= built[False].kernels
    assert built[True].counts == built[False].counts
    assert set(built[True].counts) == {"int8"}
