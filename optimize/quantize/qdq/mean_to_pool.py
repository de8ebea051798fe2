"""Means over all pixels as pools, which ONNX Runtime and OpenVINO compute in INT8."""

from __future__ import annotations

import onnx

PASS = "mean_to_pool_flat"


def pooled(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with each ReduceMean over all spatial axes as GlobalAveragePool and Flatten.

    ReduceMean has no INT8 kernel: each costs a conversion to float, one back, and the way out of the kernels' layout.

    Raises:
        ModelError: The graph is broken.
    """
    if all(node.op_type != "ReduceMean" for node in model.graph.node):
        return model
    from ...graph.reader import read
    from ...graph.writer import to_proto
    from ...optimizer import find
    from ...passes._base import RewriteFilter

    net = read(model)
    net.refresh()
    find(PASS).call(net, PASS, RewriteFilter())
    return to_proto(net)
