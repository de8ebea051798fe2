"""Atomic writing of a bundle as a folder or as one .zip."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.files import atomic_file, atomic_folder, existing_file, sha256
from ..common.names import RULE, is_name
from ..errors import BundleError, UsageError
from ..outputs import claim
from . import archive, signing
from .bundle import Bundle, open_bundle
from .companions import companion_problems
from .manifest import GOLDEN_INPUTS, NAME, SIGNATURE, Artefact, File, Manifest, parse_manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..spec import ModelSpec


_COMPRESSED = (".json", ".txt", ".md")
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
        target: The target: "generic", "trt", "ort-x86"; for an engine "sm86".
        golden: Its outputs for the bundle's golden inputs, by name; None if it could not be run.
        tolerance: Largest relative error of a replay; None means the default of its precision.
        companions: Further files to store next to it (an engine's `<engine>.json` is added automatically).
        requires: Conditions on the machine that runs it: {"sm": "8.6", "tensorrt": "1.7.1", "flavour": "rtx"}.
        facts: Free-form: build time, kernel counts, source of the golden outputs.
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


def write_bundle(
    folder: str | Path, spec: ModelSpec, items: Sequence[Item], *, golden_inputs: Mapping[str, NDArray[Any]],
    provenance: Mapping[str, Any] | None = None, results: Mapping[str, Any] | None = None, licence: str = "",
    made_by: str = "edgesmith", overwrite: bool = False, documents: Mapping[str, str] | None = None,
) -> Bundle:  # fmt: skip
    """Write a bundle; an earlier one at the same path is replaced only after the new one is complete.

    Args:
        folder: Target folder; its name does not matter.
        spec: The network.
        items: Its runnable forms, at least one.
        golden_inputs: By input name, for example {"input": float32 (8, 3, 64, 64)}.
        provenance: Free-form: origin of the weights, versions, commands.
        results: Free-form: parity, accuracy, latency.
        licence: SPDX identifier of the weights' licence, if known.
        made_by: Name and version of the writer.
        overwrite: Also replace a folder that is not a bundle.
        documents: Text of further files by their name, for people and other tools: {"sbom.cdx.json": "{…}"}.

    Raises:
        UsageError: A document's name is not a file name or is taken.
        UsageError: A file does not exist, two items have one name, there are no items, or the path may not be replaced.
        BundleError: An ONNX file keeps weights in files that are not its companions.
        DataError: Golden inputs or outputs hold NaN or Inf.
        EdgesmithError: The disk is full or the folder cannot be written.
    """
    claim(folder, "bundle", overwrite=overwrite)
    _check_items(items)
    _check_documents(documents or {})
    with atomic_folder(folder) as temporary:
        archive.write_arrays(temporary / GOLDEN_INPUTS, dict(golden_inputs))
        artefacts = tuple(_put(temporary, item) for item in items)
        for name, text in (documents or {}).items():
            (temporary / name).write_text(text, encoding="utf-8")
        files = {
            path.relative_to(temporary).as_posix(): File(sha256(path), path.stat().st_size)
            for path in sorted(temporary.rglob("*"))
            if path.is_file()
        }
        manifest = Manifest(spec, artefacts, files, made_by, licence, dict(provenance or {}), dict(results or {}))
        text = manifest.to_json()
        parse_manifest(text)
        (temporary / NAME).write_text(text, encoding="utf-8")
        for name, problem in companion_problems(Bundle(temporary, manifest, "", Path(folder))).items():
            raise BundleError(f"{name} {problem}")
    return open_bundle(folder)


def _check_items(items: Sequence[Item]) -> None:
    names = [Path(item.path).stem for item in items]
    if not names or len(set(names)) != len(names):
        raise UsageError("the files of a bundle must have distinct names", got=", ".join(names) or "no files")
    for item in items:
        for path in (existing_file(item.path, "artefact"), *item.companions):
            if not is_name(path.name):
                raise UsageError(f"{path} cannot go into a bundle", got=f"the name {path.name!r}", expected=RULE,
                                 do="rename the file")  # fmt: skip


def _check_documents(documents: Mapping[str, str]) -> None:
    for name in documents:
        if not is_name(name) or name in (NAME, SIGNATURE, *FOLDERS.values(), Path(GOLDEN_INPUTS).parent.name):
            raise UsageError("a document cannot go into a bundle", got=f"the name {name!r}", expected=RULE)


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


def pack_bundle(bundle: Bundle, target: str | Path, *, overwrite: bool = False) -> Path:
    """Write an opened bundle as one .zip, after checking every file's digest.

    Raises:
        BundleError: A file is missing or was changed.
        UsageError: The path is a file that is not a zipped bundle, and `overwrite` is not set.
    """
    claim(target, "zip", overwrite=overwrite)
    _write_zip(bundle, Path(target))
    return Path(target)


def sign_bundle(bundle: Bundle, key: str | Path, version: int = 1, expires: str = "") -> str:
    """Sign an opened bundle in place, after checking every file's digest; an earlier signature is replaced.

    Args:
        bundle: The bundle.
        key: The private key.
        version: A counter of the network's releases; a device that ran one refuses lower ones.
        expires: Last day of the signature (UTC), "2027-12-31"; empty for no end.

    Returns:
        The key's name.

    Raises:
        BundleError: A file is missing or was changed.
        UsageError: The key does not exist, or is not an Ed25519 key; or the version or day is not valid.
        NotAvailable: cryptography is not installed.
    """
    for name in bundle.manifest.files:
        if problem := bundle.problem(name):
            raise BundleError(f"{bundle.source}: {name} {problem}", do="copy or make the bundle again")
    name, text = signing.signature_text(bundle.digest, key, bundle.spec.name, version, expires)
    with atomic_file(bundle.folder / SIGNATURE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    if bundle.source.is_file():
        _write_zip(bundle, bundle.source)
    return name


def _write_zip(bundle: Bundle, target: Path) -> None:
    """Write a bundle as a .zip in the manifest's order, without timestamps; weights are not compressed.

    Raises:
        BundleError: A file is missing or was changed; nothing is written.
    """
    manifest = (bundle.folder / NAME).read_bytes()
    if hashlib.sha256(manifest).hexdigest() != bundle.digest:
        raise BundleError(f"{bundle.source}: {NAME} was changed", do="open the bundle again")
    signature = bundle.folder / SIGNATURE
    with atomic_file(target) as temporary, zipfile.ZipFile(temporary, "w") as target_zip:
        target_zip.writestr(_info(NAME), manifest)
        if signature.is_file():
            target_zip.writestr(_info(SIGNATURE), signature.read_bytes())
        for name in sorted(bundle.manifest.files):
            with target_zip.open(_info(name), "w", force_zip64=True) as member:
                bundle.copy(name, member)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(_COMPRESSED) else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    return info
