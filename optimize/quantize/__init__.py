"""Post-training quantisation: calibration, ranges, placement per target, explicit Q/DQ."""

from .post_training import quantize
from .report import QuantReport, QuantSettings

__all__ = ["QuantReport", "QuantSettings", "quantize"]
