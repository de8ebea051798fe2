"""ONNX Runtime on x86: U8 activations, S8 weights small enough for CPUs without VNNI (docs/quantisation.md).

The kernels on Arm also compute U8 by S8, so the form comes before FP32 there too, after the form for Arm.
"""

from ._row import X86, TargetRow

ROW = TargetRow(
    "ONNX Runtime on x86",
    backends=("ort", "openvino", "openvino_bf16"),
    machines=X86,
    place=10,
    place_elsewhere=20,
    passes=("mean_to_pool_flat", "split_convs"),
    channel_blocks=(("avx512f", 16), ("", 8)),
    qdq={
        "activation_dtype": "u8",
        "integer_bias": True,
        "quantize_outputs": True,
        "fold_relu": True,
        "avoid_int16_saturation": True,
        "pad_channels": True,
    },
)
