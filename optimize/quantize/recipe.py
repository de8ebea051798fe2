"""From a float graph and images to an explicit Q/DQ graph: the whole flow of one quantisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...runtime.errors import DataError, ModelError
from .samples import Samples, repeatable
from .weights import LARGEST

if TYPE_CHECKING:
    import onnx

    from .forms import Form
    from .grid import Grid
    from .net import Net
    from .observe import Stats
    from .placement import Plan

MIN_IMAGES = 32


@dataclass(frozen=True)
class QuantReport:
    """What one quantisation did.

    Attributes:
        target: The form's name.
        images: Calibration images used.
        quantised: Operator type -> how many compute in INT8.
        floats: Weighted operators left in float -> the reason.
        folded: Relu and Clip nodes that became a quantiser's range.
        limited: Nodes with weights under 8 bits, so that no product pair saturates 16 bits -> channels limited.
        ranges: Quantised tensor -> (low, high) of its grid.
        bytes_before: Size of the float file.
        bytes_after: Size of the quantised file.
        sqnr_db: Signal to quantisation noise of each output on the calibration images, in dB.
        agreement: Share of calibration images with the same top-1 in float and INT8 (None: no (N, classes) output).
    """

    target: str
    images: int
    quantised: dict[str, int]
    floats: dict[str, str]
    folded: tuple[str, ...]
    limited: dict[str, int]
    ranges: dict[str, tuple[float, float]]
    bytes_before: int
    bytes_after: int
    sqnr_db: dict[str, float]
    agreement: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def quantize(
    source: str | Path,
    target_path: str | Path,
    samples: Iterable[np.ndarray],
    *,
    target: str = "trt",
    allow_random: bool = False,
    min_images: int = MIN_IMAGES,
) -> QuantReport:
    """Quantise an ONNX file to INT8 with explicit Q/DQ, calibrated on real images.

    Args:
        source: A float32 ONNX file with one input and its BatchNormalization folded (run `optimize` first).
        target_path: The file to write; it is whole or not there.
        samples: Batches of preprocessed images, float32 NCHW; read several times (a generator is spooled to disk).
        target: "trt" (symmetric S8, float bias) or "ort-x86" (asymmetric U8, INT32 bias).
        allow_random: Accept samples that look like noise.
        min_images: The fewest calibration images that are accepted.

    Raises:
        UsageError: An unknown target or no such file.
        ModelError: Not a float graph that can be quantised: broken, quantised already, nothing to quantise.
        DataError: Too few images, images of the wrong shape or dtype, NaN in images or activations.
    """
    from .emit import emit
    from .forms import find
    from .net import Net, read_model, write_model

    form = find(target)
    model = read_model(source)
    _check_model(model, source)
    with repeatable(samples) as batches:
        checked = Samples(batches, input_shape(model))
        images = checked.count()
        _check_data(checked, images, min_images, allow_random)
        net = Net(_copy(model))
        plan, grids, folded, limits = _decide(net, form, checked)
        emit(net, plan, grids, form, limits)
        write_model(net.model, target_path)
        sqnr, agreement = compare(model, net.model, checked)
    return QuantReport(
        target=target,
        images=images,
        quantised=dict(Counter(node.op_type for node in (*plan.anchors, *plan.glue))),
        floats=plan.floats,
        folded=tuple(folded),
        limited={name: int((np.asarray(limit) < LARGEST).sum()) for name, limit in limits.items()},
        ranges={name: (grids[name].low, grids[name].high) for name in sorted(plan.readers)},
        bytes_before=Path(source).stat().st_size,
        bytes_after=Path(target_path).stat().st_size,
        sqnr_db=sqnr,
        agreement=agreement,
    )


def _decide(net: Net, form: Form, samples: Samples) -> tuple[Plan, dict[str, Grid], list[str], dict[str, np.ndarray]]:
    from .observe import collect
    from .placement import fold_relus, place

    plan = place(net, form)
    if not plan.anchors:
        raise ModelError(
            "nothing in this graph can be quantised",
            got="; ".join(f"{name}: {why}" for name, why in list(plan.floats.items())[:3]) or "no Conv, Gemm or MatMul",
            expected="Conv or Gemm with constant float32 weights",
        )
    stats = collect(net.model, sorted(plan.readers), samples)
    grids = _grids(plan, form, stats)
    folded = fold_relus(net, plan, grids) if form.fold_relu else []
    return plan, grids, folded, {} if form.signed else _limits(net, plan, grids, stats)


def _limits(net: Net, plan: Plan, grids: dict[str, Grid], stats: dict[str, Stats]) -> dict[str, np.ndarray]:
    """Return the largest weight integers of the nodes where a pair of products could saturate 16 bits."""
    from .net import attributes
    from .saturation import largest_integers, raw_peaks

    limits = {}
    for node in plan.anchors:
        name = node.input[0]
        weight = net.arrays[node.input[1]]
        if node.op_type != "Conv" and not attributes(node).get("transB", 0):
            weight = weight.T
        peaks = raw_peaks(stats[name].peaks(), grids[name].scale, grids[name].zero)
        found = largest_integers(weight, attributes(node).get("group", 1), peaks)
        if found.min() < LARGEST:
            limits[node.name] = found if node.op_type != "MatMul" else found.min()
    return limits


def _grids(plan: Plan, form: Form, stats: dict[str, Stats]) -> dict[str, Grid]:
    from .grid import grid
    from .placement import share_concats

    share_concats(plan, _ranges(plan, stats))
    ranges = _ranges(plan, stats)
    return {name: grid(*ranges[plan.root(name)], form.signed) for name in plan.readers}


def _ranges(plan: Plan, stats: dict[str, Stats]) -> dict[str, tuple[float, float]]:
    """Return the (low, high) of each group of tensors with one scale, under its root."""
    found: dict[str, tuple[float, float]] = {}
    for name in plan.readers:
        low, high = found.get(plan.root(name), (0.0, 0.0))
        found[plan.root(name)] = min(low, stats[name].low), max(high, stats[name].high)
    return found


def compare(
    before: onnx.ModelProto, after: onnx.ModelProto, samples: Iterable[np.ndarray]
) -> tuple[dict[str, float], float | None]:
    """Return the SQNR of each output in dB, and the share of images with the same top-1 (None without classes)."""
    from .observe import sqnr_db, stream

    names = [item.name for item in before.graph.output]
    pairs: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in names}
    for one, two in zip(stream(before, names, samples), stream(after, names, samples), strict=True):
        for name in names:
            pairs[name].append((one[name], two[name]))
    joined = {name: [np.concatenate(side) for side in zip(*values, strict=True)] for name, values in pairs.items()}
    first, second = joined[names[0]]
    same = float((first.argmax(1) == second.argmax(1)).mean()) if first.ndim == 2 and first.shape[1] > 1 else None
    return {name: sqnr_db(*sides) for name, sides in joined.items()}, same


def input_shape(model: onnx.ModelProto) -> tuple[int | None, ...]:
    """Return the shape of the only input that is no initializer; None for a free dimension.

    Raises:
        ModelError: There is not exactly one float32 input of known rank.
    """
    constant = {tensor.name for tensor in model.graph.initializer}
    given = [item for item in model.graph.input if item.name not in constant]
    kind = given[0].type.tensor_type if given else None
    if len(given) != 1 or kind is None or kind.elem_type != 1 or len(kind.shape.dim) < 2:
        raise ModelError(
            "calibration needs a graph with one float32 input",
            got=f"inputs {[item.name for item in given]}",
            expected="one float32 tensor, batch first",
        )
    return tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)


def _check_model(model: onnx.ModelProto, source: str | Path) -> None:
    from .placement import is_quantised

    if is_quantised(model):
        raise ModelError(
            f"{source} is quantised already", expected="a float32 graph", do="quantise the float file it came from"
        )
    norms = [node.name for node in model.graph.node if node.op_type == "BatchNormalization"]
    if norms:
        raise ModelError(
            f"{source} still has BatchNormalization",
            got=f"{len(norms)} nodes, first {norms[0]!r}",
            expected="BatchNormalization folded into the convolutions",
            do="run `edgesmith optimize` on it first",
        )
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if not versions or max(versions) < 13:
        raise ModelError(
            f"{source} is of opset {max(versions, default=0)}", expected="opset 13 or later", do="export it again"
        )


def _check_data(samples: Samples, images: int, min_images: int, allow_random: bool) -> None:
    if images < min_images:
        raise DataError(
            "too few calibration images",
            got=str(images),
            expected=f"at least {min_images}",
            do="give more images (128 to 512 is usual)",
        )
    if not allow_random and _looks_random(next(iter(samples))):
        raise DataError(
            "the calibration images look like random noise",
            expected="real images: neighbouring pixels alike",
            do="give real images, or allow random data (`--allow-random`)",
        )


def _looks_random(batch: np.ndarray) -> bool:
    """Say whether neighbouring pixels are uncorrelated (|r| < 0.1), as they never are in photographs or digits."""
    if batch.ndim != 4 or batch.shape[-1] < 8:
        return False
    one, two = batch[..., :-1].ravel().astype(np.float64), batch[..., 1:].ravel().astype(np.float64)
    if one.std() == 0 or two.std() == 0:
        return False
    return bool(abs(np.corrcoef(one, two)[0, 1]) < 0.1)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
