"""What only TensorRT needs: preflight, INT8 placement, mixed precision, fewer kernels."""
