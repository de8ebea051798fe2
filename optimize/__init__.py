"""Graph passes, precision and quantisation: from one ONNX file to a better one."""
