"""Checkpoints: damaged .safetensors and .pth, headers that lie, pickles with code in them, old and nested pickles."""

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import torch

from edgesmith.models import catalog, checkpoints, weights
from edgesmith.runtime.common import isolation
from fuzz.bundles import spoil_json
from fuzz.damage import damaged
from fuzz.harness import Case

LIMITS = isolation.Limits(120, 2 << 30)
CONTAINS = False
NAME = "lenet5"


class Code:
    """A pickle that makes a file when it is loaded: the harness finds the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def material(folder):
    """Return the same weights in four containers."""
    torch.set_num_threads(1)
    state = catalog.build_network(NAME, 10).state_dict()
    checkpoints.write_checkpoint(
        folder / "a.safetensors", state, {checkpoints.SPEC_KEY: catalog.network_spec(NAME).to_json()}
    )
    torch.save(state, folder / "a.pth")
    torch.save({"state_dict": state, "epoch": 3}, folder / "b.pth")
    torch.save(state, folder / "c.pth", _use_new_zipfile_serialization=False)
    return state, [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]


def case(rng, material, folder):
    state, files = material
    suffix, data = files[rng.integers(len(files))]
    path = folder / f"a{suffix}"
    kind = int(rng.integers(8))
    if kind == 0:
        label, data = lying_header(rng)
        path = folder / "a.safetensors"
    elif kind == 1:
        label, data = pickled(rng, folder)
        path = folder / "a.pth"
    elif kind == 2:
        label, data = other_content(rng, state)
        path = folder / "a.pth"
    elif kind == 3:
        label, data = rezipped(rng, dict(files)[".pth"] if rng.integers(2) else files[0][1], folder)
        path = folder / "a.pth"
    else:
        label, data = damaged(rng, data)
    path.write_bytes(data)
    if rng.integers(8) == 0:  # what it is does not fit its name
        path = path.rename(folder / f"a{rng.choice(['.pth', '.safetensors', '.bin'])}")
    uses = (lambda: checkpoints.read_checkpoint(path), lambda: checkpoints.checkpoint_spec(path), lambda: loaded(path))
    return Case(label, uses[rng.integers(len(uses))])


def loaded(path):
    module = catalog.build_network(NAME, 10)
    weights.load_into(module, catalog.network_spec(NAME), str(path))


def lying_header(rng):
    """A safetensors header with odd values, offsets or sizes."""
    header = {"__metadata__": {"edgesmith.spec": "{}"}}
    header |= {f"t{at}": {"dtype": "F32", "shape": [2, 2], "data_offsets": [16 * at, 16 * at + 16]} for at in range(3)}
    for _ in range(int(rng.integers(1, 4))):
        label = spoil_json(rng, header)
    text = json.dumps(header).encode()
    if rng.integers(8) == 0:
        label, text = "deep", b'{"a":' * 100_000
    length = int(rng.choice([len(text), 0, 2**20, 2**63], p=[0.7, 0.1, 0.1, 0.1]))
    return f"header {label}", struct.pack("<Q", length) + text + bytes(48)


def pickled(rng, folder):
    """A pickle with code, or with what is not a tensor; plain, or in the place of a zipped checkpoint's own."""
    thing = [Code(folder / "code ran"), {"a": Code(folder / "code ran")}, [1, 2], {"a": np.zeros(3)}, {1: "x"}, None,
             {"state_dict": {"a": Code(folder / "code ran")}}][rng.integers(7)]  # fmt: skip
    data = pickle.dumps(thing, protocol=int(rng.integers(0, 6)))
    if rng.integers(2):
        return f"pickle {type(thing).__name__}", data
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in (("data.pkl", data), ("version", b"3\n"), ("byteorder", b"little"), ("data/0", bytes(64))):
            archive.writestr(f"archive/{name}", content)
    return f"zipped pickle {type(thing).__name__}", out.getvalue()


def other_content(rng, state):
    """Tensors that do not fit: other shapes, types, names, NaN, shared or sparse storage, no dictionary."""
    keys = list(state)
    key = keys[rng.integers(len(keys))]
    ways = {
        "shape": lambda: {**state, key: torch.zeros(1)},
        "empty shape": lambda: {**state, key: torch.zeros(0, 3)},
        "dtype": lambda: {**state, key: state[key].to(torch.complex64)},
        "integers": lambda: {**state, key: state[key].to(torch.int8)},
        "nan": lambda: {**state, key: state[key] * float("nan")},
        "more": lambda: {**state, "x" * 10_000: torch.zeros(1)},
        "less": lambda: {name: state[name] for name in keys if name != key},
        "numbered": lambda: dict(enumerate(state.values())),
        "sparse": lambda: {**state, key: state[key].to_sparse()},
        "expanded": lambda: {**state, key: torch.zeros(1).expand(10**6)},
        "list": lambda: list(state.values()),
        "tensor": lambda: state[key],
        "meta": lambda: {**state, key: torch.empty(state[key].shape, device="meta")},
        "nested": lambda: {"model": {"state_dict": state}},
        "quantised": lambda: {
            **state,
            key: torch.quantize_per_tensor(torch.ones(state[key].shape), 0.1, 0, torch.qint8),
        },
    }
    name = list(ways)[rng.integers(len(ways))]
    out = io.BytesIO()
    torch.save(ways[name](), out)
    return name, out.getvalue()


def rezipped(rng, data, folder):
    """A zipped checkpoint whose members are damaged, missing, or bombs."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [(name, old.read(name)) for name in old.namelist()]
    except zipfile.BadZipFile:
        return damaged(rng, data)
    at = int(rng.integers(len(members)))
    name, content = members[at]
    label, content = damaged(rng, content)
    if rng.integers(4) == 0:
        label, content = "bomb", bytes(int(rng.choice([300_000_000, 30_000_000], p=[0.1, 0.9])))
    members[at] = (name, content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if label == "bomb" else zipfile.ZIP_STORED) as new:
        for name, content in members:
            new.writestr(name, content)
    return f"member {label}", out.getvalue()
