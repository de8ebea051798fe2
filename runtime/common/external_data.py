"""External data: weights of an ONNX file that are stored in other files, located without the onnx package.

An ONNX file names them itself, so an untrusted file may name /etc/passwd. In a bundle they must be companions that the
manifest lists; elsewhere they must be inside the file's folder. This is checked before anything is loaded.
"""

from __future__ import annotations

import mmap
from pathlib import Path, PurePosixPath

from ..errors import ModelError
from .files import existing_file

# Message of onnx.proto -> {number of a field: its message}, for every field that leads to a TensorProto.
FIELDS: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto", 22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}  # fmt: skip
_KEY = b"location"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def locations(data: bytes | mmap.mmap) -> list[str]:
    """Return the external data locations in an ONNX file, each once, in arbitrary order.

    The time is proportional to the number of fields; a file without the word "location" is not parsed.

    Raises:
        ValueError: It is not a serialised protobuf message.
    """
    if data.find(_KEY) < 0:
        return []
    with memoryview(data) as view:
        places: dict[str, None] = {}
        parts = [("ModelProto", 0, len(view))]
        while parts:
            message, start, end = parts.pop()
            inner = FIELDS[message]
            for number, first, last in _fields(view, start, end):
                if number not in inner:
                    continue
                if message != "TensorProto":
                    parts.append((inner[number], first, last))
                elif (place := _location(view, first, last)) is not None:
                    places[place] = None
        return list(places)


def _location(view: memoryview, start: int, end: int) -> str | None:
    """Return the value of an entry with key "location"; as in protobuf, the last of equal fields counts."""
    texts = {number: bytes(view[first:last]) for number, first, last in _fields(view, start, end)}
    return texts.get(2, b"").decode(errors="surrogateescape") if texts.get(1) == _KEY else None


def _fields(view: memoryview, start: int, end: int) -> list[tuple[int, int, int]]:
    """Return (number, start, end) of each field of a message that has a length."""
    fields, at = [], start
    while at < end:
        tag, at = _varint(view, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, at = _varint(view, at, end)
            size = 0
        elif kind == _BYTES:
            size, at = _varint(view, at, end)
            fields.append((number, at, at + size))
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of type {kind} at byte {at}")
        at += size
        if not number or at > end:
            raise ValueError(f"a field that extends beyond its message at byte {at - size}")
    return fields


def _varint(view: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError("the file is cut off")
        byte = view[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
    raise ValueError(f"a number of more than ten bytes at byte {at}")


def read_locations(data: bytes | mmap.mmap, path: str | Path) -> list[str]:
    """Return `locations` of a file's bytes.

    Raises:
        ModelError: The bytes are not an ONNX file.
    """
    try:
        return locations(data)
    except ValueError as error:
        raise ModelError(f"{path} is not an ONNX file", got=str(error), do="export it again") from error


def model_file(path: str | Path, kind: str = "model") -> Path:
    """Return the path of an ONNX file after checking that it exists and all its external data are inside its folder.

    Raises:
        UsageError: It does not exist, or is not a regular file.
        ModelError: It names a file outside its folder by an absolute path, by "..", or through a link.
    """
    source = existing_file(path, kind)
    if not source.stat().st_size:
        return source
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        places = read_locations(data, source)
    for place in places:
        if not _stays_inside(place, source.parent):
            raise ModelError(
                f"{source} refers to weights outside its folder", got=repr(place)[:200],
                expected="a relative path inside the folder", do="do not use this file; or save it again with onnx",
            )  # fmt: skip
    return source


def _stays_inside(place: str, folder: Path) -> bool:
    try:
        target = (folder / place).resolve()
    except (OSError, ValueError, RuntimeError):  # a name with a zero byte, or links in a circle
        return False
    plain = not PurePosixPath(place).is_absolute() and ".." not in place.replace("\\", "/").split("/")
    return plain and folder.resolve() in target.parents


def checked_source(path: str | Path, content: bytes | None) -> str | bytes:
    """Return what a backend may load: the content if it needs no other file, or the path if there is no content.

    Raises:
        UsageError: There is no such file.
        ModelError: The content names external data, which would be read from the working directory; or the file refers
            to weights outside its folder.
    """
    if content is None:
        return str(model_file(path))
    if places := read_locations(content, path):
        raise ModelError(
            f"{path} cannot be loaded from memory", got=f"weights in {places[0]!r}"[:200],
            expected="weights in the file itself", do="load it by its path",
        )  # fmt: skip
    return content
