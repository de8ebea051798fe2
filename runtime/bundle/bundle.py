"""A bundle: one folder (or .zip) with all that a device needs to run a network and to prove that it runs it right.

manifest.json            what is here, with digests (manifest.py)
signature.json           who made it, where it is signed (signing.py)
onnx/, engines/          the network per precision and target; an engine with its sidecar JSON beside it
golden/inputs.npz        inputs, shared by all
golden/<artefact>.npz    the outputs each artefact gave where it was made
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common import external_data
from ..common.files import atomic_folder, existing_file, sha256, unreadable
from ..common.names import RULE, is_name
from ..errors import BundleError, UsageError
from ..outputs import claim
from . import archive, signing
from .manifest import (
    GOLDEN_INPUTS,
    LARGEST_MANIFEST,
    LARGEST_SIGNATURE,
    NAME,
    SIGNATURE,
    Artefact,
    File,
    Manifest,
    parse,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec
    from ..verify import VerifyReport

FOLDERS = {"onnx": "onnx", "engine": "engines", "null": "onnx"}
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.25, "mixed": 0.25}
TENSORRT_TOLERANCES = {"fp32": 1e-2, "fp16": 5e-2, "int8": 0.25, "mixed": 0.25}


@dataclass(frozen=True, eq=False)
class Item:
    """A file to put into a bundle.

    Args:
        path: The ONNX file or engine; its name is kept.
        role: "onnx" or "engine".
        precision: "fp32", "fp16", "int8" or "mixed".
        target: What it was made for: "generic", "trt", "ort-x86"; for an engine "sm86".
        golden: Its outputs for the bundle's golden inputs, by name; None where it could not be run.
        tolerance: Largest relative error of a replay; None takes the default of its precision.
        companions: More files to lay beside it under their own names (an engine's `<engine>.json` is found by itself).
        requires: What must hold where it runs: {"sm": "8.6", "tensorrt": "1.7.1", "flavour": "rtx"}.
        facts: Anything worth knowing: build time, kernel counts, what the golden outputs came from.
    """

    path: Path
    role: str = "onnx"
    precision: str = "fp32"
    target: str = "generic"
    golden: Mapping[str, NDArray[Any]] | None = None
    tolerance: float | None = None
    companions: Sequence[Path] = ()
    requires: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been opened: its manifest is valid; a file's digest is checked when the file is asked for."""

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
        """The runnable forms."""
        return self.manifest.artefacts

    def file(self, name: str) -> Path:
        """Return the path of a member whose size and digest are as the manifest says.

        Raises:
            BundleError: It is missing, leads out of the bundle, or was changed.
        """
        if problem := self.problem(name):
            raise BundleError(f"{self.source}: {name} {problem}", do="copy or make the bundle again")
        return self.folder / name

    def content(self, name: str) -> bytes:
        """Return a member's bytes, read once: those that were compared with the manifest are those that are returned.

        Raises:
            BundleError: It is missing, leads out of the bundle, or was changed.
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
        """Return what is wrong with a member, or an empty string; looked at once."""
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
        return "" if self.folder.resolve() in path.resolve().parents else "leads out of the bundle"

    def _differs(self, name: str, size: int, digest: str) -> str:
        entry = self.manifest.files[name]
        if digest == entry.sha256:
            return ""
        if size != entry.bytes:
            return f"was changed: {min(size, entry.bytes + 1)} bytes or more, not {entry.bytes}"
        return f"was changed: SHA-256 {digest[:12]}…, not {entry.sha256[:12]}…"

    def arrays(self, name: str, empty: bool = False) -> dict[str, NDArray[Any]]:
        """Read a member that holds arrays (.npz); see `archive.read_arrays`."""
        return archive.read_arrays(self.file(name), empty)

    def golden_inputs(self) -> dict[str, NDArray[Any]]:
        """Return the inputs whose outputs were recorded, by name."""
        return self.arrays(GOLDEN_INPUTS)


def write(
    folder: str | Path, spec: ModelSpec, items: Sequence[Item], *, golden_inputs: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any] | None = None, results: Mapping[str, Any] | None = None, licence: str = "",
    made_by: str = "edgesmith", overwrite: bool = False,
) -> Bundle:  # fmt: skip
    """Write a bundle; an earlier one at the same place is replaced only when the new one is whole.

    Args:
        folder: Where; its name does not matter.
        spec: The network.
        items: Its runnable forms, at least one.
        golden_inputs: By input name, for example {"input": float32 (8, 3, 64, 64)}.
        provenance: Free-form: where the weights came from, versions, commands.
        results: Free-form: parity, accuracy, latency.
        licence: SPDX identifier of the weights' licence, where known.
        made_by: Name and version of the writer.
        overwrite: A folder that is no bundle may be replaced too.

    Raises:
        UsageError: A file is not there, two items have one name, or there is none; or the place holds what is not ours.
        BundleError: An ONNX file keeps weights in files that are not its companions.
        DataError: Golden inputs or outputs hold NaN or Inf.
        EdgesmithError: The disk is full or the folder cannot be written.
    """
    claim(folder, "bundle", overwrite=overwrite)
    _check_items(items)
    with atomic_folder(folder) as temporary:
        archive.write_arrays(temporary / GOLDEN_INPUTS, dict(golden_inputs))
        artefacts = tuple(_put(temporary, item) for item in items)
        files = {
            path.relative_to(temporary).as_posix(): File(sha256(path), path.stat().st_size)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(spec, artefacts, files, made_by, licence, dict(provenance or {}), dict(results or {}))
        text = manifest.to_json()
        parse(text)
        (temporary / NAME).write_text(text, encoding="utf-8")
        for name, problem in external_data.problems(Bundle(temporary, manifest, "", Path(folder))).items():
            raise BundleError(f"{name} {problem}")
    return opened(folder)


def _check_items(items: Sequence[Item]) -> None:
    names = [Path(item.path).stem for item in items]
    if not names or len(set(names)) != len(names):
        raise UsageError("the files of a bundle need distinct names", got=", ".join(names) or "no files")
    for item in items:
        for path in (existing_file(item.path, "artefact"), *item.companions):
            if not is_name(path.name):
                raise UsageError(f"{path} cannot go into a bundle", got=f"the name {path.name!r}", expected=RULE,
                                 do="rename the file")  # fmt: skip


def _put(folder: Path, item: Item) -> Artefact:
    """Copy one item and its companions, write its golden outputs, and describe it."""
    source, place = Path(item.path), FOLDERS[item.role]
    sidecar = source.with_name(source.name + ".json")
    companions = [*item.companions, *([sidecar] if sidecar.is_file() else [])]
    (folder / place).mkdir(exist_ok=True)
    for path in (source, *companions):
        shutil.copyfile(existing_file(path, "artefact"), folder / place / path.name)
    golden = f"golden/{source.stem}.npz" if item.golden is not None else None
    if golden:
        archive.write_arrays(folder / golden, dict(item.golden or {}))
    defaults = TENSORRT_TOLERANCES if item.role == "engine" else TOLERANCES
    return Artefact(
        name=source.stem,
        role=item.role,
        precision=item.precision,
        target=item.target,
        path=f"{place}/{source.name}",
        tolerance=defaults[item.precision] if item.tolerance is None else item.tolerance,
        golden=golden,
        companions=tuple(f"{place}/{path.name}" for path in companions),
        requires={key: str(value) for key, value in item.requires.items()},
        facts=dict(item.facts),
    )


def read(path: str | Path, *, trusted_key: signing.Keys | None = None) -> Bundle:
    """Open a bundle: a folder, or a .zip, which is extracted to a temporary folder that lives as long as the Bundle.

    Args:
        path: Where it is.
        trusted_key: Public keys, one of which must have signed it; None takes those of $EDGESMITH_TRUSTED_KEYS, and
            where that is not set a bundle need not be signed.

    Raises:
        UsageError: Nothing is there, or a key cannot be read.
        BundleError: It is no bundle, damaged, of a later version, its manifest is wrong, or it is not signed as asked.
        NotAvailable: A signature is asked for and cryptography is not installed.
    """
    found = opened(path)
    signing.check(found, trusted_key)
    return found


def opened(path: str | Path) -> Bundle:
    """Open a bundle as `read` does, whoever signed it: for who signs it."""
    path = Path(path)
    if (why := unreadable(path)) and why != "a folder":
        why = "no such folder or file" if why == "no such file" else why
        raise UsageError(f"cannot read bundle {str(path)[:300]}", got=why, do="check the path")
    extracted = archive.Extracted(path) if path.is_file() else None
    folder = extracted.folder if extracted else path
    if not (folder / NAME).is_file():
        raise BundleError(f"{path} is no bundle", got=f"no {NAME}", expected="a folder that `edgesmith export` wrote")
    text = _small(folder / NAME, path, LARGEST_MANIFEST)
    signed = (folder / SIGNATURE).is_file()
    signature = _small(folder / SIGNATURE, path, LARGEST_SIGNATURE) if signed else b""
    return Bundle(folder, parse(text), hashlib.sha256(text).hexdigest(), path, signature, extracted)


def _small(file: Path, path: Path, largest: int) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(largest + 1)
    except OSError as error:
        raise BundleError(f"{path}: {file.name} cannot be read", got=error.strerror or "") from error
    if len(text) > largest:
        raise BundleError(f"{path} has too large a {file.name}", expected=f"at most {largest} bytes")
    return text


def pack(bundle: Bundle, target: str | Path, *, overwrite: bool = False) -> Path:
    """Write an opened bundle as one .zip, after checking every file's digest.

    Raises:
        BundleError: A file is missing or was changed.
        UsageError: The place holds a file that is no zipped bundle, and `overwrite` is not set.
    """
    claim(target, "zip", overwrite=overwrite)
    for name in bundle.manifest.files:
        bundle.file(name)
    archive.pack(bundle.folder, bundle.manifest, Path(target))
    return Path(target)


def verify(bundle: str | Path | Bundle, *, threads: int | None = None) -> VerifyReport:
    """Recompute every digest and replay the golden inputs on this device; see `verify.verify`."""
    from ..verify import verify as run

    return run(bundle if isinstance(bundle, Bundle) else read(bundle), threads=threads)
