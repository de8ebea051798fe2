"""Sources of a network: the zoo, a Python file or package, a module in memory, timm, torchvision, ONNX files."""
