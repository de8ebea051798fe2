"""Sessions of single nodes: nodes that differ only in names and values share one.

The quantised graph of MobileNetV2 has 300 nodes and its float graph 100; they are of some thirty kinds. So constants
are fed like activations, shapes are left free, and what is left is the key: operator, attributes, types, opset.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from ...calibration.ort_runs import session
from ...graph.protobuf import captured

# Operators that compute the same bits whether an input is a constant or fed. ONNX Runtime packs the constants of others
# (Gemm, MatMul, ConvTranspose, recurrent ones) beforehand; those it gets as constants, in a session of their own.
FED = frozenset(
    {"Add", "Clip", "Concat", "Conv", "DequantizeLinear", "Div", "Mul", "Pad", "QuantizeLinear", "ReduceMean",
     "ReduceSum", "Reshape", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze"}
)  # fmt: skip
# Each open session has its own threads, so not all that a large network needs stay open.
MOST = 48


class NodeSessions:
    """Sessions by what they compute; those used longest ago are closed beyond MOST.

    Args:
        opsets: The operator sets of the nodes' graphs.
    """

    def __init__(self, opsets: Iterable[onnx.OperatorSetIdProto]) -> None:
        self.opsets = opsets
        self.opened: dict[bytes, Any] = {}

    def prepared(
        self, node: NodeProto, values: dict[str, np.ndarray], constants: dict[str, np.ndarray]
    ) -> tuple[Any, dict[str, str], dict[str, np.ndarray]]:
        """Return a session that computes a node, its input for each value, and the constants to feed it with.

        Args:
            node: The node.
            values: The activations that it reads.
            constants: The other tensors that it reads; each input of the node that is not "" is in one of the two.

        Raises:
            ModelError: ONNX Runtime refuses the node.
        """
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.name = copy.doc_string = ""
        copy.ClearField("metadata_props")
        names = {name: f"in{at}" for at, name in enumerate(dict.fromkeys(filter(None, node.input)))}
        if captured(node):  # a body reads tensors by their own names
            names = {name: name for name in (*values, *constants)}
        outputs = [f"out{at}" if name else "" for at, name in enumerate(node.output)]
        del copy.input[:], copy.output[:]
        copy.input.extend([names.get(name, "") for name in node.input])
        copy.output.extend(outputs)
        feeds = {names[name]: value for name, value in constants.items() if _feedable(node, value)}
        fixed = {name: value for name, value in constants.items() if names[name] not in feeds}
        graph = helper.make_graph(
            [copy],
            "one",
            [_info(names[name], value) for name, value in values.items()]
            + [_info(name, value) for name, value in feeds.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs if name],
            [numpy_helper.from_array(value, names[name]) for name, value in fixed.items()],
        )
        model = helper.make_model(graph, opset_imports=self.opsets, ir_version=10)
        return self._session(model, keep=not fixed), {name: names[name] for name in values}, feeds

    def _session(self, model: onnx.ModelProto, keep: bool) -> Any:
        """Return a session of a model: an open one if there is one; what holds constants is not kept."""
        key = model.SerializeToString(deterministic=True) if keep else b""
        run = self.opened.pop(key, None) or session(model, warm=False)
        if keep:
            self.opened[key] = run
            if len(self.opened) > MOST:
                del self.opened[next(iter(self.opened))]
        return run


def _feedable(node: NodeProto, value: np.ndarray) -> bool:
    """Say whether a constant may be fed: numpy itself has its type, and it is read the same way."""
    return node.op_type in FED and node.domain in ("", "ai.onnx") and value.dtype.kind in "fiub"


def _info(name: str, value: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), None)
