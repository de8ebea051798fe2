"""A float graph to be quantised for several targets: what does not depend on the target is computed once."""

from __future__ import annotations

import functools
from dataclasses import replace

import onnx

from ..calibration.batching import FreeGraph, free_graph
from ..calibration.inputs import Batch, InputLayout, input_layout
from ..graph import spec_metadata
from ..graph.graph_file import GraphFile
from ..graph.proto_graph import tensor_types, with_names
from ..graph.protobuf import copied
from .qdq.mean_to_pool import pooled


class FloatSource:
    """A float graph in the forms that quantisation asks for.

    Attributes:
        graph: The graph as it was read, each node with a name of its own.
    """

    def __init__(self, graph: GraphFile) -> None:
        model = with_names(graph.model)
        self.graph = graph if model is graph.model else GraphFile(model, graph.path, graph.notes)
        self._pooled: onnx.ModelProto | None = None
        self._free: dict[bool, FreeGraph] = {}

    @functools.cached_property
    def layout(self) -> InputLayout:
        """The inputs of the graph.

        Raises:
            ModelError: They are no tensors.
        """
        spec = spec_metadata.embedded(self.graph.model)
        return input_layout(self.graph.model, spec.layout if spec else "")

    def model(self, pools: bool) -> onnx.ModelProto:
        """Return the graph; with `pools` its means over all pixels are pools."""
        if pools and self._pooled is None:
            self._pooled = pooled(self.graph.model)
        return self._pooled if pools and self._pooled is not None else self.graph.model

    def free(self, pools: bool, batch: Batch) -> FreeGraph:
        """Return `model` with a free batch where it works so, and with the types of its tensors written in.

        Args:
            pools: As for `model`.
            batch: Samples of the graph's own batch.
        """
        pools = pools and self.model(True) is not self.graph.model
        if pools not in self._free:
            free = free_graph(self.model(pools), batch, self.layout)
            model = copied(free.model)
            types = tensor_types(model)
            del model.graph.value_info[:]
            ends = {item.name for item in (*model.graph.input, *model.graph.output)}
            model.graph.value_info.extend(item for item in types if item.name not in ends)
            self._free[pools] = replace(free, model=model)
        return self._free[pools]
