"""Post-training quantisation: calibration, ranges, placement per target, explicit Q/DQ."""

from .recipe import QuantReport, quantize

__all__ = ["QuantReport", "quantize"]
