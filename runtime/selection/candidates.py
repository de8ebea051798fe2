"""Which artefact runs on which backend: the documented order, and why each was chosen or skipped.

On a GPU a TensorRT engine with matching SM and version comes first, then ONNX Runtime with CUDA. Of several engines
the one with the lowest estimated latency comes first, if the bundle has an estimate for each: INT8 with twice the
kernels of FP16 can be slower. On a CPU (`targets.cpu_place`):

    int8 for this type of machine and this backend, by the place in its target's row
    fp32
    int8 for other targets, such as trt: slower than FP32 on some CPUs
    fp16                CPUs compute it in FP32 with casts between

ONNX Runtime comes before OpenVINO with the same file, FP32 arithmetic before BF16. If several candidates are possible,
`autotune` measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import backends, targets
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
    "onnx": ("ort", "openvino", "openvino_bf16", "ort_cuda"),
    "nchwc": (),  # no longer made: see runtime/bundle/manifest.py
    "engine": ("trt",),
    "null": ("null",),
}
GPU_BACKENDS = ("trt", "ort_cuda")
BF16 = "openvino_bf16"
# The fact of an artefact in a manifest: backend -> why its arithmetic was refused, for each that failed.
ARITHMETIC = "refused_arithmetic"
GPU_ORDERS = {"trt": ("int8", "mixed", "fp16", "fp32"), "ort_cuda": ("fp16", "fp32")}


@dataclass(frozen=True, eq=False)
class Candidate:
    """One artefact on one backend of one type of device."""

    artefact: Artefact
    backend: str
    device: str

    def __str__(self) -> str:
        artefact = self.artefact
        return f"{artefact.name} ({artefact.precision}, {artefact.target}) with {self.backend} on the {self.device}"


def backends_for(artefact: Artefact) -> tuple[str, ...]:
    """Return the backends that can run an artefact, best first."""
    half = bears_bf16(artefact.precision, artefact.target)
    return tuple(name for name in BACKENDS[artefact.role] if half or name != BF16)


def bears_bf16(precision: str, target: str) -> bool:
    """Return whether the float layers of such a file may be computed in BF16: FP32, and INT8 with kernels for it."""
    row = targets.find(target)
    return precision == "fp32" or (row is not None and BF16 in row.backends)


def refused(artefact: Artefact, backend: str) -> str:
    """Return why the bundle says that an artefact does not bear a backend's arithmetic, or an empty string."""
    verdicts = artefact.facts.get(ARITHMETIC)
    why = verdicts.get(backend) if isinstance(verdicts, dict) else None
    return f"it failed where the bundle was made: {why}" if why else ""


def tolerance(artefact: Artefact, backend: str) -> float:
    """Return the largest relative error of a replay: the artefact's, or the backend's if its arithmetic is coarser."""
    own: float = getattr(load_plugin(backends, backend, "backend"), "TOLERANCE", 0.0)
    return max(artefact.tolerance, own)


def usable(backend: str) -> tuple[bool, str]:
    """Return whether a backend can be used here, and the reason if not."""
    if backend in GPU_BACKENDS and not gpu_possible():
        return False, "this machine has no NVIDIA GPU (no device file of one): this backend needs one"
    answer: tuple[bool, str] = load_plugin(backends, backend, "backend").available()
    return answer


def candidates(bundle: Bundle, device: str, precision: str) -> list[Candidate]:
    """List the candidates, best first.

    Args:
        bundle: The bundle of the artefacts.
        device: "auto", "cpu", "gpu", or a backend's name.
        precision: "auto", or one of the artefacts' precisions.

    Raises:
        UsageError: No such device or precision in this bundle.
    """
    everything = [
        Candidate(artefact, backend, "gpu" if backend in GPU_BACKENDS else "cpu")
        for artefact in bundle.artefacts
        for backend in backends_for(artefact)
    ]
    known = sorted({candidate.backend for candidate in everything})
    if device not in (*DEVICES, *known):
        expected = ", ".join((*DEVICES, *known))
        raise UsageError(f"unknown device {device!r}", expected=expected, do=did_you_mean(device, (*DEVICES, *known)))
    precisions = sorted({candidate.artefact.precision for candidate in everything})
    if precision not in ("auto", *precisions):
        expected = ", ".join(("auto", *precisions))
        raise UsageError(f"{bundle.source} has no artefact in {precision!r}", expected=expected)
    kept = [
        candidate
        for candidate in everything
        if device in ("auto", candidate.device, candidate.backend)
        and precision in ("auto", candidate.artefact.precision)
    ]
    engines = [candidate.artefact.facts for candidate in kept if candidate.backend == "trt"]
    ranked = all(isinstance(facts.get("estimated_s"), float) for facts in engines)
    return sorted(kept, key=lambda candidate: _place(candidate, ranked))


def admissible(bundle: Bundle, device: str, precision: str) -> tuple[list[Candidate], list[str]]:
    """Return the candidates that the bundle's facts admit, and a line for each that they do not; see `candidates`."""
    order = candidates(bundle, device, precision)
    notes = [f"skipped: {artefact.name}: {why}" for artefact in bundle.artefacts if (why := retired(artefact))]
    notes += [f"skipped: {one}: {why}" for one in order if (why := refused(one.artefact, one.backend))]
    return [one for one in order if not refused(one.artefact, one.backend)], notes


def retired(artefact: Artefact) -> str:
    """Return why an artefact of an earlier version is no longer supported, or an empty string."""
    return (
        ""
        if BACKENDS[artefact.role]
        else f"the role {artefact.role} is no longer supported; the portable form of the network is"
    )


def _place(candidate: Candidate, ranked: bool) -> tuple[int, float, int]:
    """Return the candidate's place: TensorRT, then CUDA, then the CPU; by estimate if ranked; by precision."""
    artefact, backend = candidate.artefact, candidate.backend
    if backend not in GPU_BACKENDS:
        return len(GPU_BACKENDS), 0.0, targets.cpu_place(artefact.precision, artefact.target, backend)
    order = GPU_ORDERS[backend]
    place = order.index(artefact.precision) if artefact.precision in order else len(order)
    estimate = artefact.facts["estimated_s"] if ranked and backend == "trt" else 0.0
    return GPU_BACKENDS.index(backend), estimate, place


def open_artefact(
    bundle: Bundle, artefact: Artefact, backend: str, *, threads: int | None = None, **options: Any
) -> Session:
    """Open one artefact on one backend: exactly the bytes whose digest was checked are loaded.

    An ONNX file with external weights is loaded from a private copy of the checked files.

    A form that ONNX Runtime only simulates (`targets.is_simulated`) is computed as written: the fused INT8 kernels of
    ONNX Runtime saturate signed 8-bit weights on CPUs without VNNI; those of TensorRT do not.

    Raises:
        NotAvailable: The backend is not installed or does not work here.
        BundleError: The file does not match the manifest, or names weights that the manifest does not list.
        ModelError: The backend cannot load it.
        BuildError: An engine is for another GPU or version.
    """
    module = _ready(backend)
    if targets.is_simulated(artefact.target, backend):
        options = {**module.SIMULATED, **options}
    requirements.check_requirements(artefact)
    with companions.checked_files(bundle, artefact) as (path, content):
        if content is not None:
            options["content"] = content
        if artefact.role == "engine":
            options["sidecar_content"] = companions.sidecar_content(bundle, artefact)
        session: Session = module.open(path, threads=threads, **options)
    return session


def open_file(path: Path, backend: str, *, threads: int | None = None, **options: Any) -> Session:
    """Open a file on a backend, after checking that the backend can be used here.

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
