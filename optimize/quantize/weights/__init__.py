"""Weights in INT8: scales, rounding, and layer-wise reconstruction."""
