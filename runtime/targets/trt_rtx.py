"""TensorRT-RTX: as `trt`, and zero points move also where that takes a Pad or an Add, which it computes for nothing."""

from dataclasses import replace

from .trt import ROW as TRT

ROW = replace(TRT, what="TensorRT-RTX", engine="rtx", qdq={**(TRT.qdq or {}), "explicit_padding": True})
