"""Post-training quantisation: calibration, ranges, placement per target, explicit Q/DQ."""

from .post_training import quantize
from .report import QuantReport, Settings

__all__ = ["QuantReport", "Settings", "quantize"]
