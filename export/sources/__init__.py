"""Where a network comes from: our zoo, a Python file or package, a module in memory, timm, torchvision, ONNX files."""
