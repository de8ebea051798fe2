"""TensorRT-RTX: as `trt`, but zero points also move if that needs a Pad or an Add, which it computes at no cost."""

from dataclasses import replace

from .trt import ROW as TRT

QDQ = {**(TRT.qdq or {}), "explicit_padding": True}
ROW = replace(TRT, what="TensorRT-RTX", engine="rtx", qdq=QDQ)
