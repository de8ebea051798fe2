"""Replace FP32 Gemm, which TensorRT-RTX does not support on SM 7.5 (Turing), by a 1x1 convolution.

Before    Gemm(x, W, b), transA 0, alpha 1, beta 1       x (N, K), W (K, M) or with transB (M, K), b (M)
After     Flatten(Conv(Unsqueeze(x), W', b))              x (N, K, 1, 1), W' (M, K, 1, 1)
When      W and b are constants in float32. Any other Gemm, and MatMul, is kept, and the preflight reports it.
Why       «FP32 GEMM is not supported» for SM 7.5; the convolution is supported and computes the same sum.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..graph.graph import Graph
from ..graph.node import GraphTensor, Node


def gemm_to_conv(source: str | Path, target_path: str | Path) -> int:
    """Replace the Gemms of an ONNX file and verify that its outputs are equal.

    Args:
        source: The file.
        target_path: The result; it is not written if there is nothing to rewrite.

    Returns:
        The number of Gemms replaced.

    Raises:
        UsageError: No such file.
        ModelError: Not a usable ONNX file.
        CheckFailed: The result has other outputs (a bug; nothing is written).
    """
    from .. import checked_write
    from ..graph import reader

    net = reader.read(source)
    count = sum(_gemm_to_conv(net, node) for node in net.nodes("Gemm"))
    if not count:
        return 0
    net.sort()
    checked_write.write_checked(net, source, target_path)
    return count


def _gemm_to_conv(net: Graph, node: Node) -> bool:
    weight = net.value(node.inputs[1])
    bias = None if net.input(node, 2) is None else net.value(node.inputs[2])
    plain = not node.attrs.get("transA", 0) and node.attrs.get("alpha", 1.0) == 1 and node.attrs.get("beta", 1.0) == 1
    if weight is None or weight.dtype != np.float32 or not plain or (net.input(node, 2) is not None and bias is None):
        return False
    matrix = weight if node.attrs.get("transB", 0) else weight.T
    if bias is not None and bias.size not in (1, matrix.shape[0]):
        return False
    source, output, near = node.inputs[0], node.outputs[0], node
    inputs = [net.constant(f"{node.name}_weight", np.ascontiguousarray(matrix)[..., None, None])]
    if bias is not None:
        inputs.append(net.constant(f"{node.name}_bias", np.broadcast_to(bias.reshape(-1), matrix.shape[:1]).copy()))
    wide, conv_output = net.blank(f"{node.name}_nchw"), net.blank(f"{node.name}_conv")
    net.drop(node)
    net.add("Flatten", [conv_output], [output], near, {"axis": 1})
    net.add("Conv", [wide, *inputs], [conv_output], near, {"kernel_shape": [1, 1]})
    _unsqueeze(net, source, wide, near)
    return True


def _unsqueeze(net: Graph, source: GraphTensor, wide: GraphTensor, near: Node) -> None:
    if net.opset < 13:
        net.add("Unsqueeze", [source], [wide], near, {"axes": [2, 3]})
    else:
        net.add("Unsqueeze", [source, net.constant(f"{wide.name}_axes", np.array([2, 3], np.int64))], [wide], near)
