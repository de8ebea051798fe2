"""Engines and their sidecars: damaged, cut, of another version, SM or flavour, random bytes, sidecars that lie."""

import importlib.util
import json
import struct

import numpy as np

from edgesmith.runtime import bundle, load
from edgesmith.runtime.backends import trt
from edgesmith.runtime.common import isolation
from edgesmith.runtime.engines import header, sidecar
from edgesmith.runtime.engines.build import build_engine
from edgesmith.runtime.engines.kernels import Attestation
from fuzz.bundles import spoil_json
from fuzz.damage import damaged
from fuzz.harness import Case
from support.bundles import SPEC, colour_net, golden_inputs
from support.engine_graphs import saved, small_net

LIMITS = isolation.Limits(120, 1500 << 20)
CONTAINS = False
MADE = ("net.onnx", "b", "b/*")


def material(folder):
    """Return an engine and its sidecar: a real one where TensorRT-RTX is installed, else one made by hand."""
    if importlib.util.find_spec("tensorrt_rtx_bindings"):
        build_engine(saved(small_net("fp16"), folder / "n.onnx"), folder / "n.engine", sm="8.6", precision="fp16")
        return (folder / "n.engine").read_bytes(), (folder / "n.engine.json").read_text()
    raw = bytearray(4096)
    struct.pack_into("<IIQQ", raw, 0, 0x74727476, 0, 0, len(raw))
    raw[24:28] = bytes((1, 7, 1, 116))
    struct.pack_into("<I", raw, 32, 4)
    made = sidecar.Sidecar("n.engine", "0" * 64, len(raw), "n.onnx", "0" * 64, "rtx", "1.7.1.116", "8.6", "fp16",
                           "strong", (), 0.1, Attestation(0, {}, 0))  # fmt: skip
    return bytes(raw), json.dumps(made.to_dict())


def case(rng, material, folder):
    raw, text = material
    path, beside = folder / "n.engine", folder / "n.engine.json"
    label, raw = spoiled(rng, raw)
    path.write_bytes(raw)
    if rng.integers(2):
        label += ", " + write_sidecar(rng, beside, text)
    uses = (lambda: header.read_header(path), lambda: checked(rng, path), lambda: sidecar.read_sidecar(path),
            lambda: trt.open(path), lambda: bundled(folder, path))  # fmt: skip
    return Case(label, uses[rng.integers(len(uses))], MADE, partly=True)


def spoiled(rng, raw):
    what = int(rng.integers(6))
    raw = bytearray(raw)
    if what == 0:
        raw[24:28] = rng.bytes(4)
        return "another version", bytes(raw)
    if what == 1:
        struct.pack_into("<I", raw, 32, int(rng.integers(0, 2**32)))
        return "another SM", bytes(raw)
    if what == 2:
        struct.pack_into("<Q", raw, 16, int(rng.integers(0, 2**63)))
        return "another size", bytes(raw)
    if what == 3:
        raw[0:4] = [b"ftrt", b"vtrt", b"\x7fELF", b"PK\x03\x04"][rng.integers(4)]
        return "another tag", bytes(raw)
    label, made = damaged(rng, bytes(raw))
    return label, made


def write_sidecar(rng, path, text):
    values = json.loads(text)
    if rng.integers(2):
        label = spoil_json(rng, values)
        path.write_text(json.dumps(values))
        return f"sidecar {label}"
    label, raw = damaged(rng, text.encode())
    path.write_bytes(raw)
    return f"sidecar {label}"


def checked(rng, path):
    header.check_header(path, sm="8.6", version="1.7.1.116", flavour=("rtx", "standard")[rng.integers(2)])


def bundled(folder, path):
    """Put it into a bundle beside an ONNX file; the bundle must verify and run all the same."""
    items = [bundle.Item(colour_net(folder / "net.onnx")), bundle.Item(path, "engine", "fp16", "sm86")]
    made = bundle.write(folder / "b", SPEC, items, golden_inputs=golden_inputs())
    bundle.verify(made, threads=1)
    with load(made, device="cpu", threads=1) as model:
        model(np.zeros((20, 20, 3), np.uint8))
