"""`manifest.json`: the contents of a bundle with the digest of every file; every field is checked when read.

Format history:
    1  first format
    2  the role "nchwc" (an ONNX file in ONNX Runtime's blocked layout); no longer written, and skipped when read
    3  the spec's `scores`
    4  the spec's `other_inputs` and `ranges`; its preprocessing's `fit`, `fill`, `enlarge`, and OpenCV's and torch's
       interpolation
    5  the spec's `decoder`
A manifest is written in the earliest format that can say all of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..common.names import RULE, is_name, is_path
from ..errors import BundleError, ModelError
from ..spec import ModelSpec

FORMAT = 5
NAME, SIGNATURE = "manifest.json", "signature.json"
ROLES = ("onnx", "engine", "nchwc", "null")
PRECISIONS = ("fp32", "fp16", "int8", "mixed")
GOLDEN_INPUTS = "golden/inputs.npz"
LARGEST_MANIFEST, LARGEST_SIGNATURE = 16 << 20, 1 << 16


@dataclass(frozen=True)
class File:
    """SHA-256 in hexadecimal, and size in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Artefact:
    """One runnable form of the network.

    `role` is the type: "onnx", "engine" (TensorRT), "null", or "nchwc" (see the format history). `target` is what
    it was built for: "generic", "trt", "ort-x86", or "sm86" for an engine. `path`, `golden` (recorded outputs) and
    `companions` (sidecar, external weights) are members of the bundle. `tolerance` is the largest max |a - b| / max |b|
    of a replay that passes. `requires` are conditions on the machine: {"sm": "8.6", "tensorrt": "1.7.1", "flavour":
    "rtx"}. `facts` is free-form.
    """

    name: str
    role: str
    precision: str
    target: str
    path: str
    tolerance: float
    golden: str | None = None
    companions: tuple[str, ...] = ()
    requires: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest; `provenance` and `results` are free-form records."""

    spec: ModelSpec
    artefacts: tuple[Artefact, ...]
    files: dict[str, File]
    made_by: str = ""
    licence: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def format(self) -> int:
        """The earliest format that can represent this manifest."""
        if self.spec.decoder:
            return 5
        if self.spec.other_inputs or self.spec.ranges or not self.spec.preprocess.is_early:
            return 4
        return 3 if self.spec.scores else 1

    def to_json(self) -> str:
        """Return the manifest as JSON; equal content gives equal text."""
        values = {**asdict(self), "spec": self.spec.to_dict(), "format": self.format}
        return json.dumps(values, indent=1, sort_keys=True, default=_plain) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return str(value)


def parse_manifest(text: str | bytes) -> Manifest:
    """Read a manifest.

    Raises:
        BundleError: It is not JSON, of a later format, or a field is missing, unknown, of the wrong type, or names a
            path outside the bundle.
    """
    try:
        values = json.loads(text, parse_constant=_no_constant)
        if not isinstance(values, dict):
            raise TypeError(f"a JSON {type(values).__name__}")
        _check_format(values.get("format"))
        manifest = _manifest(values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ModelError) as error:
        detail = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise BundleError(
            f"the bundle's {NAME} cannot be read", got=detail[:300], expected=f"a manifest of format {FORMAT}"
        ) from error
    if manifest.format > values["format"]:
        got = f"format {values['format']} with fields that only format {manifest.format} has"
        raise BundleError(f"the bundle's {NAME} is inconsistent", got=got, do="export it again")
    _check_references(manifest)
    return manifest


def _check_format(number: Any) -> None:
    if isinstance(number, int) and not isinstance(number, bool) and number > FORMAT:
        expected = f"format {FORMAT} or earlier"
        raise BundleError(
            "this bundle is of a later version", got=f"format {number}", expected=expected, do="upgrade edgesmith"
        )
    if number not in range(1, FORMAT + 1) or not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"format {number!r}")


def _manifest(values: dict[str, Any]) -> Manifest:
    files = {safe_path(name): File(_digest(entry), _count(entry)) for name, entry in _dict(values, "files").items()}
    return Manifest(
        spec=ModelSpec.from_dict(_dict(values, "spec")),
        artefacts=tuple(_artefact(entry) for entry in _typed(values, "artefacts", list)),
        files=files,
        made_by=_typed(values, "made_by", str),
        licence=_typed(values, "licence", str),
        provenance=_dict(values, "provenance"),
        results=_dict(values, "results"),
    )


def _artefact(values: Any) -> Artefact:
    if not isinstance(values, dict) or set(values) != set(Artefact.__dataclass_fields__):
        raise TypeError(f"an artefact with fields {sorted(values) if isinstance(values, dict) else values!r}")
    if not is_name(values["name"]):
        raise ValueError(f"the artefact's name {str(values['name'])[:200]!r}, not {RULE}")
    if values["role"] not in ROLES:
        raise ValueError(f"role {values['role']!r}, none of {ROLES}")
    tolerance = values["tolerance"]
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not 0 <= tolerance < 1:
        raise ValueError(f"tolerance {tolerance!r}, not between 0 and 1")
    golden = values["golden"]
    requires = _dict(values, "requires")
    if not all(isinstance(value, str) for value in requires.values()):
        raise TypeError(f"requires {requires!r}")
    return Artefact(
        **{key: _typed(values, key, str) for key in ("name", "role", "precision", "target")},
        path=safe_path(values["path"]),
        tolerance=float(tolerance),
        golden=None if golden is None else safe_path(golden),
        companions=tuple(safe_path(name) for name in _typed(values, "companions", list)),
        requires=requires,
        facts=_dict(values, "facts"),
    )


def _check_references(manifest: Manifest) -> None:
    for artefact in manifest.artefacts:
        for path in (
            artefact.path,
            *artefact.companions,
            *([artefact.golden, GOLDEN_INPUTS] if artefact.golden else []),
        ):
            if path not in manifest.files:
                raise BundleError(
                    f"the bundle's {NAME} is inconsistent", got=f"no digest of {path}", do="export it again"
                )
    names = [artefact.name for artefact in manifest.artefacts]
    if len(set(names)) != len(names):
        raise BundleError(f"the bundle's {NAME} is inconsistent", got=f"artefacts {names}", expected="distinct names")


def safe_path(name: Any) -> str:
    """Return a member's path if it stays inside the bundle on every system.

    Raises:
        BundleError: It is absolute, climbs with "..", or a part of it is not a name (`names.is_name`).
    """
    if not is_path(name):
        raise BundleError(
            "a path in the bundle is not safe", got=repr(name)[:200], expected=f"a relative path inside it: {RULE}"
        )
    return str(name)


def _digest(entry: Any) -> str:
    value = entry["sha256"]
    if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
        raise ValueError(f"digest {value!r}")
    return value


def _count(entry: Any) -> int:
    value = entry["bytes"]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"size {value!r}")
    return value


def _typed(values: Mapping[str, Any], key: str, kind: type) -> Any:
    if not isinstance(values[key], kind):
        raise TypeError(f"{key} is {type(values[key]).__name__}, not {kind.__name__}")
    return values[key]


def _dict(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    mapping: dict[str, Any] = _typed(values, key, dict)
    return mapping


def _no_constant(name: str) -> Any:
    raise ValueError(f"the number {name}")
