"""TensorRT: S8 with zero point 0 around convolutions; zero points move into biases if that needs no other operator.

TensorRT's graphs are cast to FP16, whose smallest normal number is 2^-14: a smaller scale would become 0 there.
"""

from ._row import TargetRow

ROW = TargetRow(
    "TensorRT, any",
    backends=("trt",),
    device="gpu",
    precisions=("fp32", "fp16", "bf16", "int8"),
    engine="standard",
    qdq={
        "activation_dtype": "symmetric",
        "integer_bias": False,
        "quantize_outputs": False,
        "fold_relu": False,
        "least_scale": 2.0**-14,
        "free_channel_scales": True,
        # Of every form of the scales TensorRT-RTX 1.7 makes float kernels; no other TensorRT was tried.
        "transposed": False,
        "zero_points_in_biases": True,
    },
)
