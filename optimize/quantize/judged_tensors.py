"""What two graphs are compared on: their outputs, or what a selection behind the network chooses from.

Which boxes NonMaxSuppression keeps, and in what order, turns on the last digit of a score, and one box more or less
moves every row of the output. So behind a selection its own inputs are compared: all boxes and all scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ..calibration.inputs import Batch
from ..calibration.ort_runs import stream
from ..graph.proto_graph import ProtoIndex, all_inputs

# Operator -> its outputs that are choices, and its inputs that hold what is chosen from.
SELECTIONS = {
    "NonMaxSuppression": ((0,), (0, 1)), "TopK": ((1,), (0,)), "NonZero": ((0,), (0,)), "Unique": ((1, 2, 3), (0,)),
}  # fmt: skip


def judged_tensors(model: onnx.ModelProto, other: onnx.ModelProto | None = None) -> dict[str, tuple[str, ...]]:
    """Return for each output the tensors that it is judged by: itself, or what it is selected from.

    Args:
        model: The float graph.
        other: A graph of the same interface, which must have the tensors too.
    """
    net = ProtoIndex(model)
    known = {name for node in (other or model).graph.node for name in node.output}
    by_output = {}
    for output in model.graph.output:
        sources = tuple(name for name in _selected_from(net, output.name) if name in known)
        by_output[output.name] = sources or (output.name,)
    return by_output


def float_values(model: onnx.ModelProto, samples: Sequence[Batch]) -> list[dict[str, np.ndarray]]:
    """Return for each batch all that a float graph may be judged by, for several calls of `judge`."""
    judged = judged_tensors(model)
    names = list(dict.fromkeys([*judged, *(name for sources in judged.values() for name in sources)]))
    return list(stream(model, names, samples, optimise=True))


def _selected_from(net: ProtoIndex, output: str) -> list[str]:
    """Return the computed tensors that selections behind an output choose from; none where there is no selection."""
    sources: dict[str, None] = {}
    todo, seen = [output], set()
    while todo:
        name = todo.pop()
        node = net.producer.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        choices, inputs = SELECTIONS.get(node.op_type, ((), ()))
        if name in [node.output[at] for at in choices if at < len(node.output)]:
            sources |= dict.fromkeys(node.input[at] for at in inputs if node.input[at] in net.producer)
        else:
            todo += sorted(all_inputs(node))
    return list(sources)
