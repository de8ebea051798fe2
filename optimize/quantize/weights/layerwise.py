"""Walk through a graph one node at a time, with all images, so that a layer can be mended on what it really reads.

Values live from the node that writes them to the last one that reads them. The number of images is what bounds the
memory: `images_that_fit` says how many fit.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable

import numpy as np
from onnx import NodeProto

from ...calibration.statistics import answers
from ...graph.proto_graph import ProtoGraph
from .node_sessions import NodeSessions

BUDGET_BYTES = 192 << 20
TRIM_EVERY = 8  # nodes


class LayerwiseRunner:
    """The values of a graph on some images, computed node by node in ONNX Runtime with nothing fused.

    Args:
        net: The graph, in topological order. Constants may be changed while walking, ahead of the walk.
        images: Values of the graph's input.
        batch: The graph's batch size where it is fixed: nodes are then computed in pieces of it.
        hold: Tensors that are kept until `run_to` hands them out.
        sessions: Those of another walk through a graph of the same operator sets, to be shared.
    """

    def __init__(
        self,
        net: ProtoGraph,
        images: np.ndarray,
        batch: int | None = None,
        hold: frozenset[str] = frozenset(),
        sessions: NodeSessions | None = None,
    ) -> None:
        self.net, self.batch, self.hold = net, batch, hold
        self.sessions = sessions or NodeSessions(net.model.opset_import)
        self.values: dict[str, np.ndarray] = {net.inputs[0]: images}
        self.constants: dict[str, np.ndarray] = {}
        self.held: dict[str, np.ndarray] = {}
        self.last = {name: index for index, node in enumerate(net.nodes) for name in node.input}
        self.at = 0

    def run(self, before: Callable[[NodeProto], None], after: Callable[[NodeProto], None]) -> None:
        """Compute each node; `before` may change its constants, `after` may replace its outputs in `values`."""
        while self.at < len(self.net.nodes):
            node = self.net.nodes[self.at]
            before(node)
            self._compute(node)
            after(node)
            self._step(node)

    def run_to(self, name: str) -> np.ndarray:
        """Walk as far as a tensor in `hold`, and give it away."""
        while name not in self.held:
            node = self.net.nodes[self.at]
            self._compute(node)
            self.held |= {name: self.values[name] for name in node.output if name in self.hold}
            self._step(node)
        return self.held.pop(name)

    def _compute(self, node: NodeProto) -> None:
        constant = not any(name in self.values for name in node.input)
        kept = self.constants if constant else self.values
        kept.update(zip([name for name in node.output if name], self.run_node(node), strict=True))

    def _step(self, node: NodeProto) -> None:
        for name in {*node.input, *node.output}:
            if self.last.get(name, self.at) == self.at:
                self.values.pop(name, None)
                self.constants.pop(name, None)
        self.at += 1
        if self.at % TRIM_EVERY == 0:
            _give_memory_back()

    def run_node(self, node: NodeProto) -> list[np.ndarray]:
        """Compute one node from the values at hand."""
        values = {name: self.values[name] for name in node.input if name in self.values}
        constants = {name: self._constant(name) for name in node.input if name and name not in values}
        run, inputs, feeds = self.sessions.prepared(node, values, constants)
        step = self.batch
        if not step:  # all at once: what a Shape answers is no row for each image
            return answers(run, feeds | {inputs[name]: value for name, value in values.items()})
        count = min((len(value) for value in values.values()), default=0)
        pieces = [
            answers(run, feeds | {inputs[name]: value[at : at + step] for name, value in values.items()})
            for at in range(0, max(count, 1), step)
        ]
        return [np.concatenate(parts) if len(parts) > 1 else parts[0] for parts in zip(*pieces, strict=True)]

    def _constant(self, name: str) -> np.ndarray:
        return self.constants[name] if name in self.constants else self.net.arrays[name]


def _give_memory_back() -> None:
    """Return freed memory to the system: glibc keeps it in pieces that the next layer's values may not fit into."""
    if sys.platform.startswith("linux") and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def images_that_fit(sizes: Iterable[int]) -> int:
    """Return how many images fit the budget, from the elements of each tensor for one image (about four live)."""
    return max(8, BUDGET_BYTES // (16 * max(sizes, default=1)))
