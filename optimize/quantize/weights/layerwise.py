"""Walk through a graph one node at a time, with all images, so that a layer can be mended on what it really reads.

Values live from the node that writes them to the last one that reads them. The number of images is what bounds the
memory: `images_that_fit` says how many fit.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
from onnx import NodeProto

from ...calibration.inputs import Batch
from ...calibration.ort_runs import answers
from ...graph.proto_graph import ProtoGraph, all_inputs
from ...graph.protobuf import captured
from .node_sessions import NodeSessions

BUDGET_BYTES = 192 << 20
TRIM_EVERY = 8  # nodes


class LayerwiseRunner:
    """The values of a graph on some images, computed node by node in ONNX Runtime with nothing fused.

    Each batch is run as it is: nothing is taken apart or joined along an axis that only some tensors have.

    Args:
        net: The graph, in topological order. Constants may be changed while walking, ahead of the walk.
        batches: Values of the graph's inputs, each as many samples as the graph takes at once.
        hold: Tensors that are kept until `run_to` hands them out.
        sessions: Those of another walk through a graph of the same operator sets, to be shared.

    Attributes:
        values: Tensor -> its value for each batch.
    """

    def __init__(
        self,
        net: ProtoGraph,
        batches: Sequence[Batch],
        hold: frozenset[str] = frozenset(),
        sessions: NodeSessions | None = None,
    ) -> None:
        self.net, self.hold = net, hold
        self.sessions = sessions or NodeSessions(net.model.opset_import)
        feeds = [batch if isinstance(batch, dict) else {net.inputs[0]: batch} for batch in batches]
        self.values = {name: [feed[name] for feed in feeds] for name in net.inputs}
        self.constants: dict[str, np.ndarray] = {}
        self.held: dict[str, list[np.ndarray]] = {}
        self.last = {name: index for index, node in enumerate(net.nodes) for name in all_inputs(node)}
        self.at = 0
        self.to_hold = self._leading_to((), hold)

    def run(
        self, before: Callable[[NodeProto], None], after: Callable[[NodeProto], None], wanted: Collection[str] = ()
    ) -> None:
        """Compute each node; `before` may change its constants, `after` may replace its outputs in `values`.

        Args:
            before: Called before a node is computed.
            after: Called afterwards.
            wanted: Names of the nodes that are to be seen: those that lead to none of them are left out, as what stands
                behind the last layer (box decoding, NonMaxSuppression). All where it is empty.
        """
        needed = self._leading_to(wanted, frozenset()) if wanted else {id(node) for node in self.net.nodes}
        while self.at < len(self.net.nodes):
            node = self.net.nodes[self.at]
            if id(node) in needed:
                before(node)
                self._compute(node)
                after(node)
            self._step(node)

    def _leading_to(self, wanted: Collection[str], targets: frozenset[str]) -> set[int]:
        """Return the ids of the nodes that some nodes, by name, and some tensors need."""
        needed: set[int] = set()
        tensors = set(targets)
        for node in reversed(self.net.nodes):
            if node.name in wanted or tensors & set(node.output):
                needed.add(id(node))
                tensors |= all_inputs(node)
        return needed

    def run_to(self, name: str) -> list[np.ndarray]:
        """Walk as far as a tensor in `hold`, and give its values away."""
        while name not in self.held:
            node = self.net.nodes[self.at]
            if id(node) in self.to_hold:
                self._compute(node)
            self.held |= {name: self.values[name] for name in node.output if name in self.hold and name in self.values}
            self._step(node)
        return self.held.pop(name)

    def _compute(self, node: NodeProto) -> None:
        outputs, runs = [name for name in node.output if name], self.run_node(node)
        if not all_inputs(node) & self.values.keys():
            self.constants.update(zip(outputs, runs[0], strict=True))
        else:
            self.values.update({name: [run[at] for run in runs] for at, name in enumerate(outputs)})

    def _step(self, node: NodeProto) -> None:
        for name in {*all_inputs(node), *node.output}:
            if self.last.get(name, self.at) == self.at:
                self.values.pop(name, None)
                self.constants.pop(name, None)
        self.at += 1
        if self.at % TRIM_EVERY == 0:
            _give_memory_back()

    def run_node(self, node: NodeProto) -> list[list[np.ndarray]]:
        """Compute one node from the values at hand, for each batch; once where it reads constants alone."""
        reads = list(dict.fromkeys([*filter(None, node.input), *captured(node)]))
        names = [name for name in reads if name in self.values]
        constants = {name: self._constant(name) for name in reads if name not in names}
        batches = range(len(self.values[names[0]])) if names else range(1)
        first = {name: self.values[name][0] for name in names}
        run, inputs, feeds = self.sessions.prepared(node, first, constants)
        return [answers(run, feeds | {inputs[name]: self.values[name][at] for name in names}) for at in batches]

    def _constant(self, name: str) -> np.ndarray:
        return self.constants[name] if name in self.constants else self.net.arrays[name]


def _give_memory_back() -> None:
    """Return freed memory to the system: glibc keeps it in pieces that the next layer's values may not fit into."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def images_that_fit(sizes: Iterable[int]) -> int:
    """Return how many images fit the budget, from the elements of each tensor for one image (about four live).

    Eight may take four times as much; where even those do not fit there are fewer, one at least.
    """
    each = 16 * max(sizes, default=1)
    return max(1, min(8, 4 * BUDGET_BYTES // each), BUDGET_BYTES // each)
