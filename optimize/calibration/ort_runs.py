"""Run a graph in ONNX Runtime, one batch at a time, and hand out the tensors asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ...runtime.common.machine import cores
from ...runtime.common.ort_session import ort_session
from ...runtime.errors import ModelError
from ..graph.protobuf import copied
from .inputs import Batch, as_feeds, input_names

# A thread that spins while another one works counts as work: on two busy cores that is half of the CPU time.
NO_SPINNING = {"session.intra_op.allow_spinning": "0"}


def session(  # type: ignore[no-untyped-def]
    model: onnx.ModelProto, *, optimise: bool = False, integers: bool = True, threads: int = 0, warm: bool = True
):
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: The model.
        optimise: All of the runtime's rewrites (what users run), or none (each Q/DQ computed as it is written).
        integers: With `optimise`: Q/DQ become integer kernels; otherwise each is computed as it is written.
        threads: Threads inside one operator; 0: as many as cores that may be used. ONNX Runtime itself counts those
            that are there, and on one of two cores half of the time goes into waiting for each other.
        warm: Keep memory between calls; off for one of many sessions that stay open.

    Raises:
        ModelError: The runtime refuses the graph.
    """
    entries = NO_SPINNING | ({} if integers else {"session.disable_quant_qdq": "1"})
    # At its highest level ONNX Runtime 1.31 loses a convolution that is added to another one and is an output too.
    levels = ("ENABLE_ALL", "ENABLE_EXTENDED") if optimise else ("DISABLE_ALL",)
    refusals: list[ModelError] = []
    for level in levels:
        try:
            data = model.SerializeToString()
            return ort_session(data, level=level, threads=threads or cores(), arena=warm, entries=entries)
        except ModelError as error:
            refusals.append(error)
        except Exception as error:  # protobuf ends at 2 GiB
            raise ModelError("the graph is too large for protobuf", got=" ".join(str(error).split())[:300]) from error
    raise refusals[0]


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return a copy of a model whose outputs are exactly the named tensors."""
    copy = copied(model)
    known = {item.name: item for item in (*model.graph.output, *model.graph.value_info)}
    del copy.graph.output[:]
    copy.graph.output.extend([known.get(name) or helper.make_empty_tensor_value_info(name) for name in names])
    return copy


def stream(
    model: onnx.ModelProto,
    names: list[str],
    batches: Iterable[Batch],
    *,
    optimise: bool = False,
    integers: bool = True,
) -> Iterator[dict[str, np.ndarray]]:
    """Yield, for each batch, the values of the named tensors (graph inputs too)."""
    inputs = set(input_names(model))
    wanted = [name for name in names if name not in inputs]
    run = session(with_outputs(model, wanted), optimise=optimise, integers=integers) if wanted else None
    for batch in batches:
        feeds = as_feeds(model, batch)
        values = dict(zip(wanted, answers(run, feeds, wanted), strict=True)) if run else {}
        yield {**feeds, **values}


def answers(run: Any, feeds: dict[str, np.ndarray], wanted: list[str] | None = None) -> list[np.ndarray]:
    """Return the outputs that a session of ONNX Runtime computes: the named ones, or all.

    Raises:
        ModelError: It cannot compute them: the graph is wrong, or needs more memory than there is.
    """
    try:
        return list(run.run(wanted, feeds))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError("ONNX Runtime cannot run the graph", got=reason, do="export it again") from error
