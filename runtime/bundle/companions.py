"""External weights of a bundle's ONNX files: only the companions that the manifest lists are read."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ..common.external_data import read_locations
from ..errors import BundleError, EdgesmithError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .manifest import Artefact


ROLES = ("onnx", "nchwc")


def network_bytes(bundle: Bundle, artefact: Artefact) -> bytes | None:
    """Return the checked bytes of an artefact; None for an ONNX file with external weights, which are checked too.

    Raises:
        BundleError: A file was changed, or the ONNX file names external data that the manifest does not list as its
            companions.
        ModelError: It is not an ONNX file.
    """
    for name in artefact.companions:
        bundle.file(name)
    content = bundle.content(artefact.path)
    places = read_locations(content, bundle.folder / artefact.path) if artefact.role in ROLES else []
    beside = {PurePosixPath(name) for name in artefact.companions}
    for place in places:
        if not place or PurePosixPath(artefact.path).parent / place not in beside:
            raise BundleError(
                f"{bundle.source}: {artefact.path} names weights that the manifest does not list",
                got=repr(place)[:200], expected=", ".join(artefact.companions) or "no external data",
                do="do not run it; its author can write the bundle again with this file as a companion",
            )  # fmt: skip
    return None if places else content


def companion_problems(bundle: Bundle) -> dict[str, str]:
    """Return the path of each ONNX file that names weights outside the manifest, with the problem."""
    wrong = {}
    for artefact in bundle.artefacts:
        if artefact.role in ROLES and not any(map(bundle.problem, (artefact.path, *artefact.companions))):
            try:
                network_bytes(bundle, artefact)
            except EdgesmithError as error:
                wrong[artefact.path] = f"cannot be used: {error}"
    return wrong
