"""The first 64 bytes of an engine file, checked before it is deserialised.

An engine is executable code for one GPU architecture and one TensorRT version. TensorRT-RTX, little-endian:

    0  u32 tag "vtrt"      16 u64 size of the file     24 u8 x 4 version     32 u32 bit mask of SMs     56 u64 weights

Standard TensorRT has the tag "ftrt" at 0 and the version at 24; its SM is not in the header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import BuildError, ModelError

TAGS = {struct.pack("<I", 0x74727476): "rtx", struct.pack("<I", 0x74727466): "standard"}
SM_BITS = {1: "7.5", 2: "8.0", 4: "8.6", 8: "8.9", 16: "12.0", 32: "12.1"}
BYTES = 64


@dataclass(frozen=True)
class Header:
    """The header of an engine; if a field is missing, `sms` is empty and `weights_bytes` is 0."""

    flavour: str
    version: str
    sms: tuple[str, ...]
    size: int
    weights_bytes: int


def read_header(path: str | Path, content: bytes | None = None) -> Header:
    """Read the header of an engine file, or of its bytes if given.

    Raises:
        ModelError: The file is not an engine, or is shorter than the size in its header.
    """
    path = Path(path)
    raw, size = _start(path) if content is None else (content[:BYTES], len(content))
    flavour = TAGS.get(raw[:4], "")
    if len(raw) < BYTES or flavour not in ("rtx", "standard"):
        got = f"{size} bytes that start with {raw[:4]!r}"
        raise ModelError(
            f"{path} is not a TensorRT engine", got=got, expected="the tag vtrt or ftrt", do="build it again"
        )
    header = _parse(raw, flavour)
    if flavour == "rtx" and header.size != size:
        raise ModelError(
            f"the engine {path} is damaged", got=f"{size} bytes", expected=f"{header.size} bytes", do="copy it again"
        )
    return header


def _start(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(BYTES), path.stat().st_size
    except OSError as error:
        raise ModelError(f"cannot read engine {path}", got=error.strerror or "", do="check the path") from error


def _parse(raw: bytes, flavour: str) -> Header:
    version = ".".join(str(part) for part in raw[24:28])
    if flavour == "standard":
        return Header(flavour, version, (), 0, 0)
    (size,), (mask,), (weights,) = (
        struct.unpack_from(form, raw, at) for form, at in (("<Q", 16), ("<I", 32), ("<Q", 56))
    )
    return Header(flavour, version, tuple(sm for bit, sm in SM_BITS.items() if mask & bit), size, weights)


def check_header(
    path: str | Path,
    *,
    sm: str | None,
    version: str | None,
    flavour: str | None = None,
    content: bytes | None = None,
) -> Header:
    """Compare an engine's header with the machine that will run it; None skips a comparison.

    Raises:
        ModelError: No engine, or damaged.
        BuildError: Built for another flavour, version or SM; the message names both.
    """
    header = read_header(path, content)
    rebuild = "build it on or for this machine with `edgesmith build`"
    if flavour and header.flavour != flavour:
        raise BuildError(
            f"{path} is an engine of a different TensorRT flavour", got=header.flavour, expected=flavour, do=rebuild
        )
    if version and header.version.split(".")[:3] != version.split(".")[:3]:
        raise BuildError(
            f"{path} was built by another TensorRT version", got=header.version, expected=version, do=rebuild
        )
    if sm and header.sms and sm not in header.sms:
        raise BuildError(f"{path} was built for another GPU", got=f"SM {', '.join(header.sms)}", expected=f"SM {sm}",
                         do=f"`edgesmith build --sm {sm}`")  # fmt: skip
    return header
