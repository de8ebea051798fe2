"""Zero points moved into biases, for runtimes whose integers stand symmetrically around zero.

Before    Conv(W, b) ─▶ Clip(l, h) ─▶ x ─Q(s, z)─DQ─▶ Conv(V, d, pads p)
After     Conv(W, b + o) ─▶ Clip(l + o, h + o) ─▶ Pad(p, o) ─Q(s, 0)─DQ─▶ Conv(V, d - o sum V, no pads)     o = s z
When      Only layers with constant weights and residual additions read the quantised x, and all pad alike (`kinds`).
          Where no layer alone writes x, an Add of o before the Pad does what the bias does.
Why       With zero point 0 what never falls below 0, as behind a Relu, leaves half of the integers unused: a bit. The
          integers are the same ones before and after; the padding is o because o is where 0 has gone to.

TensorRT-RTX computes Clip, Add and Pad in the kernel that rounds, so they cost none; what other versions of TensorRT do
with Pad and Add was never seen, so that only the form `trt-rtx` has them
(docs/decisions/036-zero-points-live-in-biases.md). `uncentre` is the way back: the file says which were moved.
"""

from __future__ import annotations

import json
from collections.abc import Collection

import numpy as np
from onnx import NodeProto, helper

from ...calibration.statistics import Stats
from ...graph.proto_graph import ProtoGraph, attributes
from ..layer_queries import is_plain, pads, pads_by_list, readers_behind
from ..placement import QuantPlan
from ..targets import Target
from .explicit_padding import to_conv_pads, to_explicit_pad

MOVED = "edgesmith.zero_points"
OFFSET = "offset"
# A grid must become narrower by so much, or zero stays where it is.
WORTH = 1.1
# What passes a constant that is added to all channels on as it is, and reads nothing else but shapes.
PASSES = frozenset(
    {"Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "Flatten", "Reshape",
     "Squeeze", "Unsqueeze", "Transpose", "Identity", "Dropout"}
)  # fmt: skip


def tensors_with_zero_point(net: ProtoGraph, plan: QuantPlan, stats: dict[str, Stats], form: Target) -> dict[str, str]:
    """Return the kind of grid of the tensors that get a zero point while the graph is made: tensor -> "s8".

    Args:
        net: The float graph, before Q/DQ stand.
        plan: What is quantised.
        stats: Ranges of the quantised tensors.
        form: The target's form.
    """
    if not form.zero_points_in_biases:
        return {}
    shared = {*plan.shared_scale, *plan.shared_scale.values(), *net.outputs}
    names = [name for name in sorted(plan.quantized_reads) if name in stats and name not in shared]
    able = [name for name in names if _gains(stats[name]) and _movable(net, plan, name)]
    return {name: "s8" for name in able if form.explicit_padding or _free(net, plan, name)}


def _gains(seen: Stats) -> bool:
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    return 2 * max(-low, high) > WORTH * (high - low) > 0


def _movable(net: ProtoGraph, plan: QuantPlan, name: str) -> bool:
    """Say whether all that read the quantised tensor can take a constant away again."""
    layers = {id(node) for node in plan.layers}
    readers = plan.readers(net, name)
    sums = [node for node in readers if node.op_type == "Add"]
    rest = [node for node in readers if node.op_type != "Add"]
    plain = all(id(node) in layers and _is_layer(node) and is_plain(net, node) and pads_by_list(node) for node in rest)
    # TensorRT rounds before it pools: an Add or a Pad behind that is a kernel of its own. Not the Pad of depthwise
    # layers, whose channels are laid out anew in any case.
    dense = any(pads(node) and attributes(node).get("group", 1) == 1 for node in rest)
    pooled = name in net.producer and net.producer[name].op_type == "MaxPool"
    costs = pooled and (dense or not _decided(net, plan, name))
    return plain and not costs and all(_addend(net, node, name) for node in sums)


def _free(net: ProtoGraph, plan: QuantPlan, name: str) -> bool:
    """Say whether a zero point moves without a Pad or an Add: nobody pads, and layers alone write the tensor."""
    return not any(pads(node) for node in net.readers.get(name, [])) and _decided(net, plan, name)


def _decided(net: ProtoGraph, plan: QuantPlan, name: str) -> bool:
    """Say whether layers alone write what only quantised readers read, so that no Add is needed."""
    readers = net.readers.get(name, [])
    return all(id(node) in plan.quantized_reads[name] for node in readers) and bool(
        _path(net, name, readers=len(readers))
    )


def _is_layer(node: NodeProto | None) -> bool:
    return node is not None and node.op_type in {"Conv", "Gemm"}


def _addend(net: ProtoGraph, node: NodeProto, name: str) -> NodeProto | None:
    """Return the layer that writes the other input of an addition, for it alone."""
    others = [other for other in node.input if other != name]
    return _layer(net, others[0]) if len(others) == 1 else None


def _layer(net: ProtoGraph, name: str, readers: int = 1) -> NodeProto | None:
    """Return the layer with a bias of its own that writes a tensor which so many nodes read."""
    maker = net.producer.get(name)
    if maker is None or not _is_layer(maker) or len(net.readers.get(name, [])) != readers:
        return None
    own = len(maker.input) > 2 and maker.input[2] in net.arrays and attributes(maker).get("beta", 1) == 1
    return maker if own and name not in net.outputs else None


def move_zero_points_to_biases(net: ProtoGraph, names: Collection[str] | None = None) -> dict[str, int]:
    """Move zero points of a Q/DQ graph into biases, and note in the model which were moved.

    Args:
        net: A graph as `emit` leaves it, with float biases; changed in place.
        names: Only those of these QuantizeLinear nodes; None: all.

    Returns:
        QuantizeLinear's name -> the zero point that it had.
    """
    done: dict[str, int] = {}
    for quantiser in [node for node in net.nodes if node.op_type == "QuantizeLinear"]:
        zero = int(net.arrays[quantiser.input[2]])
        if zero and (names is None or quantiser.name in names):
            by = _offset(net, quantiser, zero)
            _move(net, quantiser, by)
            net.set_array(quantiser.input[2], np.array(0, np.int8))
            to_explicit_pad(net, quantiser, by)
            done[quantiser.name] = zero
    if done:
        net.model.metadata_props.add(key=MOVED, value=json.dumps(done))
        net.prune()
    return done


def restore_zero_points(net: ProtoGraph) -> dict[str, int]:
    """Put the zero points back that `centre` moved; return what it returned."""
    noted = [entry for entry in net.model.metadata_props if entry.key == MOVED]
    done: dict[str, int] = json.loads(noted[0].value) if noted else {}
    for quantiser in [node for node in net.nodes if node.name in done]:
        zero = done[quantiser.name]
        to_conv_pads(net, quantiser)
        _move(net, quantiser, -_offset(net, quantiser, zero))
        net.set_array(quantiser.input[2], np.array(zero, np.int8))
    for entry in noted:
        net.model.metadata_props.remove(entry)
    net.prune()
    return done


def _offset(net: ProtoGraph, quantiser: NodeProto, zero: int) -> float:
    return float(net.arrays[quantiser.input[1]]) * zero


def _move(net: ProtoGraph, quantiser: NodeProto, by: float) -> None:
    """Let a quantiser read x + by, and everyone behind it answer as before."""
    for node in readers_behind(net, quantiser):
        if node.op_type == "Add":
            (name,) = net.readers[quantiser.output[0]][0].output
            if layer := _addend(net, node, name):
                _add_to_bias(net, layer, -by)
        else:
            _add_to_bias(net, node, -by * _sums(net, node))
    source, name = quantiser.input[0], f"{quantiser.name}/{OFFSET}"
    maker = net.producer.get(source)
    if maker is not None and maker.name == name:
        net.remove(quantiser, maker)
    elif path := _path(net, source):
        for node in path[:-1]:
            _shift_bounds(net, node, by)
        _add_to_bias(net, path[-1], by)
    else:
        constant = net.add_array(f"{name}/by", np.array(by, np.float32))
        net.insert(quantiser, helper.make_node("Add", [source, constant], [net.fresh(f"{source}_moved")], name))


def _path(net: ProtoGraph, name: str, readers: int = 1) -> list[NodeProto]:
    """Return the nodes from a tensor with so many readers back to the layer that alone decides about a constant in it.

    [] where there is none. All further tensors of the path have one reader.
    """
    path: list[NodeProto] = []
    while name in net.producer and name not in net.outputs and len(net.readers[name]) == readers:
        node = net.producer[name]
        if layer := _layer(net, name, readers):
            return [*path, layer]
        if node.op_type == "Add" and not any(source in net.arrays for source in node.input):
            layers = [layer for source in node.input if (layer := _layer(net, source))]
            return [*path, layers[0]] if layers else []
        if not _passes(net, node):
            return []
        path.append(node)
        name, readers = node.input[0], 1
    return []


def _passes(net: ProtoGraph, node: NodeProto) -> bool:
    if node.op_type == "Clip":
        return all(name in net.arrays for name in node.input[1:] if name)
    if node.op_type == "AveragePool" and any(attributes(node).get("pads", [])):
        return not attributes(node).get("count_include_pad", 0) and not attributes(node).get("ceil_mode", 0)
    return node.op_type in PASSES and len([name for name in node.output if name]) == 1


def _shift_bounds(net: ProtoGraph, node: NodeProto, by: float) -> None:
    if node.op_type == "Relu":
        node.op_type = "Clip"
        node.input.append(net.add_array(f"{node.name}/low", np.array(by, np.float32)))
    elif node.op_type == "Clip":
        for index in range(1, len(node.input)):
            if name := node.input[index]:
                moved = net.arrays[name].astype(np.float64) + by
                node.input[index] = net.add_array(f"{node.name}/bound", moved.astype(net.arrays[name].dtype))
    net.index()


def _sums(net: ProtoGraph, node: NodeProto) -> np.ndarray:
    """Return the sum of a layer's weights for each output channel, float64, (M,)."""
    pair = net.producer.get(node.input[1])
    weight = net.arrays[node.input[1] if pair is None else pair.input[0]].astype(np.float64)
    sums = weight.reshape(len(weight), -1).sum(axis=1)
    return np.asarray(sums if pair is None else sums * net.arrays[pair.input[1]])


def _add_to_bias(net: ProtoGraph, node: NodeProto, by: np.ndarray | float) -> None:
    bias = net.arrays[node.input[2]]
    moved = (bias.astype(np.float64) + by).astype(bias.dtype)
    if len(net.readers[node.input[2]]) == 1:
        net.set_array(node.input[2], moved)
    else:
        node.input[2] = net.add_array(node.input[2], moved)
        net.index()
