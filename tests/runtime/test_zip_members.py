"""No reader of a zip file reads a member that makes gigabytes of a few bytes; a user's arrays must fit into memory."""

import ast
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgesmith.runtime import bundle, datasets
from edgesmith.runtime.bundle import archive
from edgesmith.runtime.datasets import array_files
from edgesmith.runtime.errors import BundleError, DataError, UsageError
from edgesmith.runtime.outputs import claim
from support.bundles import colour_bundle

ROOT = Path(__file__).resolve().parents[2]


def repacked(source, target, method):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return target


def encrypted(path):
    """Set the flag of encryption of the first member, in both of its headers."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive_:
        places = (archive_.infolist()[0].header_offset + 6, archive_.start_dir + 8)
    for place in places:
        raw[place] |= 1
    path.write_bytes(raw)
    return path


@pytest.fixture
def sources(tmp_path):
    """A zipped bundle, arrays, and the state of a training run, by the reader."""
    bundle.pack(colour_bundle(tmp_path / "b"), tmp_path / "b.zip")
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3), np.float32))
    with zipfile.ZipFile(tmp_path / "s.pt", "w") as state:
        state.writestr("w/data.pkl", b"recipe global_generator progress")
    return {
        "bundle": (tmp_path / "b.zip", bundle.read, BundleError),
        "golden arrays": (tmp_path / "a.npz", archive.read_arrays, BundleError),
        "a user's arrays": (tmp_path / "a.npz", array_files.read_arrays, DataError),
        "a data set": (tmp_path / "a.npz", lambda path: datasets.load(path, "test"), DataError),
        "a zip that is replaced": (tmp_path / "b.zip", lambda path: claim(path, "zip"), UsageError),
        "a state that is replaced": (tmp_path / "s.pt", lambda path: claim(path, "state"), UsageError),
    }


@pytest.mark.parametrize(
    "reader",
    ["bundle", "golden arrays", "a user's arrays", "a data set", "a zip that is replaced", "a state that is replaced"],
)
def test_only_stored_and_deflated_members_are_read(reader, sources, tmp_path, monkeypatch):
    path, read, error = sources[reader]
    read(path)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        read(repacked(path, tmp_path / f"{method}{path.suffix}", method))
    opened, real = [], zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda self, name, *rest, **more: (
        opened.append(name), real(self, name, *rest, **more))[1])  # fmt: skip
    hostile = [repacked(path, tmp_path / f"{method}{path.suffix}", method)
               for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)]  # fmt: skip
    for one in (*hostile, encrypted(path)):
        opened.clear()
        with pytest.raises(error):
            read(one)
        assert opened == []


def test_arrays_that_do_not_fit_into_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((4, 1 << 18), np.float32))
    assert (tmp_path / "a.npz").stat().st_size < 1 << 14
    monkeypatch.setattr(array_files, "memory_bytes", lambda: 1 << 22)
    with pytest.raises(DataError, match=r"got 4194\d+ bytes unpacked; expected at most 4194304, the memory here"):
        array_files.read_arrays(tmp_path / "a.npz")
    monkeypatch.setattr(array_files, "memory_bytes", lambda: 1 << 23)
    assert array_files.read_arrays(tmp_path / "a.npz")["x"].shape == (4, 1 << 18)


CHECKS = {"member_problem", "read_member", "_check_methods", "_check_members"}
OURS = {"runtime/datasets/digits.py", "optimize/calibration/statistics_cache.py"}  # in the package; in a private cache


def unchecked(source):
    """Return the functions that open a zip file for reading, or arrays, and check no members."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [node.name for node in functions if _opens(node) and not CHECKS & {_name(one) for one in _calls(node)}]


def _calls(node):
    return [one for one in ast.walk(node) if isinstance(one, ast.Call)]


def _name(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _opens(node):
    for call in _calls(node):
        writes = len(call.args) > 1 or any(word.arg == "mode" for word in call.keywords)
        if (_name(call) == "ZipFile" and not writes) or ast.unparse(call.func) == "np.load":
            return True
    return False


def test_every_reader_of_the_package_checks_the_members():
    rooms = ("bench", "cli", "export", "models", "optimize", "runtime")
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    readers = {path.relative_to(ROOT).as_posix(): unchecked(path.read_text()) for path in paths}
    assert {name for name, functions in readers.items() if functions} == OURS


def test_a_reader_that_checks_nothing_is_reported():
    assert unchecked("def read(path):\n    with zipfile.ZipFile(path) as one:\n        one.read('a')\n") == ["read"]
    assert unchecked("def read(path):\n    return np.load(path)\n") == ["read"]
    assert unchecked("def write(path):\n    zipfile.ZipFile(path, 'w')\n") == []
