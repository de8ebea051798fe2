"""Files of an artefact as they were checked; of an ONNX file's external weights only companions are read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Container, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..common.external_data import read_locations
from ..common.files import scratch
from ..engines.sidecar import path_of
from ..errors import BundleError, EdgesmithError

if TYPE_CHECKING:
    from .bundle import Bundle
    from .manifest import Artefact


ROLES = ("onnx", "nchwc")


@contextlib.contextmanager
def checked_files(bundle: Bundle, artefact: Artefact, on_disk: bool = False) -> Iterator[tuple[Path, bytes | None]]:
    """Yield the path of an artefact and its bytes; None if the file itself is to be loaded by its path.

    What is yielded is what was checked: an ONNX file with external weights is copied, with these, into a private folder
    while the digests are computed. The folder is removed at the end of the block.

    Args:
        bundle: The bundle of the artefact.
        artefact: One of its artefacts.
        on_disk: Yield a file in any case.

    Raises:
        BundleError: A file was changed, or the ONNX file names external data that the manifest does not list as its
            companions.
        ModelError: It is not an ONNX file.
        EdgesmithError: The temporary folder is full.
    """
    content = bundle.content(artefact.path)
    if not (_external(bundle, artefact, content) or on_disk):
        for name in artefact.companions:
            bundle.copy(name, io.BytesIO())
        yield bundle.folder / artefact.path, content
        return
    with scratch("artefact") as folder:
        for name in (artefact.path, *artefact.companions):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as file:
                bundle.copy(name, file)
        yield folder / artefact.path, None


def sidecar_content(bundle: Bundle, engine: Artefact) -> bytes | None:
    """Return the bytes of an engine's sidecar as they were checked; None if the bundle has none.

    Raises:
        BundleError: It was changed.
    """
    name = path_of(engine.path).as_posix()
    return bundle.content(name) if name in engine.companions else None


def _external(bundle: Bundle, artefact: Artefact, content: bytes) -> bool:
    """Return whether the bytes of an artefact name external data; they may name only its companions."""
    places = read_locations(content, bundle.folder / artefact.path) if artefact.role in ROLES else []
    beside = {PurePosixPath(name) for name in artefact.companions}
    for place in places:
        if not place or PurePosixPath(artefact.path).parent / place not in beside:
            raise BundleError(
                f"{bundle.source}: {artefact.path} names weights that the manifest does not list",
                got=repr(place)[:200], expected=", ".join(artefact.companions) or "no external data",
                do="do not run it; its author can write the bundle again with this file as a companion",
            )  # fmt: skip
    return bool(places)


def companion_problems(bundle: Bundle, changed: Container[str] = ()) -> dict[str, str]:
    """Return the path of each ONNX file that names weights outside the manifest, with the problem.

    Args:
        bundle: The bundle.
        changed: Members known to differ from the manifest, which are passed over.
    """
    wrong = {}
    for artefact in bundle.artefacts:
        if artefact.role in ROLES and artefact.path not in changed:
            try:
                _external(bundle, artefact, bundle.content(artefact.path))
            except EdgesmithError as error:
                wrong[artefact.path] = f"cannot be used: {error}"
    return wrong
