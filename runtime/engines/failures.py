"""The failure catalogue: cause and remedy of TensorRT's messages, found by their words.

Each row was reproduced on TensorRT-RTX by a small graph, as the test of the same name in tests/engines/test_failures.py
does. Standard TensorRT uses the same words for most of them. docs/engines.md prints the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """One row: a short code, a regular expression that matches the message, the cause and the remedy."""

    code: str
    words: str
    cause: str
    remedy: str


CATALOGUE = (
    Failure("custom-op", "Plugin not found, are the plugin name", "an operator without an implementation",
            "export it as standard operators, or install the plugin"),
    Failure("no-plugin", "not found in (the )?plugin registry", "TensorRT has this only as a plugin, which is missing",
            "remove it from the network and run it afterwards, or use standard TensorRT with its plugins"),
    Failure("pool-dilation", "does not support dilations other than 1", "a dilated pool", "pool without"),
    Failure("pool-indices", "1 outputs for MaxPool", "MaxPool with indices",
            "drop the second output"),
    Failure("resize-mode", "Antialiasing is not supported|tf_crop_and_resize", "an unsupported Resize mode",
            "use half_pixel without antialias"),
    Failure("training-mode", "does not support training_mode", "BatchNorm in training mode", "export in eval mode"),
    Failure("top-k", "K exceeds the maximum value", "TopK beyond 3840", "ask for at most 3840"),
    Failure("uint8-op", "input has type UInt8 but must have type Float", "an operator that does not take uint8",
            "insert a Cast to float before it"),
    Failure("int32-bias", "input has type Int32 but must have type FP8", "a bias quantised to INT32",
            "keep the bias in float: `edgesmith quantize --target trt`"),
    Failure("uint8-input", "unsupported input type of UINT8", "uint8 data into DequantizeLinear",
            "quantise to int8: `edgesmith quantize --target trt`"),
    Failure("zero-point", "Non-zero zero point is not supported", "asymmetric quantisation",
            "quantise symmetrically: `edgesmith quantize --target trt`"),
    Failure("bad-scale", "Scale coefficients must all be positive", "a scale that is zero, negative or NaN",
            "calibrate again on real images"),
    Failure("fixed-batch", "violate shape constraints", "the graph fixes a size that the profile leaves open",
            "export with a dynamic batch (0 or -1 in the Reshape), or build without a profile"),
    Failure("shape", "broadcast dimensions must be conformable", "shapes that do not match", "export it again"),
    Failure("negative-length", "inherently negative length", "a size that the graph computes and TensorRT cannot bound",
            "remove box suppression from the network and run it afterwards"),
    Failure("rank", "Failed to convert ONNX dimensions", "a tensor of rank above 8", "reshape it to rank 8 or less"),
    Failure("sm75-gemm", "FP32 GEMM is not supported", "SM 7.5 has no FP32 matrix product in TensorRT-RTX",
            "`edgesmith build` turns a plain Gemm into a 1x1 Conv; else cast to FP16"),
    Failure("sm75-conv", "FP32 3D convolution is not supported|BF16 .*is not supported", "a Conv that SM 7.5 lacks",
            "cast to FP16"),
    Failure("workspace", "within workspace limit|OutOfMemory", "too little scratch memory", "raise --workspace"),
    Failure("external-data", "Failed to import initializer", "a weight file that is missing or truncated",
            "copy it beside the .onnx"),
    Failure("not-onnx", "Failed to parse the ONNX model", "not an ONNX model, or truncated", "export it again"),
    Failure("no-outputs", "network without outputs|must have at least one output", "the file contains no network",
            "export it again"),
    Failure("no-implementation", "Could not find any implementation|no runners that implement it",
            "no kernel of this precision for this GPU", "leave that node in FP16, or choose another SM"),
    Failure("gpu-needed", "cudaError 35|CHECK\\(status == CUDA_SUCCESS\\)|CUDA initialization failure",
            "this step needs a GPU and its driver", "leave the option out, or build on the device"),
    Failure("lean", "libnvinfer_lean", "version-compatible engines need TensorRT's lean runtime",
            "install it, or leave --version-compatible out"),
    Failure("cancelled", "BuildCanceled", "the build was cancelled", "build again"),
    Failure("unsupported-op", "\\): false$", "TensorRT has no such operator", "replace it with standard operators"),
)  # fmt: skip


def explain(text: str) -> Failure | None:
    """Return the row that matches a message of TensorRT; None for an unknown one."""
    return next((row for row in CATALOGUE if re.search(row.words, text)), None)
