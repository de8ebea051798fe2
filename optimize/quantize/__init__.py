"""Post-training quantisation to INT8."""
