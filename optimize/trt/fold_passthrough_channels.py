"""Fewer kernels on a GPU: channels that a unit passes unchanged become identity filters of its convolutions.

Before    x ─Split─▶ a ──────────────────────────────▶ Concat ─shuffle─▶ ...   (a unit of ShuffleNet v2)
                 └▶ b ─Conv 1x1─Relu─Conv dw─Conv 1x1─Relu ─▲
After     x ─Conv 1x1─Relu─Conv dw─Conv 1x1─Relu─▶ ...
          with weights [I 0; 0 W1], [delta; Wd], [I 0; 0 W2], the shuffle in the order of the next consumer's weights.
When      x >= 0 (so Relu(x) = x), and the branch joins the same network of Concat, Split and shuffles.
          Two branches that both read all of x (the unit with stride) are merged in the same way into three
          convolutions.
Why       TensorRT uses one kernel per Split and Concat. At batch 1 a launch costs more than the extra arithmetic: 54
          kernels instead of 76 on ShuffleNet v2 x1.0, for three times the multiply-adds. It is slower on CPUs and at
          large batches, and in INT8 the passed channels would be rounded at each unit: so it is a candidate of
          `autotune` and not part of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..graph.graph import Graph
from ..graph.graph_file import GraphFile
from ..graph.node import GraphTensor, Node
from ..passes._channel_provenance import Provenance, SourceChannel, demands
from ..passes.eliminate_dead_nodes import cascade

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Branch:
    """A branch of a unit: [Conv 1x1, Relu,] depthwise Conv, Conv 1x1, Relu; it reads `atoms` and produces `output`.

    `routed`: its input is the output of a Split, Concat or shuffle.
    """

    first: Node | None
    depthwise: Node
    last: Node
    output: GraphTensor
    atoms: tuple[SourceChannel, ...]
    routed: bool

    @property
    def stride(self) -> int:
        """The stride of the depthwise convolution."""
        return int(self.depthwise.attrs.get("strides", [1])[0])


def fold_passthrough_channels(source: str | Path | GraphFile, target_path: str | Path) -> int:
    """Rewrite an ONNX file and verify that its outputs are equal.

    Args:
        source: A float32 file, or one in memory, with BatchNormalization folded; fixed or dynamic batch.
        target_path: The result; it is not written if nothing was rewritten.

    Returns:
        The number of units rewritten, 0 for a network without such units.

    Raises:
        UsageError: No such file.
        ModelError: Not a usable ONNX file.
        CheckFailed: The result has other outputs (a bug; nothing is written).
    """
    from .. import checked_write
    from ..graph import reader

    net = reader.read(source.model if isinstance(source, GraphFile) else source)
    units = _rewrite(net)
    if not units:
        return 0
    checked_write.write_checked(net, source.path if isinstance(source, GraphFile) else source, target_path)
    return units


def _rewrite(net: Graph) -> int:
    provenance = Provenance(net)
    if not any(provenance.routes(node) for node in net.everything()):
        return 0
    branches = [branch for node in net.nodes("Conv") if (branch := _branch(net, provenance, node))]
    inside = {id(node) for branch in branches for node in (branch.first, branch.depthwise)}
    outside = [item for item in demands(net, provenance) if id(item.node) not in inside]
    names = {branch.output.name for branch in branches}
    outside = [item for item in outside if any(owner in names for owner, _ in item.atoms)]
    units = _units(branches) if any(branch.routed for branch in branches) else []
    if not units or any(item.kind != "dense" or not _takes_all(net, item.node) for item in outside):
        return 0
    state, atoms = _start(net, provenance, units)
    if state is None or not _fits(units, atoms, [atom for item in outside for atom in item.atoms]):
        return 0
    for index, unit in enumerate(units):
        later = {atom for following in units[index + 1 :] for branch in following for atom in branch.atoms}
        later |= {atom for item in outside for atom in item.atoms}
        state, atoms = _merge(net, unit, state, atoms, later)
    routing = [node for node in net.everything() if provenance.routes(node)]
    for item in outside:
        _reread(net, item.reader, item.atoms, state, atoms)
    for node in [*reversed(routing), *(node for branch in branches for node in branch.output.inputs)]:
        if id(node) not in net.dead:
            cascade(net, node)
    net.sort()
    return len(units)


def _takes_all(net: Graph, node: Node | None) -> bool:
    return node is not None and node.op == "Conv" and net.value(node.inputs[1]) is not None


def _conv(net: Graph, node: Node | None, depthwise: bool) -> bool:
    """Return whether a node is a supported Conv: dense 1x1, or depthwise with padding k//2; constant weights."""
    if node is None or node.op != "Conv" or len(node.inputs) < 3 or net.value(node.inputs[2]) is None:
        return False
    weight, attrs = net.value(node.inputs[1]), node.attrs
    if weight is None or weight.ndim != 4 or weight.dtype != np.float32 or set(attrs.get("dilations", [1])) != {1}:
        return False
    group, strides, kernel = int(attrs.get("group", 1)), attrs.get("strides", [1, 1]), weight.shape[2]
    padded = list(attrs.get("pads", [0] * 4)) == [kernel // 2] * 4 and attrs.get("auto_pad", "NOTSET") == "NOTSET"
    square = weight.shape[3] == kernel and kernel % 2 == 1 and strides[0] == strides[1]
    if depthwise:
        return bool(padded and square and weight.shape[:2] == (group, 1) and group > 1)
    return bool(padded and kernel == 1 and square and group == 1 and strides[0] == 1)


def _branch(net: Graph, provenance: Provenance, last: Node) -> Branch | None:
    relu = net.only_user(last.outputs[0])
    depthwise = net.producer_of_type(last.inputs[0], "Conv")
    if relu is None or relu.op != "Relu" or not _conv(net, last, False) or not _conv(net, depthwise, True):
        return None
    if depthwise is None or net.only_user(depthwise.outputs[0]) is None:
        return None
    before = net.producer_of_type(depthwise.inputs[0], "Relu")
    first = net.producer_of_type(before.inputs[0], "Conv") if before is not None else None
    if first is not None and not (_conv(net, first, False) and net.only_user(first.outputs[0]) is before):
        first = None
    if before is not None and net.only_user(before.outputs[0]) is None:
        first = None
    tensor = (first or depthwise).inputs[0]
    atoms, routed = provenance.of(tensor), provenance.routes(net.producer(tensor))
    return Branch(first, depthwise, last, relu.outputs[0], atoms, routed) if atoms else None


def _units(branches: list[Branch]) -> list[list[Branch]]:
    """Group branches that read the same channels; one branch begins with a 1x1, and at most one does not."""
    groups: dict[frozenset[SourceChannel], list[Branch]] = {}
    for branch in branches:
        groups.setdefault(frozenset(branch.atoms), []).append(branch)
    units = list(groups.values())
    sound = all(sum(branch.first is not None for branch in unit) == 1 and len(unit) <= 2 for unit in units)
    return units if sound and len(units) > 1 else []


def _start(
    net: Graph, provenance: Provenance, units: list[list[Branch]]
) -> tuple[GraphTensor | None, list[SourceChannel]]:
    """Return the input tensor of the first unit, if it is never negative."""
    owners = {owner for branch in units[0] for owner, _ in branch.atoms}
    tensor = provenance.sources.get(next(iter(owners))) if len(owners) == 1 else None
    if tensor is None:
        return None, []
    maker = net.producer_of_type(tensor, "MaxPool", "Relu")
    source = maker if maker is None or maker.op == "Relu" else net.producer_of_type(maker.inputs[0], "Relu")
    return (tensor, list(provenance.of(tensor) or ())) if source is not None else (None, [])


def _fits(units: list[list[Branch]], atoms: list[SourceChannel], wanted: Iterable[SourceChannel]) -> bool:
    """Return whether the earlier units keep the channels that each unit reads, and no stride loses channels."""
    channels, outside = set(atoms), set(wanted)
    for index, unit in enumerate(units):
        later = {atom for following in units[index + 1 :] for branch in following for atom in branch.atoms} | outside
        kernels = {(branch.stride, branch.depthwise.attrs["kernel_shape"][0]) for branch in unit}
        if not all(set(branch.atoms) <= channels for branch in unit) or len(kernels) != 1:
            return False
        kept = channels & later
        if kept and unit[0].stride != 1:
            return False
        channels = kept | {(b.output.name, i) for b in unit for i in range(b.last.inputs[1].shape[0])}
    return outside <= channels


def _merge(
    net: Graph, unit: list[Branch], state: GraphTensor, atoms: list[SourceChannel], later: set[SourceChannel]
) -> tuple[GraphTensor, list[SourceChannel]]:  # fmt: skip
    """Replace a unit by a chain of three convolutions; return its output and the channels of it."""
    at = {atom: index for index, atom in enumerate(atoms)}
    kernel = unit[0].depthwise.inputs[1].shape[2]
    delta = np.zeros((1, 1, kernel, kernel), np.float32)
    delta[..., kernel // 2, kernel // 2] = 1
    kept = [atom for atom in atoms if atom in later]
    selection, none = _rows([at[atom] for atom in kept], len(atoms)), _zeros(kept)
    parts: list[tuple[Array, ...]] = [
        (selection, none, np.repeat(delta, len(kept), 0), none, np.eye(len(kept), dtype=np.float32), none)
    ]
    for branch in unit:
        columns, begin = _rows([at[atom] for atom in branch.atoms], len(atoms)), _zeros(branch.atoms)
        if branch.first:
            columns, begin = _array(net, branch.first, 1)[:, :, 0, 0] @ columns, _array(net, branch.first, 2)
        middle, end = ([_array(net, node, index) for index in (1, 2)] for node in (branch.depthwise, branch.last))
        parts.append((columns, begin, *middle, end[0][:, :, 0, 0], end[1]))
    one, bias, deep, shift, two, end = (list(column) for column in zip(*parts, strict=True))
    near, width = unit[0].last, sum(len(item) for item in bias)
    stem, pads = unit[0].output.name, [kernel // 2] * 4
    tensor = _add(net, near, state, np.concatenate(one)[..., None, None], np.concatenate(bias), f"{stem}_in", {})
    deep_attrs = {"group": width, "kernel_shape": [kernel] * 2, "pads": pads, "strides": [unit[0].stride] * 2}
    tensor = _add(net, near, tensor, np.concatenate(deep), np.concatenate(shift), f"{stem}_deep", deep_attrs, False)
    tensor = _add(net, near, tensor, _diagonal(two)[..., None, None], np.concatenate(end), f"{stem}_out", {})
    return tensor, [*kept, *((b.output.name, i) for b in unit for i in range(len(_array(net, b.last, 2))))]


def _rows(indices: list[int], width: int) -> Array:
    """Return the matrix (len(indices), width) that selects channels."""
    matrix = np.zeros((len(indices), width), np.float32)
    matrix[np.arange(len(indices)), indices] = 1
    return matrix


def _zeros(items: Iterable[SourceChannel]) -> Array:
    return np.zeros(len(list(items)), np.float32)


def _array(net: Graph, node: Node, index: int) -> Array:
    return net.array(node.inputs[index])


def _diagonal(blocks: list[Array]) -> Array:
    matrix = np.zeros((sum(b.shape[0] for b in blocks), sum(b.shape[1] for b in blocks)), np.float32)
    row = column = 0
    for block in blocks:
        matrix[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return matrix


def _add(
    net: Graph, near: Node, source: GraphTensor, weight: Array, bias: Array, name: str,
    attrs: dict[str, Any], relu: bool = True,
) -> GraphTensor:  # fmt: skip
    inputs = [source, net.constant(f"{name}_weight", weight), net.constant(f"{name}_bias", bias)]
    out = net.blank(name)
    net.add("Conv", inputs, [out], near, attrs or {"kernel_shape": [1, 1]})
    if not relu:
        return out
    active = net.blank(f"{name}_relu")
    net.add("Relu", [out], [active], near)
    return active


def _reread(
    net: Graph, node: Node, wanted: tuple[SourceChannel, ...], state: GraphTensor, atoms: list[SourceChannel]
) -> None:
    """Connect an outer Conv to the last output: its weights at its channels, zeros for the others."""
    at = {atom: index for index, atom in enumerate(atoms)}
    weight = _array(net, node, 1)
    spread = np.zeros((weight.shape[0], len(atoms), *weight.shape[2:]), weight.dtype)
    spread[:, [at[atom] for atom in wanted]] = weight
    node.inputs[0] = state
    node.inputs[1] = net.constant(f"{node.inputs[1].name}_spread", spread)
