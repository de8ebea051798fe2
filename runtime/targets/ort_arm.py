"""ONNX Runtime on 64-bit Arm: S8 activations, as its kernels for symmetric weights need them (docs/quantisation.md).

On x86 without VNNI the kernels for S8 activations saturate, so the file is computed as written there.
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
