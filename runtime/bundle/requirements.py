"""Requirements of an artefact on the machine, checked before it is loaded; other engines can be rebuilt.

Keys of a manifest's `requires`: sm, flavour, tensorrt and cuda (of an engine; the CUDA that the driver must support),
os, machine. A fact that the machine does not report is not checked here: the backend also checks the engine's header.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import targets
from ..common.cache_folder import cache_folder, private_folder
from ..common.files import locked, sha256
from ..engines.device import machine_facts
from ..errors import BuildError, EdgesmithError, ModelError
from . import companions

if TYPE_CHECKING:
    from .bundle import Bundle
    from .manifest import Artefact


def engine_requirements(sidecar: Mapping[str, Any]) -> dict[str, str]:
    """Return the requirements of an engine built on this machine: GPU, TensorRT, system, and at least this CUDA.

    Args:
        sidecar: The engine's sidecar as plain data.
    """
    from ..engines import gpu

    facts = {"sm": sidecar["sm"], "tensorrt": sidecar["version"], "flavour": sidecar["flavour"]}
    cuda = gpu.library_cuda()
    return {**facts, **machine_facts(), **({"cuda": cuda} if cuda else {})}


def unmet(requires: Mapping[str, str], known: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the requirements that are not met, as {key: (got, expected)}.

    TensorRT matches if the first two parts of the version are equal, CUDA if the driver's major version is not older
    (CUDA compatibility: minor versions of one major version run on each other's drivers).
    """
    return {
        key: (known[key], wanted)
        for key, wanted in requires.items()
        if known.get(key) and not _holds(key, wanted, known[key])
    }


def _holds(key: str, wanted: str, got: str) -> bool:
    if key == "tensorrt":
        return wanted.split(".")[:2] == got.split(".")[:2]
    if key == "cuda":
        parts = (version.split(".")[0] for version in (got, wanted))
        have, need = (int(part) if part.isdecimal() else 0 for part in parts)
        return have >= need
    return wanted.lower() == got.lower()


def check_requirements(artefact: Artefact) -> None:
    """Compare an artefact's requirements with this machine.

    Raises:
        BuildError: A requirement is not met; the message names the first one.
    """
    if not artefact.requires:
        return
    wrong = unmet(artefact.requires, machine_facts(artefact.requires.get("flavour", "")))
    for key, (got, wanted) in wrong.items():
        raise BuildError(
            f"{artefact.name} was built for a different machine", got=f"{key} {got}", expected=f"{key} {wanted}",
            do="build it here: load(…, rebuild=True)",
        )  # fmt: skip


def source_of(bundle: Bundle, artefact: Artefact) -> Artefact:
    """Return the ONNX file of the bundle from which an engine of this precision is built.

    Raises:
        ModelError: There is none.
    """
    same = [a for a in bundle.artefacts if a.role == "onnx" and a.precision == artefact.precision]
    flavour = artefact.requires.get("flavour")
    order = sorted(targets.names(lambda row: row.engine), key=lambda name: targets.row(name).engine != flavour)
    for target in (*order, "generic"):
        for source in same:
            if source.target == target:
                return source
    raise ModelError(
        f"the bundle has no ONNX file to build {artefact.name} from",
        got=", ".join(f"{a.precision} for {a.target}" for a in bundle.artefacts if a.role == "onnx") or "none",
        expected=f"{artefact.precision} for trt or generic",
    )


def rebuild_engine(
    bundle: Bundle, artefact: Artefact, *, sm: str = "current", flavour: str = "auto", **options: Any
) -> Path:
    """Build an engine from the bundle's ONNX file, or return the cached one of the same content.

    Args:
        bundle: The bundle with the ONNX file.
        artefact: The engine that does not run on this machine.
        sm: Compute capability; "current" is that of this machine.
        flavour: TensorRT flavour: "rtx", "standard" or "auto".
        options: Arguments of `engines.build.build_engine`.

    Raises:
        ModelError: The bundle has no ONNX file of that precision.
        BundleError: The ONNX file was changed, or names weights that the manifest does not list.
        NotAvailable: No TensorRT, or no GPU for "current".
        BuildError: TensorRT cannot build it, or the cache belongs to another user.
    """
    from ..engines import build, gpu
    from ..engines import flavour as flavours

    source = source_of(bundle, artefact)
    name, module = flavours.choose_flavour(flavour, sm)
    version = str(getattr(flavours.load_tensorrt(module), "__version__", ""))
    true_sm = gpu.device_sm() if sm == "current" else sm
    digests = [bundle.manifest.files[one].sha256 for one in (source.path, *source.companions)]
    key = json.dumps([digests, true_sm, name, version, sorted(options.items())])
    digest = hashlib.sha256(key.encode()).hexdigest()
    target = private_folder(cache_folder() / "engines") / f"{source.name}-{digest[:16]}.engine"
    with locked(target):
        if not _is_built_from(target, digests[0]):
            with companions.checked_files(bundle, source, on_disk=True) as (network, _):
                build.build_engine(
                    network, target, sm=sm, precision=artefact.precision, flavour=name, overwrite=True, **options
                )
    return target


def _is_built_from(engine: Path, digest: str) -> bool:
    """Return whether a cached engine is complete, and its sidecar says that it was built from this ONNX file."""
    from ..engines import sidecar

    try:
        facts = sidecar.read_sidecar(engine)
        return facts.source_sha256 == digest and facts.sha256 == sha256(engine)
    except (EdgesmithError, OSError):
        return False
