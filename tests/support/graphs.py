"""Tiny ONNX models from text, with weights drawn from a seeded generator."""

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser


def model(text, weights=None, opset=18, ir=9, seed=0):
    """Parse `(inputs) => (outputs) { nodes }` into a model.

    Args:
        text: The graph in ONNX's textual syntax, without its name.
        weights: Name to array, or to a shape (a tuple: normal floats, "+" before the name: positive ones).
        opset: The standard operator set.
        ir: The IR version.
        seed: Of the generator.
    """
    made = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}, "custom" : 1]> g {text}')
    rng = np.random.default_rng(seed)
    for name, value in (weights or {}).items():
        array = value
        if isinstance(value, tuple):
            array = rng.standard_normal(value).astype(np.float32)
            array = np.abs(array) + np.float32(0.5) if name.startswith("+") else array
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name.lstrip("+")))
    for index, node in enumerate(made.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return made


def batchnorm(channels, names="gbmv", dtype=np.float32, seed=1):
    """Return gain, bias, mean and a positive variance under the given one-letter names."""
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(0.5, 1.5, channels), *rng.standard_normal((2, channels)), rng.uniform(0.5, 1.5, channels)]
    return {name: array.astype(dtype) for name, array in zip(names, arrays, strict=True)}


def ops(path_or_model):
    """Return the sorted node types of a model."""
    loaded = path_or_model if isinstance(path_or_model, onnx.ModelProto) else onnx.load(path_or_model)
    return sorted(node.op_type for node in loaded.graph.node)
