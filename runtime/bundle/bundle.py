"""A bundle: one folder (or .zip) with everything a device needs to run a network and to verify its outputs.

manifest.json            contents with digests (manifest.py)
signature.json           signature of the author, if signed (signing.py)
onnx/, engines/          the network per precision and target; each engine with a sidecar JSON
golden/inputs.npz        inputs, shared by all artefacts
golden/<artefact>.npz    outputs of each artefact, recorded at export
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import sha256, unreadable
from ..errors import BundleError, UsageError
from . import archive, signing
from .manifest import (
    GOLDEN_INPUTS,
    LARGEST_MANIFEST,
    LARGEST_SIGNATURE,
    NAME,
    SIGNATURE,
    Artefact,
    Manifest,
    parse_manifest,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest is valid; the digest of a file is checked when the file is requested."""

    folder: Path
    manifest: Manifest
    digest: str
    source: Path
    signature: bytes = b""
    _extracted: archive.Extracted | None = field(default=None, repr=False, compare=False)
    _looked_at: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def spec(self) -> ModelSpec:
        """The network's ModelSpec."""
        return self.manifest.spec

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """The runnable forms of the network."""
        return self.manifest.artefacts

    def file(self, name: str) -> Path:
        """Return the path of a member after checking its size and digest against the manifest.

        Raises:
            BundleError: It is missing, is outside the bundle, or was changed.
        """
        if problem := self.problem(name):
            raise BundleError(f"{self.source}: {name} {problem}", do="copy or make the bundle again")
        return self.folder / name

    def content(self, name: str) -> bytes:
        """Return a member's bytes, read once: the returned bytes are those compared with the manifest.

        Raises:
            BundleError: It is missing, is outside the bundle, or was changed.
        """
        problem, data = self._misplaced(name), b""
        if not problem:
            with (self.folder / name).open("rb") as file:
                data = file.read(self.manifest.files[name].bytes + 1)
            problem = self._differs(name, len(data), hashlib.sha256(data).hexdigest())
        if problem:
            raise BundleError(f"{self.source}: {name} {problem}", do="copy or make the bundle again")
        return data

    def problem(self, name: str) -> str:
        """Return the problem of a member, or an empty string; each member is checked once."""
        if name not in self._looked_at:
            self._looked_at[name] = self._look_at(name)
        return self._looked_at[name]

    def _look_at(self, name: str) -> str:
        if problem := self._misplaced(name):
            return problem
        path, entry = self.folder / name, self.manifest.files[name]
        if (size := path.stat().st_size) != entry.bytes:
            return f"was changed: {size} bytes, not {entry.bytes}"
        return self._differs(name, size, sha256(path))

    def _misplaced(self, name: str) -> str:
        path = self.folder / name
        if name not in self.manifest.files:
            return "is not in the manifest"
        if why := unreadable(path):
            return "is missing" if why == "no such file" else f"cannot be read: {why}"
        return "" if self.folder.resolve() in path.resolve().parents else "is outside the bundle"

    def _differs(self, name: str, size: int, digest: str) -> str:
        entry = self.manifest.files[name]
        if digest == entry.sha256:
            return ""
        if size != entry.bytes:
            return f"was changed: {min(size, entry.bytes + 1)} bytes or more, not {entry.bytes}"
        return f"was changed: SHA-256 {digest[:12]}…, not {entry.sha256[:12]}…"

    def check_signature(self, keys: signing.Keys | None) -> str:
        """Return the name of the trusted key that signed it; see `signing.check_signature`."""
        return signing.check_signature(self.digest, self.signature, keys, self.source)

    def arrays(self, name: str, empty: bool = False) -> dict[str, NDArray[Any]]:
        """Read a member that holds arrays (.npz); see `archive.read_arrays`."""
        return archive.read_arrays(self.file(name), empty)

    def golden_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the inputs whose outputs were recorded, by name."""
        return self.arrays(GOLDEN_INPUTS)


def read_bundle(path: str | Path, *, trusted_key: signing.Keys | None = None) -> Bundle:
    """Open a bundle: a folder, or a .zip, which is extracted to a temporary folder as long as the Bundle exists.

    Args:
        path: Path of the bundle.
        trusted_key: Public keys, one of which must have signed it; None means those of $EDGESMITH_TRUSTED_KEYS; if that
            is not set, no signature is required.

    Raises:
        UsageError: The path does not exist, or a key cannot be read.
        BundleError: Not a bundle, damaged, of a later version, a wrong manifest, or not signed as required.
        NotAvailable: A signature is required and cryptography is not installed.
    """
    bundle = open_bundle(path)
    bundle.check_signature(trusted_key)
    return bundle


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle as `read_bundle` does, without checking its signature; `sign` needs that."""
    path = Path(path)
    if (why := unreadable(path)) and why != "a folder":
        why = "no such folder or file" if why == "no such file" else why
        raise UsageError(f"cannot read bundle {str(path)[:300]}", got=why, do="check the path")
    extracted = archive.Extracted(path) if path.is_file() else None
    folder = extracted.folder if extracted else path
    if not (folder / NAME).is_file():
        raise BundleError(
            f"{path} is not a bundle", got=f"no {NAME}", expected="a folder that `edgesmith export` wrote"
        )
    text = _small(folder / NAME, path, LARGEST_MANIFEST)
    signed = (folder / SIGNATURE).is_file()
    signature = _small(folder / SIGNATURE, path, LARGEST_SIGNATURE) if signed else b""
    return Bundle(folder, parse_manifest(text), hashlib.sha256(text).hexdigest(), path, signature, extracted)


def _small(file: Path, path: Path, largest: int) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(largest + 1)
    except OSError as error:
        raise BundleError(f"{path}: {file.name} cannot be read", got=error.strerror or "") from error
    if len(text) > largest:
        raise BundleError(f"{path} has too large a {file.name}", expected=f"at most {largest} bytes")
    return text
