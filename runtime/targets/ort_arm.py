"""ONNX Runtime on 64-bit Arm: S8 activations, for which its kernels of symmetric weights are (docs/quantisation.md).

On x86 without VNNI its kernels for S8 activations saturate, so there the file is computed as written.
"""

from ._row import ARM, TargetRow

ROW = TargetRow(
    "ONNX Runtime on 64-bit Arm",
    backends=("ort",),
    machines=ARM,
    place=10,
    simulated_elsewhere=True,
    qdq={"activation_dtype": "s8", "integer_bias": True, "quantize_outputs": True, "fold_relu": True},
)
