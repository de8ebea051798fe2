"""The parts of an output: what a Concat joins is judged by itself, or pixels of hundreds hide logits of a few units.

A copy of the graph answers, in place of each value, the number of the tensor that it comes from: behind the last
operators that compute there are only those that move values (a Concat among them), and functions of one value each.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ..calibration.ort_runs import answers, session
from ..graph.proto_graph import ProtoGraph
from ..graph.protobuf import copied
from .targets import SHIFTS

# Functions of each value by itself; what they answer comes from what they read.
ALONE = frozenset(
    {"Relu", "Clip", "Sigmoid", "HardSigmoid", "Tanh", "Exp", "Neg", "Abs", "Sqrt", "Cast", "LeakyRelu", "Elu",
     "Softplus"}
)  # fmt: skip
TAG = "part/"


class Parts:
    """Which part each value of the outputs belongs to.

    Args:
        model: The float graph.
        names: Tensors of it in place of its outputs.
    """

    def __init__(self, model: onnx.ModelProto, names: list[str] | None = None) -> None:
        self.names = [item.name for item in model.graph.output] if names is None else names
        self.leaves: list[str] = []
        self._known: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
        self._tags = self._tagged(model)

    def _tagged(self, model: onnx.ModelProto) -> onnx.ModelProto | None:
        """Return the graph that answers numbers of leaves for each output with a Concat behind it, or None."""
        net = ProtoGraph(copied(model))
        tagged: set[str] = set()
        wanted = [name for name in self.names if _joins(net, name)]
        for name in wanted:
            self._tag(net, name, tagged)
        if not wanted:
            return None
        del net.graph.output[:]
        net.graph.output.extend([helper.make_empty_tensor_value_info(TAG + name) for name in wanted])
        self._known = {name: {} for name in wanted}
        return net.model

    def _tag(self, net: ProtoGraph, name: str, tagged: set[str]) -> None:
        """Add the nodes that compute the numbers of one tensor, those of what it comes from first."""
        if name in tagged:
            return
        tagged.add(name)
        node = net.producer.get(name)
        if node is None or not _moves(node):
            value = helper.make_tensor("value", onnx.TensorProto.FLOAT, [1], [float(len(self.leaves))])
            self.leaves.append(name)
            net.graph.node.append(helper.make_node("Shape", [name], [f"{TAG}shape/{name}"]))
            net.graph.node.append(
                helper.make_node("ConstantOfShape", [f"{TAG}shape/{name}"], [TAG + name], value=value)
            )
            return
        for source in _moved(node):
            self._tag(net, source, tagged)
        tagged |= set(node.output)
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = TAG + node.name
        for index, source in enumerate(_moved(node)):
            copy.input[index] = TAG + source
        for index, target in enumerate(node.output):
            copy.output[index] = TAG + target if target else ""
        if node.op_type in ALONE:
            copy = helper.make_node("Identity", [copy.input[0]], [copy.output[0]])
        net.graph.node.append(copy)

    def of(self, name: str, shape: tuple[int, ...], feeds: dict[str, np.ndarray]) -> np.ndarray | None:
        """Return the number of the part of each value of an output of this shape, or None where all are one part."""
        if self._tags is None or name not in self._known:
            return None
        if shape not in self._known[name]:
            values = answers(session(self._tags, optimise=True), feeds)
            for one, value in zip(self._known, values, strict=True):
                self._known[one][value.shape] = value.astype(np.int64)
        numbers: np.ndarray | None = self._known[name].get(shape)
        return numbers if numbers is not None and numbers.size and numbers.min() != numbers.max() else None

    def title(self, name: str, numbers: np.ndarray, part: int) -> str:
        """Return how a part is called: `boxes[:, 0:4]` where it is a range of each axis, else after its tensor."""
        places = np.nonzero(numbers == part)
        ends = [(int(at.min()), int(at.max()) + 1) for at in places]
        if np.prod([high - low for low, high in ends]) != len(places[0]):
            return f"{name} from {self.leaves[part]}"
        cuts = [
            ":" if pair == (0, size) else "{}:{}".format(*pair) for pair, size in zip(ends, numbers.shape, strict=True)
        ]
        while cuts[-1] == ":":
            cuts.pop()
        return f"{name}[{', '.join(cuts)}]"


def _moves(node: onnx.NodeProto) -> bool:
    return node.op_type in SHIFTS or node.op_type in ALONE


def _moved(node: onnx.NodeProto) -> list[str]:
    """Return the inputs whose values stand in the output: not shapes and indices."""
    return list(node.input if node.op_type == "Concat" else node.input[:1])


def _joins(net: ProtoGraph, name: str) -> bool:
    """Say whether a Concat stands behind an output, with only operators between that move values."""
    todo, seen = [name], set()
    while todo:
        node = net.producer.get(todo.pop())
        if node is None or not _moves(node) or node.output[0] in seen:
            continue
        if node.op_type == "Concat":
            return True
        seen.add(node.output[0])
        todo += _moved(node)
    return False
