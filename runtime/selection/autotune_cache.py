"""Cache of the fastest artefact, backend and thread count on this machine, which `autotune.py` measured.

The fixed order (`candidates.py`) is right on average; the fastest INT8 form and library differ between processors. So
`load(..., device="auto")` runs each candidate briefly, two seconds in total, and stores the result in a small file,
under a key that changes with the bundle, the processor, the cores and the backends' versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.cache_folder import cache_folder, not_ours
from ..common.files import atomic_file
from ..common.machine import cores, cpu
from ..errors import EdgesmithError

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from .autotune import Fastest
    from .candidates import Candidate

FORMAT = 3
_PACKAGES = {"ort": "onnxruntime", "openvino": "openvino", "openvino_bf16": "openvino"}


@dataclass(frozen=True)
class Choice:
    """The fastest artefact, backend and thread count.

    `seconds` is the shortest run of each measured candidate; `refused` says which gave other answers here.
    """

    artefact: str
    backend: str
    threads: int | None
    seconds: dict[str, float]
    refused: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, winner: Fastest, refused: list[str]) -> Choice:
        """Return the cached part of the fastest candidate."""
        artefact, backend = winner.candidate.artefact.name, winner.candidate.backend
        return cls(artefact, backend, winner.threads, winner.seconds, refused)


def key(bundle: Bundle, candidates: list[Candidate], threads: int | None) -> str:
    """Return the SHA-256 of everything that the choice depends on."""
    from ..engines import device

    name, flags = cpu()
    backends = sorted({candidate.backend for candidate in candidates})
    versions = {backend: _version(backend) for backend in backends}
    described = [str(candidate) for candidate in candidates]
    gpu = device.gpu_facts() if any(candidate.device == "gpu" for candidate in candidates) else {}
    facts = [FORMAT, bundle.digest, name, sorted(flags), cores(), versions, described, threads, gpu]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _version(backend: str) -> str:
    """Return a value that changes if a backend's package is reinstalled, without importing it."""
    package = importlib.util.find_spec(_PACKAGES.get(backend, "numpy"))
    if package is None or not package.origin:
        return ""
    with contextlib.suppress(OSError):
        return f"{package.origin} {Path(package.origin).stat().st_mtime_ns}"
    return ""


def remembered(name: str, threads: int | None = None) -> Choice | None:
    """Return the cached choice; None if there is none of this user that can be read.

    Args:
        name: The choice's key.
        threads: The number of threads that the caller asked for: a choice has at most these, or the usable cores.
    """
    most = max(threads or 0, cores())
    path = cache_folder() / f"{name}.json"
    try:
        if not_ours(path):
            return None
        choice = Choice(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = choice.threads is None or (type(choice.threads) is int and 0 < choice.threads <= most)
    timed = isinstance(choice.seconds, dict) and all(isinstance(one, float) for one in choice.seconds.values())
    reasons = isinstance(choice.refused, list) and all(isinstance(one, str) for one in choice.refused)
    return choice if whole and timed and reasons else None


def remember(name: str, choice: Choice) -> None:
    """Cache a choice; if the folder cannot be written, it is measured again next time."""
    with contextlib.suppress(EdgesmithError), atomic_file(cache_folder() / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(asdict(choice), indent=1) + "\n", encoding="utf-8")
