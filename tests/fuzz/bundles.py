"""Bundles, as folders and as .zip: damage with and without digests that fit, wrong manifests, bombs, climbing paths."""

import copy
import io
import json
import os
import shutil
import struct
import warnings
import zipfile

import numpy as np

from edgesmith.runtime import bundle, load
from edgesmith.runtime.common import isolation
from edgesmith.runtime.common.files import sha256
from fuzz.damage import damaged
from fuzz.harness import Case
from support.bundles import colour_bundle

LIMITS = isolation.Limits(120, 1500 << 20)
CONTAINS = True  # an ONNX file whose digest fits goes into ONNX Runtime
VALUES = (None, True, -1, 0, 1.5, 1e308, 2**70, "", "x", "../../x", "/etc/passwd", "a\0b", "é" * 400, [], {}, [[]],
          [None], {"a": 1}, "nan", "onnx/colours-fp32.onnx", 99, "engine", "null", "int8")  # fmt: skip
CLIMBING = (
    "../../climbed",
    "/tmp/climbed",
    "onnx/../../climbed",
    "C:\\climbed",
    "..\\climbed",
    "a" * 300,
    "onnx",
    "\0",
)


def material(folder):
    """Return a whole bundle: its folder and its .zip."""
    made = colour_bundle(folder / "colours")
    return made.folder, bundle.pack(made, folder / "colours.zip")


def case(rng, material, folder):
    whole, packed = material
    ways = (spoil_file, spoil_manifest, spoil_tree, spoil_zip, rewrite_zip, spoil_special, rename)
    way = ways[rng.integers(len(ways))]
    source, path = (packed, folder / "b.zip") if way in (spoil_zip, rewrite_zip) else (whole, folder / "b")
    if source is packed:
        shutil.copyfile(source, path)
    else:
        shutil.copytree(source, path)
    label = f"{way.__name__}: {way(rng, path)}"
    target = folder / "again.zip"
    uses = (
        lambda: bundle.verify(path, threads=1),
        lambda: used(path),
        lambda: bundle.pack(bundle.read(path), target),
    )
    at = rng.integers(len(uses))
    return Case(label, uses[at], ("again.zip",) if at == 2 else ())


def used(path):
    with load(path, device="cpu", threads=1) as model:
        model(np.zeros((20, 20, 3), np.uint8)).top(2)


def spoil_file(rng, path):
    """Damage one file; half the time its digest in the manifest is made to fit."""
    files = sorted(item for item in path.rglob("*") if item.is_file())
    file = files[rng.integers(len(files))]
    label, data = damaged(rng, file.read_bytes())
    if file.suffix == ".npz" and rng.integers(2):
        label, data = odd_arrays(rng)
    file.write_bytes(data)
    if file.name != "manifest.json" and rng.integers(2):
        refit(path, file)
        label += ", digest fits"
    return f"{file.suffix} {label}"


def refit(path, file):
    manifest = path / "manifest.json"
    values = json.loads(manifest.read_text())
    values["files"][file.relative_to(path).as_posix()] = {"sha256": sha256(file), "bytes": file.stat().st_size}
    manifest.write_text(json.dumps(values))


def odd_arrays(rng):
    """An .npz of arrays that are not what is wanted: other names, shapes, dtypes, or a header that lies."""
    out = io.BytesIO()
    choice = rng.integers(5)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        if choice == 0 and rng.integers(2):
            archive.writestr("output.npy", b"\x93NUMPY\x01\x00" + npy_header(rng))
        elif choice == 0:
            shape = [(10**6, 10**6), (-1, 3), (2**62,), (0,)][rng.integers(4)]
            header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
            archive.writestr("output.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64))
        elif choice == 1:
            archive.writestr("output.npy", bytes(40_000_000))
        else:
            dtype = np.dtype(str(rng.choice(["f4", "f8", "i1", "c8", "S4", "?"])))
            shape = [(4, 3), (3, 4), (4,), (), (0, 3), (2, 3, 16, 16), (4, 3, 16, 16)][rng.integers(7)]
            array = io.BytesIO()
            np.save(array, np.full(shape, np.nan if choice == 2 and dtype.kind == "f" else 1).astype(dtype))
            archive.writestr(f"{rng.choice(['output', 'input', 'x', '../y'])}.npy", array.getvalue())
    return f"arrays {choice}", out.getvalue()


def npy_header(rng):
    """A header that is not a header: NumPy reads it as Python."""
    texts = (
        "{'descr': '<f4', 'shape': (3,",
        "{[]: 1}",
        "(" * 5000,
        "{'descr': 'O', 'fortran_order': 1, 'shape': ()}",
        "",
        "\xff",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,)}",
        "1" * 5000,
    )
    text = texts[rng.integers(len(texts))].encode() + b"\n" * int(rng.integers(2))
    return struct.pack("<H", max(0, len(text) - int(rng.integers(2)))) + text + bytes(64)


def spoil_manifest(rng, path):
    """Put an odd value at a random place of the manifest, or take the place away."""
    file = path / "manifest.json"
    values = json.loads(file.read_text())
    for _ in range(int(rng.integers(1, 3))):
        label = spoil_json(rng, values)
    file.write_text(json.dumps(values))
    return label


def spoil_json(rng, values):
    places = list(walk(values))
    holder, key = places[rng.integers(len(places))]
    if isinstance(holder, dict) and rng.integers(4) == 0:
        del holder[key]
        return f"no {key}"
    holder[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return f"{key if isinstance(key, str) else 'item'} = {str(holder[key])[:20]}"


def walk(values):
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in list(items):
        yield values, key
        yield from walk(value)


def rename(rng, path):
    """Call a member something else wherever the manifest names it, and sometimes the file too."""
    file = path / "manifest.json"
    names = list(json.loads(file.read_text())["files"])
    name, other = names[rng.integers(len(names))], CLIMBING[rng.integers(len(CLIMBING))]
    file.write_text(file.read_text().replace(json.dumps(name), json.dumps(other)))
    if rng.integers(2) and "\\" in other:  # a name that this system takes
        (path / name).rename(path / other)
    return f"renamed {other[:20]}"


def spoil_tree(rng, path):
    """Take away, add, rename or link members."""
    files = sorted(item for item in path.rglob("*") if item.is_file())
    file = files[rng.integers(len(files))]
    what = str(rng.choice(["gone", "folder", "out", "loop", "pipe", "device", "extra", "swapped"]))
    if what == "extra":
        (path / "onnx" / "extra").write_bytes(b"x")
        return what
    other = files[rng.integers(len(files))].read_bytes()
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "out":
        file.symlink_to("/etc/passwd")
    elif what == "loop":
        file.symlink_to(file)
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "swapped":
        file.write_bytes(other)
    return what


def spoil_zip(rng, path):
    label, data = damaged(rng, path.read_bytes())
    path.write_bytes(data)
    return label


def rewrite_zip(rng, path):
    """Write the archive anew with members missing, twice, climbing, far too large, encrypted by name, or links."""
    with zipfile.ZipFile(path) as old:
        members = [(name, old.read(name)) for name in old.namelist()]
    what = str(rng.choice(["missing", "twice", "climbs", "bomb", "manifest bomb", "link", "flag", "nested", "comment"]))
    at = int(rng.integers(len(members)))
    name, data = members[at]
    if what == "missing":
        members.pop(at)
    elif what == "twice":
        members.append((name, data))
    elif what == "climbs":
        climb(rng, members, at)
    elif what in ("bomb", "manifest bomb"):
        at = 0 if what == "manifest bomb" else at
        members[at] = (members[at][0], bytes(200_000_000))
    elif what == "nested":
        members[at] = (name, path.read_bytes())
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        warnings.simplefilter("ignore")
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o120777 if what == "link" else 0o644) << 16
            new.writestr(info, data)
        new.comment = rng.bytes(200) if what == "comment" else b""
    if what == "flag":
        raw = bytearray(path.read_bytes())
        at = raw.find(b"PK\x01\x02")
        raw[at + 8] |= 1
        path.write_bytes(raw)
    return what


def climb(rng, members, at):
    """Name a member outside, in the archive and in the manifest too."""
    name, data = members[at]
    other = CLIMBING[rng.integers(len(CLIMBING))]
    members[at] = (other, data)
    if rng.integers(2) and name != "manifest.json":
        manifest = members[0][1].replace(json.dumps(name).encode(), json.dumps(other).encode())
        members[0] = (members[0][0], manifest)


def spoil_special(rng, path):
    """A signature of nonsense, a later format, a deep manifest."""
    what = str(rng.choice(["signature", "later", "deep", "huge number"]))
    file = path / "manifest.json"
    if what == "signature":
        (path / "signature.json").write_bytes(damaged(rng, b'{"format": 1, "algorithm": "ed25519"}')[1])
    elif what == "later":
        file.write_text(file.read_text().replace('"format": 1', f'"format": {rng.integers(2, 2**40)}'))
    elif what == "deep":
        file.write_text('{"format": 1, "files": ' + "[" * 200_000)
    else:
        file.write_text(file.read_text().replace('"bytes": ', '"bytes": ' + "9" * 5000, 1))
    return what
