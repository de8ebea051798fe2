"""`<engine>.json`: the description of an engine, stored next to it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.display import Displayed, Table
from ..errors import ModelError
from .kernels import Attestation

FORMAT = 1


@dataclass(frozen=True, repr=False)
class Sidecar(Displayed):
    """Description of one engine: its source, its requirements, and its kernels.

    Times in seconds, sizes in bytes. `sm` is the compute capability of the build, `typing` "strong" (precision is in
    the ONNX file) or "weak" (precision by flags). `profiles` maps an input to its (min, opt, max) shapes.
    """

    engine: str
    sha256: str
    bytes: int
    source: str
    source_sha256: str
    flavour: str
    version: str
    sm: str
    precision: str
    typing: str
    flags: tuple[str, ...]
    build_s: float
    attestation: Attestation
    kernels: tuple[dict[str, Any], ...] = ()
    inputs: tuple[dict[str, Any], ...] = ()
    outputs: tuple[dict[str, Any], ...] = ()
    profiles: dict[str, Any] = field(default_factory=dict)
    weights_bytes: int = 0
    activation_bytes: int = 0
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    format: int = FORMAT

    def headline(self) -> str:
        """Return the requested and actual precisions of its convolutions."""
        return f"{self.engine}: SM {self.sm}, {self.attestation.sentence(self.precision)}"

    def table(self) -> Table:
        """Return the kernels that the builder listed."""
        heads = tuple(dict.fromkeys(key for kernel in self.kernels for key in kernel))
        return heads, [[kernel.get(head) for head in heads] for kernel in self.kernels]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "attestation": self.attestation.to_dict()}

    def write(self, path: Path) -> None:
        """Write the sidecar to `path`, a temporary path of the caller."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")


def path_of(engine: str | Path) -> Path:
    """Return the path of an engine's sidecar."""
    return Path(f"{engine}.json")


def read_sidecar(engine: str | Path, content: bytes | None = None) -> Sidecar:
    """Read the sidecar of an engine file.

    Args:
        engine: Path of the engine.
        content: The sidecar's bytes, if the caller has checked them; the file is not read then.

    Raises:
        ModelError: There is none, or its format is unknown to this version.
    """
    path = path_of(engine)
    try:
        values = json.loads(path.read_bytes() if content is None else content)
        if values.get("format") != FORMAT:
            raise TypeError(f"format {values.get('format')!r}")
        facts = {key: values["attestation"][key] for key in Attestation.__dataclass_fields__}
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        return Sidecar(**{**plain, "attestation": Attestation(**facts)})
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"cannot read the sidecar {path}", got=str(error), expected=f"format {FORMAT}", do="build the engine again"
        ) from error
