"""Bundles for timing: networks at their published input size with random weights, made as fast as possible.

Latency, memory, size and kernels do not depend on the weights, so INT8 is plain calibration on noise, and no check
compares outputs here: `edgesmith export` does this, for networks that will be used.
"""

from __future__ import annotations

from pathlib import Path

from ..runtime.common.progress import note
from ..runtime.errors import EdgesmithError

SM = "8.6"  # Ampere, like Orin: the nearest SM that TensorRT-RTX supports
IMAGES = 8


def place(name: str, folder: Path, side: int = 0) -> Path:
    """Return the path of the bundle of a network with random weights."""
    return folder / (f"latency-{name}-{side}" if side else f"latency-{name}")


def ensure(name: str, folder: Path, side: int = 0) -> Path:
    """Return the bundle: FP32, INT8 for CPUs, and with TensorRT-RTX FP16 and INT8 engines; make it if missing.

    Args:
        name: A network.
        folder: The folder of bundles.
        side: Height and width of the input in pixels; 0 for the published size.

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
    """Run the stages of `edgesmith export` with noise as images, without its checks and measurements."""
    from ..runtime.common.files import workplace
    from ..runtime.datasets import Noise
    from ..runtime.outputs import claim
    from . import pipeline
    from .engines import make_engines
    from .settings import ExportSettings, Flow
    from .sources.load import load_zoo

    claim(path, "bundle")
    settings = ExportSettings(name, weights="random", sms=(SM,), calibration=IMAGES, evaluate=False)
    flow = Flow(settings, say=lambda line: None, quick=True)
    network = load_zoo(settings.source, "random", settings.weights_folder, (side, side) if side else None)
    flow.data = {split: Noise.draw(network.spec, split, IMAGES) for split in ("calibration", "test")}
    with workplace(path) as work:
        spec = pipeline.make_files(flow, network, work)
        for precision in ("fp16", "int8"):
            try:
                make_engines(flow, spec, work, [precision])
            except EdgesmithError as error:
                note(f"no {precision} engine of {name}: {error}")
        for check in flow.checks:
            if not check.passed:
                note(f"{name}: {check.name}: {check.detail}")
        pipeline.write_files(flow, spec, path)
