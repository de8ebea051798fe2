"""Bundles to time: a network at its published input with random weights, as quickly as they can be made.

Latency, memory, size and kernels do not depend on the weights, so INT8 is plain calibration on noise, and nothing here
is compared with anything: `edgesmith export` does that, for networks that are to be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .runtime.console import note
from .runtime.errors import EdgesmithError, NotAvailable

if TYPE_CHECKING:
    from .runtime.bundle import Item

SM = "8.6"  # Ampere, as Orin: the nearest that TensorRT-RTX builds for
IMAGES = 8


def place(name: str, folder: Path) -> Path:
    """Return where the bundle of a network with random weights stands."""
    return folder / f"latency-{name}"


def ensure(name: str, folder: Path) -> Path:
    """Return the bundle: FP32, INT8 for CPUs, and the FP16 and INT8 engines where TensorRT-RTX is; made when absent.

    Raises:
        EdgesmithError: The network cannot be exported.
    """
    from .runtime.bundle import read

    path = place(name, folder)
    try:
        read(path)
    except EdgesmithError:
        note(f"making {path}")
        _make(name, path)
    return path


def _make(name: str, path: Path) -> None:
    import numpy as np

    from . import __version__
    from .export import to_onnx
    from .models import catalog, weights
    from .optimize import runner
    from .runtime import bundle
    from .runtime.files import workplace

    spec = catalog.spec(name, "random")
    module = catalog.build(name, spec.num_classes)
    spec = weights.load_into(module, spec, "random")
    weights.settle(module, spec.input_shape)
    images = np.random.default_rng(0).standard_normal((IMAGES, 1, *spec.input_shape), dtype=np.float32)
    with workplace(path) as work:
        raw, fp32 = work / f"{name}-raw.onnx", work / f"{name}-fp32.onnx"
        to_onnx.export(module.eval(), spec, raw)
        runner.optimize(raw, fp32, samples=list(images[:2]))
        items = _lowered(fp32, work / name, list(images))
        made_by = f"edgesmith {__version__}"
        bundle.write(path, spec, items, golden_inputs={spec.input_name: images[0]}, made_by=made_by)


def _lowered(fp32: Path, stem: Path, batches: list[Any]) -> list[Item]:
    """Return FP32 and INT8 for CPUs, and what engines could be built."""
    from .optimize import quantize
    from .runtime.bundle import Item

    settings = quantize.Settings(equalize=None, refine=False, noise=0.0)

    def int8(target: str) -> Path:
        made = Path(f"{stem}-int8-{target}.onnx")
        quantize.quantize(fp32, made, batches, target=target, allow_random=True, min_images=IMAGES, settings=settings)
        return made

    cpu = int8("ort-x86")
    items = [Item(fp32), Item(cpu, precision="int8", target="ort-x86")]
    try:
        items += _engines(fp32, int8("trt"), stem, batches)
    except NotAvailable as error:
        note(f"no kernels of {stem.name}: {error.what}")
    return items


def _engines(fp32: Path, pairs: Path, stem: Path, batches: list[Any]) -> Iterator[Item]:
    """Yield the engines for FP16 and INT8.

    Raises:
        NotAvailable: There is no TensorRT here that builds them.
    """
    from .optimize import mixed_trt, precision
    from .runtime import contract
    from .runtime.bundle import Item
    from .runtime.engines import build

    fp16, mixed = Path(f"{stem}-fp16.onnx"), Path(f"{stem}-int8-trt-fp16.onnx")
    precision.to_fp16(fp32, fp16, batches[:2])
    mixed_trt.mix(fp32, pairs, [], mixed)
    for kind, source in (("fp16", fp16), ("int8", mixed)):
        engine = Path(f"{stem}-{kind}-sm86.engine")
        try:
            sidecar = build.build_engine(source, engine, sm=SM, precision=kind)
        except NotAvailable:
            raise
        except EdgesmithError as error:
            note(f"no {kind} engine of {stem.name}: {error}")
            continue
        requires, facts = contract.of_engine(sidecar.to_dict()), {"kernels": sidecar.attestation.kernels}
        yield Item(engine, "engine", kind, "sm86", requires=requires, facts=facts)
