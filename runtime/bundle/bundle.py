"""A bundle: one folder (or .zip) with everything a device needs to run a network and to verify its outputs.

manifest.json            contents with digests (manifest.py)
signature.json           signature of the author, if signed (signing.py)
onnx/, engines/          the network per precision and target; each engine with a sidecar JSON
golden/inputs.npz        inputs, shared by all artefacts
golden/<artefact>.npz    outputs of each artefact, recorded at export
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from ..common.files import unreadable
from ..errors import BundleError, EdgesmithError, UsageError
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


MOST_TRIES = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its manifest is valid; the digest of a file is checked whenever the file is read."""

    folder: Path
    manifest: Manifest
    digest: str
    source: Path
    signature: bytes = b""
    _extracted: archive.Extracted | None = field(default=None, repr=False, compare=False)
    _opened_stamp: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @property
    def spec(self) -> ModelSpec:
        """The network's ModelSpec."""
        return self.manifest.spec

    @property
    def artefacts(self) -> tuple[Artefact, ...]:
        """The runnable forms of the network."""
        return self.manifest.artefacts

    def content(self, name: str) -> bytes:
        """Return a member's bytes, read once: the returned bytes are those compared with the manifest.

        Raises:
            BundleError: It is missing, is outside the bundle, or was changed.
        """
        buffer = io.BytesIO()
        self.copy(name, buffer)
        return buffer.getvalue()

    def copy(self, name: str, target: IO[bytes]) -> None:
        """Write a member's bytes to `target`, read once: they are those compared with the manifest.

        Raises:
            BundleError: It is missing, is outside the bundle, or was changed; `target` must not be used.
        """
        if problem := self.problem(name, target):
            raise BundleError(f"{self.source}: {name} {problem}", do="copy or make the bundle again")

    def problem(self, name: str, target: IO[bytes] | None = None) -> str:
        """Return the problem of a member, or an empty string; it is read at each call, and copied to `target`."""
        if name not in self.manifest.files:
            return "is not in the manifest"
        path, entry = self.folder / name, self.manifest.files[name]
        if why := unreadable(path):
            return "is missing" if why == "no such file" else f"cannot be read: {why}"
        if self.folder.resolve() not in path.resolve().parents:
            return "is outside the bundle"
        size, digest = 0, hashlib.sha256()
        try:
            with path.open("rb") as file:
                while size <= entry.bytes and (block := file.read(min(1 << 20, entry.bytes + 1 - size))):
                    size += len(block)
                    digest.update(block)
                    if target:
                        target.write(block)
        except FileNotFoundError:  # replaced just now
            return "is missing"
        if size != entry.bytes:
            return f"was changed: {'at least ' if size > entry.bytes else ''}{size} bytes, not {entry.bytes}"
        if digest.hexdigest() != entry.sha256:
            return f"was changed: SHA-256 {digest.hexdigest()[:12]}…, not {entry.sha256[:12]}…"
        return ""

    def check_signature(
        self, keys: signing.Keys | None, name: str | None = None, min_version: int = 0
    ) -> signing.Signature | None:
        """Return the signature of a trusted key, after comparing the network's name; see `signing.check_signature`."""
        if name is not None and self.spec.name != name:
            raise BundleError(f"{self.source} is another network", got=self.spec.name, expected=name)
        return signing.check_signature(self.digest, self.signature, keys, self.source, self.spec.name, min_version)

    def is_replaced(self) -> bool:
        """Return whether another bundle is or was at the path since this one was opened (a .zip was copied then)."""
        return self._extracted is None and _stamp(self.folder) != self._opened_stamp

    def arrays(self, name: str, empty: bool = False) -> dict[str, NDArray[Any]]:
        """Read a member that holds arrays (.npz); see `archive.read_arrays`."""
        return archive.read_arrays(io.BytesIO(self.content(name)), empty, str(self.folder / name))

    def golden_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the inputs whose outputs were recorded, by name."""
        return self.arrays(GOLDEN_INPUTS)


def read_bundle(
    path: str | Path, *, trusted_key: signing.Keys | None = None, name: str | None = None, min_version: int = 0
) -> Bundle:
    """Open a bundle: a folder, or a .zip, which is extracted to a temporary folder as long as the Bundle exists.

    Args:
        path: Path of the bundle.
        trusted_key: Public keys, one of which must have signed it; None means those of $EDGESMITH_TRUSTED_KEYS; if that
            is not set, no signature is required; if it is empty, nobody is trusted.
        name: The network that it must be; None allows any.
        min_version: Lowest version that its signature may have.

    Raises:
        UsageError: The path does not exist, or a key cannot be read.
        BundleError: Not a bundle, damaged, of a later version, a wrong manifest, or not signed as required.
        NotAvailable: A signature is required and cryptography is not installed.
    """

    def checked(bundle: Bundle) -> Bundle:
        bundle.check_signature(trusted_key, name, min_version)
        return bundle

    return settled(path, checked)


def settled(path: str | Path, use: Callable[[Bundle], T]) -> T:
    """Open a bundle and return what `use` returns; again, if the bundle was replaced meanwhile and `use` failed.

    Raises:
        EdgesmithError: Opening or `use` failed, and the bundle is still the same.
    """
    for _ in range(MOST_TRIES):
        bundle = open_bundle(path)
        try:
            return use(bundle)
        except EdgesmithError:
            if not bundle.is_replaced():
                raise
    raise BundleError(f"{path} is replaced again and again", do="wait until it is complete")


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle as `read_bundle` does, without checking its signature; `sign` needs that."""
    path = Path(path)
    if (why := unreadable(path)) and why != "a folder":
        why = "no such folder or file" if why == "no such file" else why
        raise UsageError(f"cannot read bundle {str(path)[:300]}", got=why, do="check the path")
    extracted = archive.Extracted(path) if path.is_file() else None
    folder = extracted.folder if extracted else path
    stamp = _stamp(folder)
    if not (folder / NAME).is_file():
        raise BundleError(
            f"{path} is not a bundle", got=f"no {NAME}", expected="a folder that `edgesmith export` wrote"
        )
    text = _small(folder / NAME, path, LARGEST_MANIFEST)
    signed = (folder / SIGNATURE).is_file()
    signature = _small(folder / SIGNATURE, path, LARGEST_SIGNATURE) if signed else b""
    return Bundle(folder, parse_manifest(text), hashlib.sha256(text).hexdigest(), path, signature, extracted, stamp)


def _stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes if a bundle's folder or its manifest is replaced, even by one with the same content."""
    with contextlib.suppress(OSError):
        facts = (folder.stat(), (folder / NAME).stat())
        return tuple(value for one in facts for value in (one.st_ino, one.st_ctime_ns))
    return ()


def _small(file: Path, path: Path, largest: int) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(largest + 1)
    except OSError as error:
        raise BundleError(f"{path}: {file.name} cannot be read", got=error.strerror or "") from error
    if len(text) > largest:
        raise BundleError(f"{path} has too large a {file.name}", expected=f"at most {largest} bytes")
    return text
