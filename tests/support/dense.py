"""The dense convolutions that the machine's ceilings are measured with, as ONNX files of a few hundred bytes.

    python tests/support/dense.py        # writes bench/dense/*.onnx

Weights are ConstantOfShape, which ONNX Runtime folds when it loads the file: measured as fast as stored weights (0.97
to 1.04 of their rate).
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]


def dense(shape: "tuple[int, int, int, int]", precision: str) -> onnx.ModelProto:
    """Return one convolution: FP32, or U8 activations with S8 weights; (channels in, out, side, kernel)."""
    wide, out, side, kernel = shape
    integers = precision == "int8"
    kind = TensorProto.UINT8 if integers else TensorProto.FLOAT
    ends = [
        helper.make_tensor_value_info(name, kind, [1, count, side, side]) for name, count in (("x", wide), ("y", out))
    ]
    constants = {"dims": np.array([out, wide, kernel, kernel], np.int64)}
    names = ["x", "w"]
    if integers:
        constants |= {
            "s": np.float32(1),
            "zu": np.uint8(0),
            "zs": np.zeros(out, np.int8),
            "ws": np.ones(out, np.float32),
        }
        names = ["x", "s", "zu", "w", "ws", "zs", "s", "zu"]
    one = numpy_helper.from_array(np.ones(1, np.int8 if integers else np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["dims"], ["w"], value=one),
        helper.make_node("QLinearConv" if integers else "Conv", names, ["y"], pads=[kernel // 2] * 4),
    ]
    arrays = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "dense", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def main() -> None:
    """Write the files again."""
    from edgesmith.bench.measure import machine_peaks

    for precision in ("fp32", "int8"):
        for shape in machine_peaks.DENSE:
            onnx.save(dense(shape, precision), ROOT / "bench" / "dense" / machine_peaks.file_name(shape, precision))


if __name__ == "__main__":
    main()
