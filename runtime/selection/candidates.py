"""Which artefact, on which backend: the stated order, and why each was taken or passed over.

On a GPU a TensorRT engine whose SM and version match comes first, then ONNX Runtime with CUDA. Of several engines the
one with the least estimate comes first, where the bundle has one for each of them: INT8 with twice the kernels of FP16
can be the slower. On a CPU:

    int8 for ort-x86    the fastest form there: U8 activations, S8 weights
    fp32
    int8 for trt        S8 activations; slower than FP32 on some CPUs
    fp16                CPUs compute it in FP32 with casts between

ONNX Runtime goes before OpenVINO with the same file. Where more than one would do, `tune` measures instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import backends
from ..bundle import companions, requirements
from ..common.machine import gpu_possible
from ..common.plugins import did_you_mean, load_plugin
from ..errors import NotAvailable, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from ..backends._base import Session
    from ..bundle.bundle import Bundle
    from ..bundle.manifest import Artefact

DEVICES = ("auto", "cpu", "gpu")
BACKENDS = {
    "onnx": ("ort", "openvino", "ort_cuda"),
    "nchwc": (),  # no longer made: see runtime/bundle/manifest.py
    "engine": ("trt",),
    "null": ("null",),
}
GPU_BACKENDS = ("trt", "ort_cuda")
CPU_ORDER = (("int8", "ort-x86"), ("fp32", ""), ("mixed", "ort-x86"), ("int8", ""), ("mixed", ""), ("fp16", ""))
TRT_ORDER = (("int8", ""), ("mixed", ""), ("fp16", ""), ("fp32", ""))
CUDA_ORDER = (("fp16", ""), ("fp32", ""))
ORDERS = {"trt": TRT_ORDER, "ort_cuda": CUDA_ORDER}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One artefact on one backend of one kind of device."""

    artefact: Artefact
    backend: str
    device: str

    def __str__(self) -> str:
        artefact = self.artefact
        return f"{artefact.name} ({artefact.precision}, {artefact.target}) with {self.backend} on the {self.device}"


def backends_for(artefact: Artefact) -> tuple[str, ...]:
    """Return the backends that can run an artefact, best first."""
    return BACKENDS[artefact.role]


def usable(backend: str) -> tuple[bool, str]:
    """Return whether a backend can be used here, and why not."""
    if backend in GPU_BACKENDS and not gpu_possible():
        return False, "no NVIDIA GPU here (no device file of one): this backend needs one"
    found: tuple[bool, str] = load_plugin(backends, backend, "backend").available()
    return found


def candidates(bundle: Bundle, device: str, precision: str) -> list[Candidate]:
    """List what could run, best first.

    Args:
        bundle: Whose artefacts.
        device: "auto", "cpu", "gpu", or a backend's name.
        precision: "auto", or one of the artefacts' precisions.

    Raises:
        UsageError: No such device or precision in this bundle.
    """
    found = [
        Candidate(artefact, backend, "gpu" if backend in GPU_BACKENDS else "cpu")
        for artefact in bundle.artefacts
        for backend in BACKENDS[artefact.role]
    ]
    known = sorted({candidate.backend for candidate in found})
    if device not in (*DEVICES, *known):
        expected = ", ".join((*DEVICES, *known))
        raise UsageError(f"unknown device {device!r}", expected=expected, do=did_you_mean(device, (*DEVICES, *known)))
    precisions = sorted({candidate.artefact.precision for candidate in found})
    if precision not in ("auto", *precisions):
        expected = ", ".join(("auto", *precisions))
        raise UsageError(f"{bundle.source} has no precision {precision!r}", expected=expected)
    kept = [
        candidate
        for candidate in found
        if device in ("auto", candidate.device, candidate.backend)
        and precision in ("auto", candidate.artefact.precision)
    ]
    engines = [candidate.artefact.facts for candidate in kept if candidate.backend == "trt"]
    ranked = all(isinstance(facts.get("estimated_s"), float) for facts in engines)
    return sorted(kept, key=lambda candidate: _place(candidate, ranked))


def retired(artefact: Artefact) -> str:
    """Return why no backend runs a form that earlier versions made, or an empty string."""
    return "" if BACKENDS[artefact.role] else f"the role {artefact.role} is no longer run; its portable form is"


def _place(candidate: Candidate, ranked: bool) -> tuple[int, float, int]:
    """Return the candidate's place: TensorRT, then CUDA, then the CPU; by estimate if ranked; by its order of forms."""
    order = ORDERS.get(candidate.backend, CPU_ORDER)
    artefact = candidate.artefact
    fits = (
        place
        for place, (precision, target) in enumerate(order)
        if artefact.precision == precision and target in ("", artefact.target)
    )
    kind = GPU_BACKENDS.index(candidate.backend) if candidate.backend in GPU_BACKENDS else len(GPU_BACKENDS)
    estimate = artefact.facts["estimated_s"] if ranked and candidate.backend == "trt" else 0.0
    return kind, estimate, next(fits, len(order))


def open_artefact(
    bundle: Bundle, artefact: Artefact, backend: str, *, threads: int | None = None, **options: Any
) -> Session:
    """Open one artefact on one backend: what is loaded are the very bytes whose digest was checked.

    Only an ONNX file with weights in files beside it is loaded by its path, after the digests of all were checked and
    the file was found to name none but these.

    A form made for TensorRT is computed as written: ONNX Runtime's fused INT8 kernels saturate its signed 8-bit weights
    on CPUs without VNNI, which TensorRT does not.

    Raises:
        NotAvailable: The backend is not installed or does not work here.
        BundleError: The file is not what the manifest says, or names weights that the manifest does not list.
        ModelError: The backend cannot load it.
        BuildError: An engine is for another GPU or version.
    """
    module = _ready(backend)
    if backend == "ort" and artefact.target == "trt":
        options = {**module.SIMULATED, **options}
    requirements.check_requirements(artefact)
    content = companions.network_bytes(bundle, artefact)
    if content is not None:
        options["content"] = content
    session: Session = module.open(bundle.folder / artefact.path, threads=threads, **options)
    return session


def open_file(path: Path, backend: str, *, threads: int | None = None, **options: Any) -> Session:
    """Open a file on a backend, after asking the backend whether it can be used here.

    Raises:
        NotAvailable: The backend is not installed or does not work here.
        ModelError: The backend cannot load the file.
        BuildError: An engine is for another GPU or version.
    """
    session: Session = _ready(backend).open(path, threads=threads, **options)
    return session


def _ready(backend: str) -> Any:
    ready, reason = usable(backend)
    if not ready:
        raise NotAvailable(f"the backend {backend} cannot be used", got=reason)
    return load_plugin(backends, backend, "backend")
