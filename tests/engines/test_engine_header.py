"""The first 64 bytes of an engine, and the refusals they allow before anything is deserialised."""

import re
import struct

import pytest

from edgesmith.runtime.engines import header
from edgesmith.runtime.errors import BuildError, ModelError


def engine(tag=0x74727476, size=80, version=(1, 7, 1, 116), mask=4, weights=16, body=80):
    raw = bytearray(64)
    struct.pack_into("<I", raw, 0, tag)
    struct.pack_into("<Q", raw, 16, size)
    raw[24:28] = bytes(version)
    struct.pack_into("<I", raw, 32, mask)
    struct.pack_into("<Q", raw, 56, weights)
    return bytes(raw) + b"\0" * (body - 64)


def write(path, data):
    path.write_bytes(data)
    return path


def test_a_header_is_read(tmp_path):
    found = header.read_header(write(tmp_path / "e", engine(mask=4 | 8)))
    assert found == header.Header("rtx", "1.7.1.116", ("8.6", "8.9"), 80, 16)
    standard = header.read_header(write(tmp_path / "f", engine(tag=0x74727466, version=(10, 3, 0, 26), size=0)))
    assert (standard.flavour, standard.version, standard.sms) == ("standard", "10.3.0.26", ())


BROKEN = {
    "empty": b"", "short": engine()[:63], "a picture": b"\x89PNG" + b"\0" * 90, "cut off": engine(size=99),
    "with a tail": engine(size=70),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused(case, tmp_path):
    path = write(tmp_path / "e", BROKEN[case])
    with pytest.raises(ModelError, match=r"not a TensorRT engine|is damaged"):
        header.read_header(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot read engine"):
        header.read_header(tmp_path / "none")


REFUSED = {
    "another GPU": ({"sm": "8.9"}, "was built for another GPU; got SM 8.6; expected SM 8.9"),
    "another version": ({"version": "1.8.0.1"}, "another TensorRT version; got 1.7.1.116; expected 1.8.0.1"),
    "another flavour": ({"flavour": "standard"}, "a different TensorRT flavour; got rtx; expected standard"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_foreign_engine_is_refused(case, tmp_path):
    wanted, message = REFUSED[case]
    path = write(tmp_path / "e", engine())
    fits = {"sm": "8.6", "version": "1.7.1.200", "flavour": "rtx"}
    assert header.check_header(path, **fits).flavour == "rtx"
    with pytest.raises(BuildError, match=re.escape(message)):
        header.check_header(path, **{**fits, **wanted})
