"""Bundles to time: a network at its published input with random weights, as quickly as they can be made.

Latency, memory, size and kernels do not depend on the weights, so INT8 is plain calibration on noise, and nothing here
is compared with anything: `edgesmith export` does that, for networks that are to be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.common.progress import note
from ..runtime.errors import EdgesmithError, NotAvailable, UsageError

if TYPE_CHECKING:
    from ..optimize.graph.graph_file import GraphFile
    from ..runtime.bundle.writer import Item
    from ..runtime.engines.sidecar import Sidecar
    from ..runtime.spec import ModelSpec

SM = "8.6"  # Ampere, as Orin: the nearest that TensorRT-RTX builds for
IMAGES = 8


def place(name: str, folder: Path, side: int = 0) -> Path:
    """Return where the bundle of a network with random weights stands."""
    return folder / (f"latency-{name}-{side}" if side else f"latency-{name}")


def ensure(name: str, folder: Path, side: int = 0) -> Path:
    """Return the bundle: FP32, INT8 for CPUs, and the FP16 and INT8 engines where TensorRT-RTX is; made when absent.

    Args:
        name: A network.
        folder: Where bundles stand.
        side: Height and width of the input in pixels; 0 for those that it was published with.

    Raises:
        EdgesmithError: The network cannot be exported.
    """
    from ..runtime.bundle.bundle import read_bundle

    path = place(name, folder, side)
    try:
        read_bundle(path)
    except EdgesmithError:
        note(f"making {path}")
        _make(name, path, side)
    return path


def _make(name: str, path: Path, side: int) -> None:
    import numpy as np

    from .. import __version__
    from ..models import catalog, weights
    from ..optimize import optimizer
    from ..runtime.bundle import writer
    from ..runtime.common.files import workplace
    from ..runtime.outputs import claim
    from . import to_onnx

    claim(path, "bundle")
    spec = catalog.network_spec(name, "random")
    if side:
        spec = _resized(spec, side)
    module = catalog.build_network(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    try:
        weights.warm_up_batchnorm(module, spec.input_shape)
    except RuntimeError as error:
        raise UsageError(
            f"{name} cannot compute an input of {spec.input_shape}", got=str(error).splitlines()[0],
            expected=f"such as {catalog.network_spec(name, 'random').input_shape}", do="choose another resolution",
        ) from error  # fmt: skip
    images = np.random.default_rng(0).standard_normal((IMAGES, 1, *spec.input_shape), dtype=np.float32)
    with workplace(path) as work:
        raw, fp32 = work / f"{name}-raw.onnx", work / f"{name}-fp32.onnx"
        to_onnx.export(module.eval(), spec, raw)
        optimizer.optimize(raw, fp32, samples=list(images[:2]))
        items = _lowered(fp32, work / name, list(images))
        made_by = f"edgesmith {__version__}"
        writer.write_bundle(path, spec, items, golden_inputs={spec.input_name: images[0]}, made_by=made_by)


def _resized(spec: ModelSpec, side: int) -> ModelSpec:
    """Return the spec for another resolution; its preprocessing scales along.

    Raises:
        UsageError: The network takes no images, or none of this size.
    """
    channels, *size = spec.input_shape
    if len(size) != 2:
        raise UsageError(f"{spec.name} takes no images", got=f"input {spec.input_shape}", do="leave --resolutions out")
    resize = round(spec.preprocess.resize * side / min(size))
    preprocess = replace(spec.preprocess, resize=resize, crop=(side, side))
    return replace(spec, input_shape=(channels, side, side), preprocess=preprocess)


def _lowered(fp32: Path, stem: Path, batches: list[Any]) -> list[Item]:
    """Return FP32 and INT8 for CPUs, and what engines could be built."""
    from ..optimize import quantize
    from ..optimize.graph.graph_file import GraphFile
    from ..optimize.quantize.float_source import FloatSource
    from ..optimize.quantize.post_training import quantize_graph
    from ..runtime.bundle.writer import Item

    source = FloatSource(GraphFile.read(fp32))
    settings = quantize.QuantSettings.quick()

    def int8(target: str) -> GraphFile:
        path = Path(f"{stem}-int8-{target}.onnx")
        _, graph = quantize_graph(
            source, path, batches, target=target, allow_random=True, min_images=IMAGES, settings=settings
        )
        assert graph is not None  # without a budget nothing stays float as a whole
        return graph

    items = [Item(fp32), Item(int8("ort-x86").path, precision="int8", target="ort-x86")]
    try:
        items += _engines(source.graph, int8("trt"), stem, batches)
    except NotAvailable as error:
        note(f"no kernels of {stem.name}: {error.what}")
    return items


def _engines(fp32: GraphFile, pairs: GraphFile, stem: Path, batches: list[Any]) -> Iterator[Item]:
    """Yield the engines for FP16 and INT8, of FP16 with channels carried on and without the one estimated faster.

    Raises:
        NotAvailable: There is no TensorRT here that builds them.
    """
    from ..optimize.fp16 import convert
    from ..optimize.graph.graph_file import GraphFile
    from ..optimize.trt import mixed_precision
    from ..optimize.trt.fold_passthrough_channels import fold_passthrough_channels
    from ..runtime.bundle import requirements
    from ..runtime.bundle.writer import Item
    from ..runtime.engines import cost

    chip = cost.of_sm(SM)
    assert chip is not None
    carried, mixed = Path(f"{stem}-carried.onnx"), Path(f"{stem}-int8-trt-fp16.onnx")
    halves = []
    for name, source in (
        ("fp16", fp32),
        *([("fp16-trt", GraphFile.read(carried))] if fold_passthrough_channels(fp32, carried) else []),
    ):
        halves.append(Path(f"{stem}-{name}.onnx"))
        convert.convert_graph(source, halves[-1], batches[:2])
    mixed_precision.restore_in_graph(fp32, pairs, [], mixed)
    for kind, sources in (("fp16", halves), ("int8", [mixed])):
        if built := [one for source in sources if (one := _built(source, kind)) is not None]:
            engine, sidecar = min(built, key=lambda one: cost.sidecar_s(one[1].kernels, chip))
            requires, facts = (
                requirements.engine_requirements(sidecar.to_dict()),
                {"kernels": sidecar.attestation.kernels},
            )
            yield Item(engine, "engine", kind, "sm86", requires=requires, facts=facts)


def _built(source: Path, kind: str) -> tuple[Path, Sidecar] | None:
    """Build one engine; say why where that fails for this network.

    Raises:
        NotAvailable: It fails for all of them.
    """
    from ..runtime.engines import build

    engine = source.with_suffix(".engine")
    try:
        return engine, build.build_engine(source, engine, sm=SM, precision=kind)
    except NotAvailable:
        raise
    except EdgesmithError as error:
        note(f"no {kind} engine of {source.stem}: {error}")
        return None
