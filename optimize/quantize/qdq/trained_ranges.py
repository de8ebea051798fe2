"""Read a graph that was trained with Q/DQ (QAT) as a float graph and its tensors' ranges, for another target.

Before: x ─Q─DQ─▶ Conv(·, DQ(integers))
After:  x ─▶ Conv(·, float weights), and x: (low, high)
When:   every quantised operator is a QuantizeLinear or DequantizeLinear of 8 bits (biases: 32), one constant scale for
        each activation, each QuantizeLinear read by DequantizeLinear alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, helper

from ...graph.proto_graph import ProtoGraph, attributes
from ...graph.protobuf import copied
from ..placement import is_quantised

Ranges = dict[str, tuple[float, float]]
PAIR = ("QuantizeLinear", "DequantizeLinear")


@dataclass
class _Stripping:
    """One graph whose Q/DQ are being taken out, and the ranges that they had."""

    net: ProtoGraph
    ranges: Ranges = field(default_factory=dict)

    def quantiser(self, node: NodeProto) -> None:
        """Take out a QuantizeLinear and the DequantizeLinear nodes behind it."""
        source, readers = node.input[0], list(self.net.readers.get(node.output[0], []))
        if not readers or any(one.op_type != PAIR[1] for one in readers) or node.output[0] in self.net.outputs:
            raise ValueError(f"{node.name!r} is read by other operators than DequantizeLinear")
        scale, zero = self._grid(node, source in self.net.arrays)
        if source in self.net.arrays:
            kind = np.iinfo(zero.dtype)
            integers = np.clip(np.rint(self.net.arrays[source] / scale) + zero, kind.min, kind.max)
            values = ((integers - zero) * scale).astype(np.float32)
            source = self.net.add_array(f"{source}_trained", values)
        else:
            low, high = self._range(source, float(scale), int(zero), np.iinfo(zero.dtype))
            before = self.ranges.get(source, (low, high))  # another reader may have a grid of its own
            self.ranges[source] = min(low, before[0]), max(high, before[1])
        for reader in readers:
            self._replace(reader, source)
        self.net.graph.node.remove(node)

    def weights(self, node: NodeProto) -> None:
        """Turn a DequantizeLinear of constant integers into constant floats."""
        scale, zero = self._grid(node, True)
        integers = self.net.arrays[node.input[0]].astype(np.float64)
        values = ((integers - zero.astype(np.float64)) * scale).astype(np.float32)
        self._replace(node, self.net.add_array(node.output[0], values))

    def _range(self, name: str, scale: float, zero: int, kind: np.iinfo[np.int8]) -> tuple[float, float]:
        """Return what a grid covers; what is never negative needs no range below 0."""
        low = -127 if kind.min < 0 and zero == 0 else kind.min
        producer = self.net.producer.get(name)
        positive = producer is not None and producer.op_type in ("Relu", "Sigmoid", "HardSigmoid", "Softmax")
        return 0.0 if positive else scale * (low - zero), scale * (kind.max - zero)

    def _grid(self, node: NodeProto, constant: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return scale and zero point, so that they broadcast over a constant, or one value of each."""
        scale = self.net.arrays.get(node.input[1])
        zero = self.net.arrays.get(node.input[2]) if len(node.input) > 2 else np.zeros((), np.uint8)
        if scale is None or zero is None or attributes(node).get("block_size", 0):
            raise ValueError(f"the scale of {node.name!r} is not constant, or one for each block")
        if zero.dtype not in (np.int8, np.uint8, np.int32) or (not constant and scale.size != 1):
            raise ValueError(f"{node.name!r} has {zero.dtype}, {scale.size} scales")
        if scale.size == 1:
            return scale.reshape(()), zero.reshape(-1)[0].reshape(())
        rank = self.net.arrays[node.input[0]].ndim
        shape = [1] * rank
        shape[attributes(node).get("axis", 1) % rank] = scale.size
        return scale.reshape(shape), np.broadcast_to(zero.reshape(-1), scale.size).reshape(shape)

    def _replace(self, node: NodeProto, source: str) -> None:
        """Let a tensor stand for what a node writes, and take the node out."""
        output = node.output[0]
        for reader in self.net.readers.get(output, []):
            if output not in reader.input:
                raise ValueError(f"a body of {reader.name!r} reads {output!r}")
            for at, name in enumerate(reader.input):
                if name == output:
                    reader.input[at] = source
        if output in self.net.outputs:
            self.net.graph.node.append(helper.make_node("Identity", [source], [output], f"{node.name}/float"))
        self.net.graph.node.remove(node)


def without_pairs(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Ranges] | None:
    """Return a float graph and the ranges of its tensors; None where it is float already, or not of this kind.

    Args:
        model: The graph; it is not changed.
    """
    if not is_quantised(model):
        return None
    work = _Stripping(ProtoGraph(copied(model)))
    net = work.net
    try:
        for kind in PAIR:
            for node in [one for one in net.nodes if one.op_type == kind]:
                if kind == PAIR[1] and node.input[0] not in net.arrays:
                    raise ValueError(f"{node.name!r} reads integers that are computed")
                (work.quantiser if kind == PAIR[0] else work.weights)(node)
                net.index()
    except ValueError:
        return None
    net.prune()
    del net.graph.value_info[:]
    return None if is_quantised(net.model) else (net.model, work.ranges)
