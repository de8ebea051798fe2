"""An ONNX graph in memory: read, written, sorted, its shapes inferred."""
