"""A float graph to be quantised for several targets: what does not depend on the target is computed once."""

from __future__ import annotations

import numpy as np
import onnx

from ..calibration.batching import with_free_batch
from ..graph.graph_file import GraphFile
from ..graph.proto_graph import tensor_types
from ..graph.protobuf import copied
from .qdq.mean_to_pool import pooled


class FloatSource:
    """A float graph in the forms that quantisation asks for.

    Attributes:
        graph: The graph as it was read.
    """

    def __init__(self, graph: GraphFile) -> None:
        self.graph = graph
        self._pooled: onnx.ModelProto | None = None
        self._free: dict[bool, onnx.ModelProto] = {}

    def model(self, pools: bool) -> onnx.ModelProto:
        """Return the graph; with `pools` its means over all pixels are pools."""
        if pools and self._pooled is None:
            self._pooled = pooled(self.graph.model)
        return self._pooled if pools and self._pooled is not None else self.graph.model

    def free(self, pools: bool, image: np.ndarray) -> onnx.ModelProto:
        """Return `model` with a free batch where it works so, and with the types of its tensors written in.

        Args:
            pools: As for `model`.
            image: One input of the graph's own batch, (N, C, H, W).
        """
        pools = pools and self.model(True) is not self.graph.model
        if pools not in self._free:
            model = self.model(pools)
            free = with_free_batch(model, image) or copied(model)
            types = tensor_types(free)
            del free.graph.value_info[:]
            ends = {item.name for item in (*free.graph.input, *free.graph.output)}
            free.graph.value_info.extend(item for item in types if item.name not in ends)
            self._free[pools] = free
        return self._free[pools]
