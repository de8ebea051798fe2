"""Decide which tensors are quantised, and who reads the quantised value.

trt        x ─Q─DQ─▶ Conv ─▶ Relu ─Q─DQ─▶ Conv ──▶ Add ─Q─DQ─▶     the runtime moves Q up through Relu and pooling
            └────────────────────────────(DQ)──────▲               and fuses; outputs stay float for the fusion
ort-x86    x ─Q─DQ─▶ Conv ─Q─DQ─▶ Conv ─Q─DQ─▶ Add ─Q─DQ─▶         every operator of the region has Q/DQ all round
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx
from onnx import NodeProto

from ..graph import union_find
from ..graph.proto_graph import ProtoGraph, all_nodes, attributes
from .layer_queries import group_count, may_enter, no_integers, row_bias
from .quant_params import QuantParams
from .targets import ANCHORS, MOVES, SHIFTS, TRANSPOSED, WEIGHTED, Target


@dataclass
class QuantPlan:
    """What is quantised: tensors with the nodes that read them so, weighted nodes, tensors that share one scale.

    Attributes:
        quantized_reads: Quantised tensor -> ids of the nodes that read its quantised value.
        layers: Convolutions and matrix products computed in INT8.
        shared_scale: Groups of tensors that must have one scale (union-find parent links).
        other_ops: Other operators computed in INT8.
        kept_float: Weighted or glue nodes left in float -> the reason.
        kinds: Quantised tensor -> the kind of its grid, where that is not the form's.
    """

    quantized_reads: dict[str, set[int]] = field(default_factory=dict)
    layers: list[NodeProto] = field(default_factory=list)
    shared_scale: dict[str, str] = field(default_factory=dict)
    other_ops: list[NodeProto] = field(default_factory=list)
    kept_float: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def root(self, name: str) -> str:
        """Return the representative of a tensor's group."""
        return union_find.root(self.shared_scale, name)

    def join(self, first: str, second: str) -> None:
        """Give two tensors one scale: that of the first one's group."""
        union_find.join(self.shared_scale, first, second)

    def kind(self, name: str, form: Target) -> str:
        """Return the kind of a tensor's grid."""
        return self.kinds.get(name, form.activation_dtype)

    def read(self, name: str, node: NodeProto) -> None:
        """Let a node read the quantised value of a tensor."""
        self.quantized_reads.setdefault(name, set()).add(id(node))

    def readers(self, net: ProtoGraph, name: str) -> list[NodeProto]:
        """Return the nodes that read the quantised value of a tensor, in the graph's order."""
        return [node for node in net.readers.get(name, []) if id(node) in self.quantized_reads[name]]


ON_REQUEST = "kept float on request"


def place(
    net: ProtoGraph, form: Target, keep: frozenset[str] = frozenset(), failed: Mapping[str, str] | None = None
) -> QuantPlan:
    """Choose what is quantised in a graph.

    Args:
        net: The float graph, its BatchNormalization folded.
        form: The target's form.
        keep: Names of nodes that stay float.
        failed: Names of layers that could or should not be quantised -> why; they stay float too.
    """
    plan, reasons = QuantPlan(), dict.fromkeys(keep, ON_REQUEST) | dict(failed or {})
    for node in net.nodes:
        if has_body(node):
            plan.kept_float |= _in_bodies(node)
        if node.op_type in WEIGHTED:
            _place_layer(net, plan, node, form, reasons.get(node.name, ""))
        elif node.name in keep:
            plan.kept_float[node.name] = ON_REQUEST
    if form.quantize_outputs:
        _grow(net, plan, form, keep)
    else:
        _residuals(net, plan)
    return plan


def _place_layer(net: ProtoGraph, plan: QuantPlan, node: NodeProto, form: Target, reason: str) -> None:
    reason = reason or _unfit(net, node, form)
    if reason:
        plan.kept_float[node.name] = reason
        return
    plan.layers.append(node)
    plan.read(node.input[0], node)


def _in_bodies(node: NodeProto) -> dict[str, str]:
    """Return the layers in the bodies of a node, by its name and theirs, with the reason why they stay in float."""
    inner = [one for one in all_nodes(node) if one.op_type in WEIGHTED]
    why = f"it is in a body of {node.op_type}, which stays in float"
    return {f"{node.name}/{one.name or one.op_type}[{at}]": why for at, one in enumerate(inner)}


def has_body(node: NodeProto) -> bool:
    """Say whether a node is an If, a Loop, a Scan or the like: it holds graphs of its own."""
    return any(item.HasField("g") or item.graphs for item in node.attribute)


def _unfit(net: ProtoGraph, node: NodeProto, form: Target) -> str:
    """Return why a layer cannot be quantised; "" where it can."""
    if node.op_type == TRANSPOSED and (not form.transposed or group_count(node) > 1):
        return f"{form.name} has no INT8 kernel for {TRANSPOSED}" + (" in groups" if form.transposed else "")
    if node.op_type not in ANCHORS | {TRANSPOSED}:
        return f"{node.op_type} computes in float"
    weight = net.arrays.get(node.input[1])
    if weight is None:
        return "its weights are computed, not constant"
    if weight.dtype != "float32":
        return f"its weights are {weight.dtype}"
    if node.input[0] in net.arrays:
        return "its input is constant"
    if len(node.input) > 2 and node.input[2] and node.input[2] not in net.arrays:
        return "its bias is computed, not constant"
    values = attributes(node)
    if node.op_type == "Gemm" and (
        values.get("transA") or values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1
    ):
        return "Gemm with transA, alpha or beta"
    if not row_bias(net, node):
        return "its bias differs from row to row"
    return "MatMul with weights of rank other than 2" if node.op_type == "MatMul" and weight.ndim != 2 else ""


def activations(net: ProtoGraph, node: NodeProto) -> list[str]:
    """Return the inputs of a node that are float activations (shapes, indices and constants are not)."""
    first = node.input if node.op_type in {"Add", "Concat"} else node.input[:1]
    return [name for name in first if name and name not in net.arrays]


def _grow(net: ProtoGraph, plan: QuantPlan, form: Target, keep: frozenset[str]) -> None:
    """Quantise what the anchors write, then every operator that reads only quantised tensors."""
    inside, entering = set(plan.quantized_reads) & set(net.inputs), set[str]()
    anchors, last, fed = {id(node) for node in plan.layers}, ends(net, form), _fed(net, plan, form)
    for node in net.nodes:
        reads = activations(net, node)
        if why := no_integers(node) if node.op_type in form.int8_ops and net.is_float(node.output[0]) else "":
            plan.kept_float.setdefault(node.name, why)
            continue
        outside = set(reads) - inside
        wanted = node.op_type in form.int8_ops and node.name not in keep and bool(fed & set(node.output) - last)
        if wanted and all(may_enter(net, name, node) for name in outside):
            entering |= outside
            inside |= outside
        if id(node) in anchors:
            convolution = node.op_type in ("Conv", TRANSPOSED)
            if node.output[0] in last or (not convolution and set(node.output) & set(net.outputs)):
                continue
            inside.add(node.output[0])
        elif node.op_type in form.int8_ops and reads and node.name not in keep and set(reads) <= inside:
            if node.op_type not in MOVES and len(reads) != len([name for name in node.input if name]):
                continue
            if node.op_type == "Concat" and node.output[0] in last:
                continue
            outputs = [name for name in node.output if name]
            outputs = outputs if node.op_type == "Split" else outputs[:1]  # a MaxPool's indices are no activation
            inside |= set(outputs)
            plan.other_ops.append(node)
            for name in outputs if node.op_type in MOVES - {"Relu", "Clip"} else ():
                plan.join(reads[0], name)
    # Everyone reads the quantised value of what is inside: a float reader would keep the operator from fusing.
    for name in sorted(inside):
        plan.quantized_reads.setdefault(name, set())
        for reader in net.readers.get(name, []):
            from_float = name in net.inputs or name in entering
            if not has_body(reader) and (not from_float or id(reader) in anchors or reader in plan.other_ops):
                plan.read(name, reader)


def _fed(net: ProtoGraph, plan: QuantPlan, form: Target) -> set[str]:
    """Return the tensors that layers read in INT8, and what only INT8 operators stand between."""
    names = {node.input[0] for node in plan.layers}
    for node in reversed(net.nodes):
        if node.op_type in form.int8_ops and names & set(node.output):
            names |= set(activations(net, node))
    return names


def ends(net: ProtoGraph, form: Target) -> set[str]:
    """Return the tensors behind which nothing computes in INT8: moved as they are, or read by float operators alone.

    What layers and Concat write there stays float. Boxes in pixels beside logits of a few units would share one scale,
    in which the logits are all the same number; and no later operator is quicker for it.
    """
    names: set[str] = set()
    leads: set[str] = set()  # tensors that a layer reads, or something that leads to one
    for node in reversed(net.nodes):
        if node.op_type in ANCHORS or node.op_type == TRANSPOSED or leads & set(node.output):
            leads |= set(node.input)
    for node in reversed(net.nodes):
        for name in node.output:
            readers = net.readers.get(name, [])
            if name not in leads and all(_ends_with(reader, names, form) for reader in readers):
                names.add(name)
    return names


def _ends_with(node: NodeProto, float_ends: set[str], form: Target) -> bool:
    """Say whether a node that leads to no layer leaves what it reads in float."""
    if node.op_type in SHIFTS | {"Resize"}:
        return {name for name in node.output if name} <= float_ends
    return node.op_type not in form.int8_ops


def share_concats(plan: QuantPlan, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Give what is concatenated one scale, so that nothing is requantised, where that costs less than one bit.

    Not where one range starts at zero and another does not: the Relu before it could then not become a range.
    """
    for node in plan.other_ops:
        if node.op_type != "Concat" or node.output[0] not in plan.quantized_reads:
            continue
        seen = [ranges[plan.root(name)] for name in node.input]
        spans = [high - low for low, high in seen]
        if len({low < 0 for low, _ in seen}) == 1 and max(spans) <= 2 * min(spans):
            for name in node.input:
                plan.join(node.output[0], name)


def _residuals(net: ProtoGraph, plan: QuantPlan) -> None:
    """Quantise one input of an addition: the one that is not the convolution which the addition fuses into."""
    anchors = {id(node) for node in plan.layers if node.op_type != TRANSPOSED}
    order = {id(node): index for index, node in enumerate(net.nodes)}
    for node in net.nodes:
        if node.op_type != "Add" or len(activations(net, node)) != 2 or node.input[0] == node.input[1]:
            continue
        convs = [name for name in node.input if id(net.producer.get(name)) in anchors and len(net.readers[name]) == 1]
        if not convs:
            continue
        fused = max(convs, key=lambda name: order[id(net.producer[name])])
        other = node.input[0] if node.input[1] == fused else node.input[1]
        plan.read(other, node)
        plan.other_ops.append(node)


def foldable(net: ProtoGraph, node: NodeProto) -> tuple[float, float] | None:
    """Return the (low, high) that a Relu or Clip with constant bounds limits to, or None for any other node."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    names = [node.input[index] if len(node.input) > index else "" for index in (1, 2)]
    if any(name and name not in net.arrays for name in names):
        return None
    low, high = (float(net.arrays[name]) if name else bound for name, bound in zip(names, (-3e38, 3e38), strict=True))
    return (low, high) if low == 0 else None


def inside_layers(net: ProtoGraph, plan: QuantPlan) -> set[str]:
    """Return the tensors between a layer and the Relu or Clip that may be folded into the quantiser after it."""
    inner = {node.input[0] for node in plan.other_ops if foldable(net, node)}
    return {name for name in inner if len(net.readers[name]) == 1 and name not in net.outputs}


def fold_relus(net: ProtoGraph, plan: QuantPlan, grids: Mapping[str, QuantParams]) -> dict[str, tuple[str, float]]:
    """Remove each Relu or Clip(0, h) whose quantiser limits to the same range; return name -> (tensor y, h).

    Before    Conv ─▶ t ─▶ Clip(0, 6) ─▶ y ─Q(scale 6/255, zero point 0)
    After     Conv ─▶ y ─Q(scale 6/255, zero point 0)
    When      t has no other reader, and the grid of y starts at 0 and ends at most at the Clip's high (a grid shared
              with a tensor that has negative values does not).
    Why       An unsigned quantiser with zero point 0 saturates at 0 and at 255 * scale: it is the Clip.
    """
    folded = {}
    for node in list(plan.other_ops):
        inner, outer, bounds = node.input[0], node.output[0], foldable(net, node)
        producer = net.producer.get(inner)
        if bounds is None or grids[outer].low != 0 or grids[outer].high > bounds[1] * (1 + 1e-6):
            continue
        if producer is None or len(net.readers[inner]) != 1 or inner in net.outputs or inner in plan.shared_scale:
            continue
        if inner in plan.shared_scale.values() or inner not in plan.quantized_reads:
            continue
        producer.output[list(producer.output).index(inner)] = outer
        net.graph.node.remove(node)
        plan.other_ops.remove(node)
        del plan.quantized_reads[inner]
        folded[node.name] = outer, bounds[1]
    net.index()
    return folded


def is_quantised(model: onnx.ModelProto) -> bool:
    """Say whether a graph holds quantised operators already."""
    marks = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger", "QLinearMatMul"}
    return any(node.op_type in marks for node in model.graph.node)
