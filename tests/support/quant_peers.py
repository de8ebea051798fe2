"""Quantise with one peer, by the recipe of its own documentation: SOURCE.onnx CALIBRATION.npy TARGET.onnx NAME."""

import os
import sys
from pathlib import Path

import numpy as np


def reader(source, images):
    """Hand the images to onnxruntime's calibration, and to what is built on it, in batches that the model takes."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader

    given = onnx.load(source).graph.input[0]
    step = given.type.tensor_type.shape.dim[0].dim_value or 16

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = iter([{given.name: images[at : at + step]} for at in range(0, len(images), step)])

        def get_next(self):
            return next(self.left, None)

    return Reader()


def ort(source, images, target, kind):
    """onnxruntime's quantize_static, pre-processed as its documentation asks: S8 weights, U8 or S8 activations."""
    from onnxruntime.quantization import CalibrationMethod, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    symmetric, kind = kind.startswith("symmetric"), kind.removeprefix("symmetric").lstrip("-")
    method = {"percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}
    ready = target + ".ready"
    try:
        quant_pre_process(source, ready)
    except Exception:  # shapes that it cannot infer by symbols; its own message says to skip that
        quant_pre_process(source, ready, skip_symbolic_shape=True)
    quantize_static(
        ready,
        target,
        reader(source, images),
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=kind != "default",
        reduce_range=kind == "7bit",
        calibrate_method=method.get(kind, CalibrationMethod.MinMax),
        extra_options={"ActivationSymmetric": True} if symmetric else {},
    )


def nncf(source, images, target, kind):
    sys.modules["openvino_telemetry"] = None  # it reports each call over the network; without it, it has a stub
    import nncf as peer
    import onnx

    model = onnx.load(source)
    name, step = model.graph.input[0].name, model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    items = [images[at : at + step] for at in range(0, len(images), step)]
    options = {"subset_size": len(items)}
    if kind != "default":
        options["preset"] = peer.QuantizationPreset.MIXED
    if kind == "fast":
        options["fast_bias_correction"] = False
    onnx.save(peer.quantize(model, peer.Dataset(items, lambda item: {name: item}), **options), target)


def modelopt(source, images, target, kind):
    from modelopt.onnx.quantization import quantize

    options = {"calibration_method": "max"} if kind == "max" else {}
    quantize(source, quantize_mode="int8", calibration_data=images, output_path=target, **options)


def quark(source, images, target, kind):
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from quark.onnx import ModelQuantizer
    from quark.onnx.quantization.config import Config, QuantizationConfig

    wanted = QuantizationConfig(
        calibrate_method=CalibrationMethod.MinMax,
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        include_cle=kind == "cle",
    )
    ModelQuantizer(Config(global_quant_config=wanted)).quantize_model(source, target, reader(source, images))


if __name__ == "__main__":
    source, calibration, target = (str(Path(name).resolve()) for name in sys.argv[1:4])
    os.chdir(Path(target).parent)  # some leave files where they run
    name = sys.argv[4]
    peer, _, kind = name.partition("-")
    {"ort": ort, "nncf": nncf, "modelopt": modelopt, "quark": quark}[peer](source, np.load(calibration), target, kind)
