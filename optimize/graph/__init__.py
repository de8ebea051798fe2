"""An ONNX graph in memory: reading, writing, sorting and shape inference."""
