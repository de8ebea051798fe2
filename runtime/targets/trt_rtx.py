"""TensorRT-RTX: as `trt`, but zero points also move if that needs a Pad or an Add, which it computes at no cost."""

from dataclasses import replace

from .trt import ROW as TRT

# It computes ConvTranspose in FP32 whatever Q/DQ stand around (kernel lists of version 1.7, all forms of the scales).
QDQ = {**(TRT.qdq or {}), "explicit_padding": True, "transposed": False}
ROW = replace(TRT, what="TensorRT-RTX", engine="rtx", qdq=QDQ)
