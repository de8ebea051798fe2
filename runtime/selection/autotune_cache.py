"""Which artefact, backend and thread count was fastest on this machine: measured once (`autotune.py`), then remembered.

The stated order (`candidates.py`) is right on average; which INT8 form and which library win differs from one processor
to the next. So `load(..., device="auto")` runs each candidate for a moment, two seconds in all, and keeps the answer in
a small file, under a key that changes with the bundle, the processor, the cores and the backends' versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.cache_folder import cache_folder
from ..common.files import atomic_file
from ..common.machine import cores, cpu
from ..errors import EdgesmithError

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from .autotune import Fastest
    from .candidates import Candidate

FORMAT = 2
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Choice:
    """The fastest: artefact, backend, threads; `seconds` is the least time of one run of each that was measured."""

    artefact: str
    backend: str
    threads: int | None
    seconds: dict[str, float]

    @classmethod
    def of(cls, winner: Fastest) -> Choice:
        """Return what is remembered of the one that won."""
        artefact, backend = winner.candidate.artefact.name, winner.candidate.backend
        return cls(artefact, backend, winner.threads, winner.seconds)


def key(bundle: Bundle, candidates: list[Candidate], threads: int | None) -> str:
    """Return what a choice depends on, as one SHA-256."""
    from ..engines import device

    name, flags = cpu()
    backends = sorted({candidate.backend for candidate in candidates})
    versions = {backend: _version(backend) for backend in backends}
    described = [str(candidate) for candidate in candidates]
    gpu = device.gpu_facts() if any(candidate.device == "gpu" for candidate in candidates) else {}
    facts = [FORMAT, bundle.digest, name, sorted(flags), cores(), versions, described, threads, gpu]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(backend: str) -> str:
    """Return what changes when a backend's package is installed anew, without importing it."""
    package = importlib.util.find_spec(_PACKAGES.get(backend, "numpy"))
    if package is None or not package.origin:
        return ""
    with contextlib.suppress(OSError):
        return f"{package.origin} {Path(package.origin).stat().st_mtime_ns}"
    return ""


def remembered(name: str) -> Choice | None:
    """Return an earlier choice; None where there is none that can be read."""
    try:
        values = json.loads((cache_folder() / f"{name}.json").read_text(encoding="utf-8"))
        choice = Choice(**values)
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = choice.threads is None or (isinstance(choice.threads, int) and choice.threads > 0)
    timed = isinstance(choice.seconds, dict) and all(isinstance(one, float) for one in choice.seconds.values())
    return choice if whole and timed else None


def remember(name: str, choice: Choice) -> None:
    """Keep a choice; a folder that cannot be written means that it is measured again next time."""
    with contextlib.suppress(EdgesmithError), atomic_file(cache_folder() / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(choice), indent=1) + "\n", encoding="utf-8")
