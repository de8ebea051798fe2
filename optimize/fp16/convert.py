"""FP32 to FP16 or BF16 with FP32 inputs and outputs: a strongly typed graph, explicit Casts, nothing left to a builder.

Each node is half or float. Weights of half nodes are stored in FP16; where a tensor crosses from one kind to the other
a Cast stands, one for each tensor and kind. What FP16 cannot hold stays float and is named: values beyond 65504 on the
samples or in the weights, operators whose ONNX schema has no FP16 type, and a few that are known to lose their meaning.

Sources: ONNX operator schemas (type constraints); TensorRT developer guide, «strongly typed networks».
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.common.display import Displayed, Table
from ...runtime.errors import CheckFailed, DataError, ModelError
from .formats import FP16, NEAR_OPSET, HalfFormat

if TYPE_CHECKING:
    import onnx

    from ..calibration.inputs import Batch
    from ..calibration.samples import Samples
    from ..graph.graph_file import GraphFile
    from .cast_graph import CastResult

# Where the error has a limit: the shares of the nodes, from the input on, that are tried in float, one after another.
FIRST = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


@dataclass(frozen=True, repr=False)
class PrecisionReport(Displayed):
    """What became FP16 or BF16.

    Attributes:
        nodes: Nodes in the result, Casts included.
        half: Nodes that compute in it.
        kept: Node that stayed FP32 -> the reason.
        casts: Casts that were inserted.
        flushed: Weights that became zero or subnormal, as a share of the non-zero ones.
        bytes_before: Size of the FP32 file.
        bytes_after: Size of the new file.
        relative_error: Output -> max|half - float| / max|float| over the samples.
    """

    nodes: int
    half: int
    kept: dict[str, str]
    casts: int
    flushed: float
    bytes_before: int
    bytes_after: int
    relative_error: dict[str, float]
    kind: str = "FP16"

    def headline(self) -> str:
        """Return how much computes in half precision, the sizes and the largest error."""
        worst = max(self.relative_error.values(), default=0.0)
        return (
            f"{self.half} of {self.nodes} nodes in {self.kind}, {self.bytes_before / 1e6:.2f} -> "
            f"{self.bytes_after / 1e6:.2f} MB, largest relative error {worst:.1e}"
        )

    def table(self) -> Table:
        """Return the nodes that stayed FP32, with their reasons."""
        return ("stayed FP32", "reason"), list(self.kept.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def to_fp16(
    source: str | Path,
    target_path: str | Path,
    samples: Iterable[Any],
    *,
    limit: float | None = None,
    kind: HalfFormat = FP16,
) -> PrecisionReport:
    """Cast an ONNX file to FP16 (or BF16), keeping its inputs and outputs in FP32.

    Args:
        source: A float32 ONNX file.
        target_path: The file to write; it is whole or not there.
        samples: Batches of what the graph takes, preprocessed images, say, on which ranges and the error are measured:
            arrays for the only input, or dicts with an array for each by name.
        limit: The first layers stay FP32 until the relative error of each output is under half of this, say 2e-3 (other
            images lose more): what is rounded first grows most on its way. None leaves all in FP16 that can be. Where
            half of the nodes do not do, they stay FP32 all the same, and `relative_error` says what is left.
        kind: FP16, or BF16, which has FP32's range and an eighth of FP16's digits; its file is of opset 22.

    Raises:
        UsageError: No such file.
        ModelError: Not a usable ONNX file, or for BF16 one below opset 18, whose operators mean something else in 22.
        DataError: No samples, or samples or activations with NaN or infinity.
        CheckFailed: The new graph answers NaN or infinity.
    """
    from ..graph.graph_file import GraphFile

    return convert_graph(GraphFile.read(source), target_path, samples, limit=limit, kind=kind)[0]


def convert_graph(
    source: GraphFile,
    target_path: str | Path,
    samples: Iterable[Any],
    *,
    limit: float | None = None,
    kind: HalfFormat = FP16,
) -> tuple[PrecisionReport, GraphFile]:
    """Do what `to_fp16` does for a graph in memory; return the new graph too."""
    from ..calibration.samples import repeatable
    from ..graph.graph_file import GraphFile
    from ..graph.proto_graph import with_names
    from ..graph.schema_check import require_known_operators

    require_known_operators(source.model, str(source.path))
    model = with_names(source.model)
    source = source if model is source.model else GraphFile(model, source.path, source.notes)
    opset = max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    if kind.opset and opset < NEAR_OPSET:
        raise ModelError(f"{source.path} is of opset {opset}", expected=f"{NEAR_OPSET} or later for {kind.name}",
                         do="export it again, with --opset 18")  # fmt: skip
    with repeatable(samples) as batches:
        checked = _runnable(source, batches)
        if not checked.count():
            raise DataError(
                f"no samples to measure {kind.name} on", expected="at least one image", do="give some images"
            )
        result, error = _cast(source, _beyond(source, checked, kind), checked, limit, kind)
    if bad := [name for name, value in error.items() if not np.isfinite(value)]:
        raise CheckFailed(
            f"output {bad[0]!r} is NaN or infinite in {kind.name}",
            expected="finite values",
            do="keep this network in FP32",
        )
    half = GraphFile.write(result.model, target_path)
    return _report(result, error, (source.bytes, half.bytes), kind), half


def _report(result: CastResult, error: dict[str, float], sizes: tuple[int, int], kind: HalfFormat) -> PrecisionReport:
    return PrecisionReport(
        nodes=len(result.model.graph.node),
        half=result.half,
        kept=result.kept,
        casts=result.casts,
        flushed=result.flushed,
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        relative_error=error,
        kind=kind.name,
    )


def _cast(
    source: GraphFile, kept: dict[str, str], samples: Iterable[Batch], limit: float | None, kind: HalfFormat
) -> tuple[CastResult, dict[str, float]]:
    """Return the half graph and its relative errors, with as few of the first nodes in float as the limit asks."""
    from .cast_graph import cast_graph

    names = [node.name for node in source.model.graph.node]
    counts = sorted({round(share * len(names)) for share in FIRST}) if limit is not None else [0]
    for count in counts:
        first = dict.fromkeys(names[:count], f"the error grows from here; under {limit} is asked for")
        result = cast_graph(source.model, first | kept, kind, source.types)
        error = relative_error(source.model, result.model, samples, result.kinds)
        if limit is None or max(error.values(), default=0.0) < limit / 2:
            break
    return result, error


def _runnable(source: GraphFile, batches: Iterable[Any]) -> Samples:
    """Return samples in batches that the graph computes rightly: one by one where it mixes those of a batch."""
    from ..calibration.batching import free_graph
    from ..calibration.inputs import input_layout
    from ..calibration.samples import Samples
    from ..graph import spec_metadata

    spec = spec_metadata.embedded(source.model)
    samples = Samples(batches, input_layout(source.model, spec.layout if spec else ""))
    first = next(iter(samples), None)
    if samples.size is not None or first is None or samples.layout.length(first) < 2:
        return samples
    return Samples(batches, samples.layout, size=free_graph(source.model, first, samples.layout).size)


def _beyond(source: GraphFile, samples: Iterable[Batch], kind: HalfFormat) -> dict[str, str]:
    """Return the nodes that touch a tensor beyond the kind's range on the samples, at either end -> the reason."""
    import onnx

    from ..calibration.inputs import input_names
    from ..calibration.statistics import collect

    model = source.model
    kinds = {item.name: item.type.tensor_type.elem_type for item in source.types}
    names = [name for node in model.graph.node if any(node.input) for name in node.output]
    names = [name for name in (*input_names(model), *names) if kinds.get(name) == onnx.TensorProto.FLOAT]
    stats = collect(model, names, samples, channels=False, types=source.types)
    peak = {name: max(-seen.low, seen.high) for name, seen in stats.items()}
    kept = {}
    for node in model.graph.node:
        seen = [name for name in (*node.input, *node.output) if name in peak]
        loud = [name for name in seen if peak[name] > kind.largest]
        quiet = [name for name in seen if 0 < peak[name] < kind.smallest]
        if loud:
            kept[node.name] = f"{loud[0]} reaches {peak[loud[0]]:.3g}, beyond {kind.largest:.5g}"
        elif quiet:
            kept[node.name] = f"{quiet[0]} stays under {peak[quiet[0]]:.1g}, below {kind.bottom}"
    return kept


def _is_float(item: onnx.ValueInfoProto) -> bool:
    return item.type.tensor_type.elem_type in (1, 10, 11, 16)


def relative_error(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    samples: Iterable[Batch],
    kinds: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Return for each float output max|after - before| / max|before| over all samples; half values are rounded as such.

    Where a sample's outputs are of different sizes (other boxes were chosen) all of it is error. `kinds` are the data
    types of the tensors of `after`, where they are known.
    """
    from ..calibration.ort_runs import stream
    from .simulate import simulate_half

    names = [item.name for item in before.graph.output if _is_float(item)]
    error = dict.fromkeys(names, 0.0)
    size = dict.fromkeys(names, 0.0)
    floats, halves = (stream(model, names, samples, optimise=True) for model in (before, simulate_half(after, kinds)))
    for one, two in zip(floats, halves, strict=True):
        for name in names:
            peak = float(np.abs(one[name]).max(initial=0))
            alike = one[name].shape == two[name].shape
            apart = np.abs(one[name].astype(np.float64) - two[name]).max(initial=0) if alike else peak
            error[name] = float(np.maximum(error[name], apart))
            size[name] = max(size[name], peak)
    return {name: error[name] / max(size[name], 1e-30) for name in names}
