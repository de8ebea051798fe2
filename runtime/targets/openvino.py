"""OpenVINO on x86: its low-precision transformations need quantised activations and weights, and a float bias."""

from ._row import X86, TargetRow

ROW = TargetRow(
    "OpenVINO on x86",
    backends=("openvino", "openvino_bf16"),
    machines=X86,
    place=30,
    qdq={
        "activation_dtype": "u8",
        "integer_bias": False,
        "quantize_outputs": True,
        "fold_relu": True,
        "avoid_int16_saturation": True,
        "free_channel_scales": True,
        "transposed": True,
    },
)
