"""Modules only for TensorRT: preflight, INT8 placement, mixed precision, fewer kernels."""
