"""Rewrite a float graph so that its nodes compute in FP16 or BF16, with a Cast wherever the two kinds meet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..graph.proto_graph import ProtoGraph, all_inputs, sort_nodes, tensor_types
from ..graph.protobuf import copied
from ..graph.upgrade import raised, standard_opset
from .formats import FP16, KEEP_FLOAT, NEAR_OPSET, HalfFormat

FLOAT = TensorProto.FLOAT
# Bounds that mean «none» in FP32 and may be narrowed to FP16's without changing anything that FP16 can hold.
BOUNDED = {"Clip": (1, 2), "Pad": (2,), "Max": (0, 1), "Min": (0, 1)}
# Inputs whose loss costs nothing where all of them are that small: biases, and the scales of Q/DQ.
HARMLESS = {("Conv", 2), ("Gemm", 2), ("ConvTranspose", 2), ("QuantizeLinear", 1), ("DequantizeLinear", 1)}


@dataclass
class CastResult:
    """The result: the model, how many nodes are half, which stayed float and why, the Casts, flushed weights.

    `kinds` is the data type of each tensor of the model.
    """

    model: onnx.ModelProto
    half: int = 0
    kept: dict[str, str] = field(default_factory=dict)
    casts: int = 0
    flushed: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


def cast_graph(
    model: onnx.ModelProto,
    kept: dict[str, str] | None = None,
    kind: HalfFormat = FP16,
    types: list[onnx.ValueInfoProto] | None = None,
) -> CastResult:
    """Return a copy of a model that computes in FP16 or BF16; its graph inputs and outputs keep their types.

    Args:
        model: A model whose node types are inferable; Q/DQ nodes are cast too (opset 19 is then declared; 22 for BF16,
            which convolutions have from there on).
        kept: Name of a node that must stay float -> the reason.
        kind: What half is.
        types: Those of the model's tensors, where they are known (`tensor_types`).
    """
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if quantised and standard_opset(model) < NEAR_OPSET:  # reductions have their axes as an input from there on
        model, types = raised(model, NEAR_OPSET), None
    known = tensor_types(model) if types is None else types
    return _Fp16Caster(copied(model), dict(kept or {}), kind, known).run()


class _Fp16Caster:
    def __init__(
        self, model: onnx.ModelProto, kept: dict[str, str], kind: HalfFormat, types: Iterable[onnx.ValueInfoProto]
    ) -> None:
        graph, self.half = model.graph, kind
        self.kinds = {item.name: item.type.tensor_type.elem_type for item in types}
        self.net = ProtoGraph(model)
        quantised = any(node.op_type == "QuantizeLinear" for node in graph.node)
        if self.net.opset < (least := max(kind.opset, 19 if quantised else 0)):
            _declare(model, least)
            self.net.opset = least
        self.kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
        self.result = CastResult(model, kept={}, kinds=self.kinds)
        self.reasons = kept | self._captured()
        self.made: dict[tuple[str, int], str] = {}
        self.tiny = self.weights = 0

    def _captured(self) -> dict[str, str]:
        """Name the nodes whose outputs a body of If, Loop or Scan reads: the body keeps its own types."""
        bodies = [(node, set(node.input), all_inputs(node)) for node in self.net.nodes]
        names = {name for _, own, every in bodies for name in every - own}
        producers = {name: self.net.producer[name] for name in names if name in self.net.producer}
        return {node.name or node.output[0]: f"a body reads {name}" for name, node in producers.items()}

    def run(self) -> CastResult:
        net, graph = self.net, self.net.graph
        for node in list(graph.node):
            self._convert(node)
        self._restore_names()
        del graph.value_info[:]
        sort_nodes(graph)
        net.index()
        net.prune()
        self.result.flushed = self.tiny / max(self.weights, 1)
        return self.result

    def _convert(self, node: NodeProto) -> None:
        wants, gives, reason = self._roles(node)
        if reason:
            self.result.kept[node.name or node.output[0]] = reason
        for index, name in enumerate(node.input):
            if self.kinds.get(name) in (FLOAT, self.half.type):
                node.input[index] = self._as(name, self.half.type if index in wants else FLOAT)
        if wants or gives:
            self.result.half += 1
            self._attributes(node)
        for index, name in enumerate(node.output):
            if index in gives:
                self.kinds[name] = self.half.type

    def _roles(self, node: NodeProto) -> tuple[set[int], set[int], str]:
        """Return which inputs and outputs become half, and why none do (empty: they do, or nothing is float)."""
        kinds = (FLOAT, self.half.type)
        floats = [name for name in (*node.input, *node.output) if self.kinds.get(name) in kinds]
        if not floats:
            return set(), set(), ""
        wants, gives = (
            {index for index, types in enumerate(_types(node, side, self.net.opset)) if self.half.word in types}
            for side in ("inputs", "outputs")
        )
        wants = {index for index in wants if self.kinds.get(node.input[index]) in kinds}
        gives = {index for index in gives if self.kinds.get(node.output[index]) == FLOAT}
        reason = self.reasons.get(node.name or node.output[0], "") or self._refusal(node, wants, gives)
        return (set(), set(), reason) if reason else (wants, gives, "")

    def _refusal(self, node: NodeProto, wants: set[int], gives: set[int]) -> str:
        if node.op_type in KEEP_FLOAT:
            return f"{node.op_type} stays float"
        if node.op_type in self.half.refused:
            return f"TensorRT reads no {node.op_type} in {self.half.name}"
        if not wants and not gives:
            return (
                f"{node.op_type} has no {self.half.name} type" if node.op_type not in {"Cast", "Shape", "Size"} else ""
            )
        for index in wants:
            array = self.net.arrays.get(node.input[index])
            if array is None or index in BOUNDED.get(node.op_type, ()):
                continue
            peak = float(np.abs(array).max(initial=0))
            if not peak <= self.half.largest:
                return f"{node.input[index]} holds {peak:.3g}, beyond {self.half.largest:.5g}"
            if 0 < peak < self.half.smallest and (node.op_type, index) not in HARMLESS:
                return f"{node.input[index]} holds nothing above {peak:.1g}, below {self.half.bottom}"
        return ""

    def _as(self, name: str, kind: int) -> str:
        """Return the name under which a tensor is read in a kind, casting it (once) where it is of the other."""
        if self.kinds[name] == kind:
            return name
        if (name, kind) not in self.made:
            array = self.net.arrays.get(name)
            if array is not None:
                self.made[name, kind] = self.net.add_array(f"{name}_{self.half.name.lower()}", self._halved(array))
            else:
                new = self.net.fresh(f"{name}_{'fp32' if kind == FLOAT else self.half.name.lower()}")
                cast = helper.make_node("Cast", [name], [new], f"{new}/Cast", to=kind)
                self.net.graph.node.append(cast)
                self.result.casts += 1
                self.made[name, kind] = new
            self.kinds[self.made[name, kind]] = kind
        return self.made[name, kind]

    def _halved(self, array: np.ndarray) -> np.ndarray:
        self.weights += int(np.count_nonzero(array))
        self.tiny += int(np.count_nonzero((array != 0) & (np.abs(array) < self.half.smallest)))
        return np.asarray(np.clip(array, -self.half.largest, self.half.largest), self.half.dtype())

    def _attributes(self, node: NodeProto) -> None:
        for item in node.attribute:
            if node.op_type == "Cast" and item.name == "to" and item.i == FLOAT:
                item.i = self.half.type
            elif item.type == onnx.AttributeProto.TENSOR and item.t.data_type == FLOAT:
                item.t.CopyFrom(numpy_helper.from_array(self._halved(numpy_helper.to_array(item.t)), item.t.name))

    def _restore_names(self) -> None:
        """Graph outputs that became half get a Cast back to float under their own name."""
        for item in self.net.graph.output:
            if self.kinds.get(item.name) != self.half.type or item.type.tensor_type.elem_type != FLOAT:
                continue
            inner = self.net.fresh(f"{item.name}_{self.half.name.lower()}")
            for node in self.net.graph.node:
                for names in (node.input, node.output):
                    for index, name in enumerate(names):
                        if name == item.name:
                            names[index] = inner
            cast = helper.make_node("Cast", [inner], [item.name], f"{item.name}/Cast", to=FLOAT)
            self.net.graph.node.append(cast)
            self.kinds |= {inner: self.half.type, item.name: FLOAT}
            self.result.casts += 1


def _declare(model: onnx.ModelProto, version: int) -> None:
    for item in model.opset_import:
        if item.domain in ("", "ai.onnx"):
            item.version = version


def _types(node: NodeProto, side: str, opset: int) -> list[set[str]]:
    """Return the ONNX types that the schema allows at each input or output of a node (empty: unknown operator)."""
    names = node.input if side == "inputs" else node.output
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    except onnx.defs.SchemaError:
        return [set() for _ in names]
    formal = getattr(schema, side)
    allowed = {item.type_param_str: set(item.allowed_type_strs) for item in schema.type_constraints}
    slots = [formal[min(index, len(formal) - 1)] for index in range(len(names))]
    return [allowed.get(slot.type_str, {slot.type_str}) for slot in slots]
