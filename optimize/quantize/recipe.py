"""From a float graph and images to an explicit Q/DQ graph: the whole flow of one quantisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...runtime.errors import ModelError
from .checks import check_data, check_model, input_shape
from .report import QuantReport, Settings, compare
from .samples import Perturbed, Samples, repeatable
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
class Converted:
    """A Q/DQ graph and how it came about: plan, grids, folded Relus, lowered weight limits by node, SQNR by tensor."""

    model: onnx.ModelProto
    plan: Plan
    grids: dict[str, Grid]
    folded: tuple[str, ...]
    limits: dict[str, np.ndarray]
    noise: dict[str, float]


def quantize(
    source: str | Path,
    target_path: str | Path,
    samples: Iterable[np.ndarray],
    *,
    target: str = "trt",
    allow_random: bool = False,
    min_images: int = MIN_IMAGES,
    settings: Settings | None = None,
    budget_db: float | None = None,
) -> QuantReport:
    """Quantise an ONNX file to INT8 with explicit Q/DQ, calibrated on real images.

    Args:
        source: A float32 ONNX file with one input and its BatchNormalization folded (run `optimize` first).
        target_path: The file to write; it is whole or not there.
        samples: Batches of preprocessed images, float32 NCHW; read several times (a generator is spooled to disk).
        target: "trt" (symmetric S8, float bias) or "ort-x86" (asymmetric U8, INT32 bias).
        allow_random: Accept samples that look like noise.
        min_images: The fewest calibration images that are accepted.
        settings: What is done to keep the accuracy; the default does all of it.
        budget_db: The least SQNR of every output on the calibration images, in dB: the most sensitive layers are left
            in float until it is met.

    Raises:
        UsageError: An unknown target or no such file.
        ModelError: Not a float graph that can be quantised: broken, quantised already, nothing to quantise.
        DataError: Too few images, images of the wrong shape or dtype, NaN in images or activations.
        CheckFailed: Nothing meets `budget_db`; nothing is written.
    """
    from .budget import within_budget
    from .forms import find
    from .net import read_model, write_model

    form = find(target)
    model = read_model(source)
    check_model(model, source)
    with repeatable(samples) as batches:
        checked = Samples(batches, input_shape(model))
        images = check_data(checked, min_images, allow_random)
        wanted = settings or Settings()
        if budget_db is None:
            made, tried = convert(model, form, checked, wanted), dict[int, float]()
        else:
            made, tried = within_budget(model, form, checked, wanted, budget_db)
        write_model(made.model, target_path)
        quality = compare(model, made.model, checked)
    sizes = Path(source).stat().st_size, Path(target_path).stat().st_size
    return _report(target, images, made, tried, sizes, quality)


def _report(
    target: str,
    images: int,
    made: Converted,
    tried: dict[int, float],
    sizes: tuple[int, int],
    quality: tuple[dict[str, float], float | None],
) -> QuantReport:
    return QuantReport(
        target=target,
        images=images,
        quantised=dict(Counter(node.op_type for node in (*made.plan.anchors, *made.plan.glue))),
        floats=made.plan.floats,
        folded=made.folded,
        limited={name: int((np.asarray(limit) < LARGEST).sum()) for name, limit in made.limits.items()},
        ranges={name: (made.grids[name].low, made.grids[name].high) for name in sorted(made.plan.readers)},
        tried=tried,
        tensor_sqnr_db=made.noise,
        bytes_before=sizes[0],
        bytes_after=sizes[1],
        sqnr_db=quality[0],
        agreement=quality[1],
    )


def convert(model: onnx.ModelProto, form: Form, samples: Samples, settings: Settings) -> Converted:
    """Turn a float graph into a Q/DQ graph; the input model is left as it is."""
    from .emit import emit, integer_biases
    from .grid import grid
    from .net import Net, copied
    from .observe import collect
    from .placement import fold_relus

    net = Net(copied(model))
    seen = Perturbed(samples, settings.noise)
    plan, stats = _prepare(net, form, seen, settings)
    grids = grids_of(plan, form, stats)
    layers = {node.name: node.output[0] for node in plan.anchors}
    reference = copied(net.model)
    folded = fold_relus(net, plan, grids) if form.fold_relu else {}
    if shown := sorted(set(plan.readers) - set(grids)):
        stats |= collect(reference, shown, seen)
        grids |= {name: grid(stats[name].low, stats[name].high, form.signed) for name in shown}
    limits = {} if form.signed else _limits(net, plan, grids, stats)
    emit(net, plan, grids, form, limits, per_tensor=settings.per_tensor)
    noise: dict[str, float] = {}
    if settings.refine:
        noise = _refine(net, plan, grids, folded, reference, layers, seen)
    if form.integer_bias:
        integer_biases(net, plan)
    return Converted(net.model, plan, grids, tuple(folded), limits, noise)


def _prepare(net: Net, form: Form, samples: Perturbed, settings: Settings) -> tuple[Plan, dict[str, Stats]]:
    from .equalize import equalise, unshare
    from .observe import collect
    from .placement import inside_layers, place

    unshare(net)
    plan = place(net, form, settings.keep)
    if not plan.anchors:
        raise ModelError(
            "nothing in this graph can be quantised",
            got="; ".join(f"{name}: {why}" for name, why in list(plan.floats.items())[:3]) or "no Conv, Gemm or MatMul",
            expected="Conv or Gemm with constant float32 weights",
        )
    hidden = inside_layers(net, plan) if form.fold_relu else set()
    stats = collect(net.model, sorted(set(plan.readers) - hidden), samples)
    if settings.equalize is not None:
        equalise(net, stats, settings.equalize)
    return plan, stats


def _refine(
    net: Net,
    plan: Plan,
    grids: dict[str, Grid],
    folded: dict[str, tuple[str, float]],
    reference: onnx.ModelProto,
    layers: dict[str, str],
    samples: Perturbed,
) -> dict[str, float]:
    from .observe import collect
    from .refine import Refiner
    from .walk import fitting, gather

    ceilings: dict[str, float] = {}
    for tensor, high in folded.values():
        root = plan.root(tensor)
        ceilings[root] = min(ceilings.get(root, np.inf), high)
    batch = samples.shape[0]
    step = batch or 8
    probe = collect(reference, sorted(layers.values()), [next(iter(samples))[:step]])
    count = fitting(seen.count * len(seen.highs()) // step for seen in probe.values()) // step * step
    images = gather(samples, max(count, step))
    images = images[: len(images) // step * step] if batch else images
    seen = collect(reference, sorted(layers.values()), _chunks(images, step), means=True)
    means = {name: seen[tensor].mean() for name, tensor in layers.items()}
    refiner = Refiner(net, plan, grids, ceilings, means, batch)
    refiner.run(images)
    return refiner.sqnr_db


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
        peaks = raw_peaks(stats[name].highs(), grids[name].scale, grids[name].zero)
        found = largest_integers(weight, attributes(node).get("group", 1), peaks)
        if found.min() < LARGEST:
            limits[node.name] = found if node.op_type != "MatMul" else found.min()
    return limits


def _chunks(images: np.ndarray, step: int) -> list[np.ndarray]:
    return [images[at : at + step] for at in range(0, len(images), step)]


def grids_of(plan: Plan, form: Form, stats: dict[str, Stats]) -> dict[str, Grid]:
    """Return the grid of each quantised tensor with statistics, after deciding which share one."""
    from .grid import grid
    from .placement import share_concats

    share_concats(plan, _ranges(plan, stats))
    ranges = _ranges(plan, stats)
    least = 127 * form.least_scale
    ends = {root: (low, max(high, least)) for root, (low, high) in ranges.items()}
    return {name: grid(*ends[plan.root(name)], form.signed) for name in set(plan.readers) & set(stats)}


def _ranges(plan: Plan, stats: dict[str, Stats]) -> dict[str, tuple[float, float]]:
    """Return the (low, high) of each group of tensors with one scale, under its root."""
    found: dict[str, tuple[float, float]] = {}
    for name in set(plan.readers) & set(stats):
        low, high = found.get(plan.root(name), (0.0, 0.0))
        found[plan.root(name)] = min(low, stats[name].low), max(high, stats[name].high)
    return found
