"""TensorRT engines of the same bundle: number of kernels, file size, activation memory.

The values come from the sidecar, which the build writes, so no GPU is needed. For small networks the number of kernels
determines the latency on a GPU.
"""

from __future__ import annotations

from pathlib import Path

from ...runtime.bundle.bundle import Bundle, read_bundle
from ...runtime.bundle.companions import sidecar_content
from ...runtime.bundle.manifest import Artefact
from ...runtime.engines import sidecar
from ..measure.context import MetricContext
from ..measure.workload import FILES
from ..result import Reading

ON_REQUEST = True  # of the network, not of one form of it


def measure(context: MetricContext) -> Reading:
    """Return for each engine `fp16_sm86_kernels_count`, `…_file_bytes` and `…_activation_bytes`."""
    if Path(context.target.path).suffix in FILES:
        return Reading("engines", missing="a file without a bundle has no engines; measure a bundle")
    bundle, values = read_bundle(context.target.path), dict[str, float]()
    for one in bundle.artefacts:
        if one.role == "engine":
            facts = _facts(bundle, one)
            values |= {f"{one.precision}_{one.target}_{name}": float(value) for name, value in facts.items()}
    missing = "" if values else "the bundle has no engines; do: export with --target trt"
    return Reading("engines", values, missing=missing)


def _facts(bundle: Bundle, engine: Artefact) -> dict[str, int]:
    facts = {"file_bytes": bundle.manifest.files[engine.path].bytes}
    if "kernels" in engine.facts:
        facts["kernels_count"] = int(engine.facts["kernels"])
    if (content := sidecar_content(bundle, engine)) is not None:
        facts["activation_bytes"] = sidecar.read_sidecar(bundle.folder / engine.path, content).activation_bytes
    return facts
