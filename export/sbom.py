"""The bill of materials of a bundle, in CycloneDX's JSON: packages, torch's build, and digests of the sources."""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..runtime.common.external_data import model_file, read_locations
from ..runtime.common.files import sha256
from ..runtime.common.packages import versions
from ..runtime.spec import ModelSpec

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

    from .settings import ExportSettings

NAME = "sbom.cdx.json"
PACKAGE = Path(__file__).resolve().parents[1]


def source_digests(settings: ExportSettings) -> dict[str, str]:
    """Return the SHA-256 of each file that the user named: the network's, weights beside it, and a checkpoint, by name.

    Empty for what is in a package or in memory; `raw_digests` covers these.
    """
    source = settings.source
    place = Path(source.place)
    paths = [place] if source.kind in ("onnx", "program", "factory") and place.is_file() else []
    if source.kind == "onnx":
        paths += [place.parent / name for name in sorted(read_locations(model_file(place).read_bytes(), place))]
    if source.kind == "huggingface":
        paths += sorted(path for path in place.iterdir() if path.is_file())
    weights = Path(settings.weights)
    paths += [weights] if weights.suffix and weights.is_file() else []
    return {path.name: sha256(path) for path in paths}


def raw_digests(raw: Path) -> dict[str, str]:
    """Return the SHA-256 of the unoptimised ONNX file, and of its weights beside it."""
    data = raw.with_name(f"{raw.name}.data")
    return {path.name: sha256(path) for path in (raw, data) if path.is_file()}


def package_digest(folder: Path = PACKAGE) -> str:
    """Return the SHA-256 over names and contents of Edgesmith's Python files; equal in a checkout and a wheel of it."""
    digest = hashlib.sha256()
    rooms = [room for room in folder.iterdir() if (room / "__init__.py").is_file()]
    paths = [path for place in ([*folder.glob("*.py")], *(room.rglob("*.py") for room in rooms)) for path in place]
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in paths):
        digest.update(f"{name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def bill_of_materials(spec: ModelSpec, sources: Mapping[str, str]) -> str:
    """Return the bill as JSON of CycloneDX 1.6; the same environment and sources give the same text, without a date.

    Args:
        spec: The network.
        sources: SHA-256 by the name of each file that the network was made of.

    Raises:
        NotAvailable: cyclonedx-python-lib is not installed.
    """
    from cyclonedx.output.json import JsonV1Dot6

    bom = _bom(spec, sources)
    values = json.loads(JsonV1Dot6(bom).output_as_string())
    del values["metadata"]["timestamp"]
    del values["serialNumber"]
    identity = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(values, sort_keys=True))
    return json.dumps({**values, "serialNumber": identity.urn}, indent=1, sort_keys=True) + "\n"


def _bom(spec: ModelSpec, sources: Mapping[str, str]) -> Bom:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    def hashed(kind: ComponentType, name: str, digest: str, version: str | None = None) -> Component:
        hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
        return Component(type=kind, name=name, version=version, bom_ref=f"{kind.value}:{name}", hashes=hashes)

    network = Component(type=ComponentType.MACHINE_LEARNING_MODEL, name=spec.name, bom_ref=f"network:{spec.name}")
    tool = hashed(ComponentType.APPLICATION, "edgesmith", package_digest(), __version__)
    files = [hashed(ComponentType.FILE, name, digest) for name, digest in sorted(sources.items())]
    components = [tool, *files, *_packages()]
    # the library wants a date; there is none in the text, which depends on nothing but what it lists
    metadata = BomMetaData(component=network, tools=ToolRepository(components=[tool]),
                           timestamp=datetime.datetime.fromtimestamp(0, datetime.timezone.utc))  # fmt: skip
    bom = Bom(components=components, metadata=metadata)
    bom.register_dependency(network, components)
    return bom


def _packages() -> list[Component]:
    """Return Python and every installed distribution; torch, if it is loaded, with its build."""
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    installed = versions()
    components = [
        Component(
            type=ComponentType.PLATFORM, name="python", version=installed.pop("python"), bom_ref="platform:python"
        )
    ]
    for name, version in installed.items():
        build = _torch_build() if name == "torch" else {}
        properties = [Property(name=f"edgesmith:{key}", value=value) for key, value in build.items()]
        url = PackageURL("pypi", name=name, version=version)
        components.append(Component(name=name, version=version, purl=url, bom_ref=str(url), properties=properties))
    return [one for one in components if one.name != "edgesmith"]


def _torch_build() -> dict[str, str]:
    """Return the commit and the CUDA version of the loaded torch; nothing if it is not loaded."""
    if (torch := sys.modules.get("torch")) is None:
        return {}
    return {"torch.git_version": str(torch.version.git_version), "torch.cuda": str(torch.version.cuda or "none")}
