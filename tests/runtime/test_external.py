"""External data: found wherever a tensor may stand, read only where they were meant to be read."""

import importlib
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgesmith.runtime import bundle
from edgesmith.runtime.common import external_data
from edgesmith.runtime.common.files import sha256
from edgesmith.runtime.errors import BundleError, ModelError
from edgesmith.runtime.selection.candidates import open_artefact
from support.bundles import SPEC, golden_inputs

BACKENDS = ("ort", "openvino")


def outside(name: str, place: str, dims=(3,)) -> TensorProto:
    tensor = TensorProto(name=name, dims=dims, data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return tensor


def tensor_fields(descriptor) -> dict[str, dict[int, str]]:
    """Return what onnx itself says of the fields that lead from a message to a TensorProto."""
    reachable = {"TensorProto": {13: "StringStringEntryProto"}}
    kinds, waiting = {}, [descriptor]
    while waiting:
        kind = waiting.pop()
        if kind.name not in kinds:
            kinds[kind.name] = {f.number: f.message_type.name for f in kind.fields if f.message_type}
            waiting += [f.message_type for f in kind.fields if f.message_type]
    while True:
        more = {
            name: {number: to for number, to in fields.items() if to in reachable}
            for name, fields in kinds.items()
            if name != "TensorProto" and any(to in reachable for to in fields.values())
        } | {"TensorProto": reachable["TensorProto"]}
        if more == reachable:
            return reachable
        reachable = more


def test_every_field_that_leads_to_a_tensor_is_walked():
    assert tensor_fields(onnx.ModelProto.DESCRIPTOR) == external_data.FIELDS


def said_by_onnx(message) -> set[str]:
    """Return the locations of all tensors of a message, found by protobuf's own reflection."""
    found = set()
    if isinstance(message, TensorProto):
        places = [entry.value for entry in message.external_data if entry.key == "location"]
        return {os.fsdecode(place) for place in places}  # what is not UTF-8 comes as bytes
    for field, value in message.ListFields():
        if field.message_type:
            for part in value if field.is_repeated else [value]:
                found |= said_by_onnx(part)
    return found


def random_graph(rng, depth: int, count: list[int]) -> onnx.GraphProto:
    graph = onnx.GraphProto(name="location" * int(rng.integers(2)))

    def tensor() -> TensorProto:
        count[0] += 1
        if rng.integers(2):
            return numpy_helper.from_array(rng.standard_normal(int(rng.integers(1, 4))).astype("f4"), "location")
        made = outside(f"t{count[0]}", f"w{count[0]}-é.bin")
        for key in rng.permutation(["offset", "length", "checksum"])[: rng.integers(4)]:
            made.external_data.insert(int(rng.integers(2)), onnx.StringStringEntryProto(key=key, value="location"))
        return made

    for _ in range(rng.integers(1, 4)):
        node = graph.node.add(op_type="Odd", name="n", doc_string="location")
        for kind in rng.choice(["t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs", "i", "ints", "f"], 3):
            attribute = node.attribute.add(name=kind, i=-1, f=0.5, ints=[1, -(2**62)])
            if kind in ("g", "graphs"):
                if depth:
                    body = random_graph(rng, depth - 1, count)
                    attribute.g.CopyFrom(body) if kind == "g" else attribute.graphs.append(body)
            elif kind == "t":
                attribute.t.CopyFrom(tensor())
            elif kind == "tensors":
                attribute.tensors.append(tensor())
            elif kind == "sparse_tensor":
                attribute.sparse_tensor.values.CopyFrom(tensor())
            elif kind == "sparse_tensors":
                attribute.sparse_tensors.add().indices.CopyFrom(tensor())
    graph.initializer.extend(tensor() for _ in range(rng.integers(3)))
    for _ in range(rng.integers(2)):
        graph.sparse_initializer.add().values.CopyFrom(tensor())
    return graph


@pytest.mark.parametrize("seed", range(60))
def test_the_walk_finds_what_protobuf_finds(seed):
    rng = np.random.default_rng(seed)
    count = [0]
    model = helper.make_model(random_graph(rng, 3, count), producer_name="location")
    function = model.functions.add(name="f")
    body = random_graph(rng, 1, count)
    function.node.extend(body.node)
    for node in body.node[:1]:
        function.attribute_proto.extend(node.attribute)
    model.training_info.add().algorithm.CopyFrom(random_graph(rng, 1, count))
    data = model.SerializeToString()
    assert set(external_data.locations(data)) == said_by_onnx(model)
    # Protobuf merges a message that stands there twice: the walk sees both.
    twice = onnx.ModelProto()
    twice.ParseFromString(data + data)
    assert set(external_data.locations(data + data)) == said_by_onnx(twice)
    for _ in range(40):  # damaged: what protobuf still reads, the walk reads alike or refuses
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] = rng.integers(256)
        again = onnx.ModelProto()
        try:
            again.ParseFromString(bytes(damaged))
            places = external_data.locations(bytes(damaged))
        except Exception:
            continue
        assert said_by_onnx(again) <= set(places)


HOSTILE = {
    "of equal keys the last": onnx.StringStringEntryProto(key="other").SerializeToString()
    + onnx.StringStringEntryProto(key="location", value="first").SerializeToString()
    + onnx.StringStringEntryProto(value="last").SerializeToString(),
    "the value first": onnx.StringStringEntryProto(value="last").SerializeToString()
    + onnx.StringStringEntryProto(key="location").SerializeToString(),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_an_entry_is_read_as_protobuf_reads_it(case):
    entry = HOSTILE[case]
    tensor = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(tensor)]) + tensor
    data = b"\x3a" + bytes([len(graph)]) + graph
    assert said_by_onnx(onnx.ModelProto.FromString(data)) == set(external_data.locations(data)) == {"last"}


CUT = {
    "cut off": b"\x3a\x7flocation", "a group": b"\x3blocation", "field 0": b"\x02\x08location",
    "an endless number": b"\x08" + b"\xff" * 12 + b"location",
}  # fmt: skip


@pytest.mark.parametrize("case", CUT)
def test_what_is_no_message_is_refused(case, tmp_path):
    with pytest.raises(ValueError, match=r"byte|cut off"):
        external_data.locations(CUT[case])
    (tmp_path / "x.onnx").write_bytes(CUT[case])
    with pytest.raises(ModelError, match="not an ONNX file"):
        external_data.model_file(tmp_path / "x.onnx")


def net(path: Path, place: str, where: str = "initializer") -> Path:
    """Write the colour network with its gain, float (3,), in another file."""
    tensor = outside("gain", place)
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Mul", ["flat", "gain"], ["output"]),
    ]
    if where == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["gain"], value=tensor))
    floats = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in
              (("input", ["N", 3, 16, 16]), ("output", ["N", 3])))  # fmt: skip
    graph = helper.make_graph(nodes, "g", [next(floats)], [next(floats)], [tensor] * (where == "initializer"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return path


def weights(path: Path, value: float = 4.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.full(3, value, "f4").tobytes())
    return path


def resealed(folder: Path, path: Path) -> bundle.Bundle:
    """Put another ONNX file into a bundle and give the manifest its digest: what a stranger can do."""
    made = bundle.read(folder)
    member = made.folder / made.artefacts[0].path
    digest = made.manifest.files[made.artefacts[0].path].sha256
    size = member.stat().st_size
    member.write_bytes(path.read_bytes())
    text = (folder / "manifest.json").read_text()
    text = text.replace(digest, sha256(member))
    text = text.replace(f'"bytes": {size}', f'"bytes": {member.stat().st_size}')
    (folder / "manifest.json").write_text(text)
    return bundle.read(folder)


@pytest.fixture
def stood(tmp_path, monkeypatch):
    """Stand in a folder with a file that must not be read, as `/` has /etc/passwd."""
    here = tmp_path / "here"
    weights(here / "etc" / "secret.bin", 777.0)
    monkeypatch.chdir(here)
    return here


def listed(folder: Path, tmp_path: Path) -> bundle.Bundle:
    path = net(tmp_path / "in" / "net.onnx", "net.bin")
    beside = weights(tmp_path / "in" / "net.bin")
    golden = {"output": golden_inputs()["input"].mean((2, 3)) * 4}
    item = bundle.Item(path, golden=golden, companions=[beside])
    return bundle.write(folder, SPEC, [item], golden_inputs=golden_inputs())


@pytest.mark.parametrize("backend", BACKENDS)
def test_listed_companions_are_read_from_the_bundle(backend, stood, tmp_path):
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    weights(stood / "net.bin", 777.0)  # beside the reader, not beside the file
    made = listed(tmp_path / "b", tmp_path)
    with open_artefact(made, made.artefacts[0], backend) as session:
        (got,) = session.run(golden_inputs()).values()
    np.testing.assert_allclose(got, made.arrays("golden/net.npz")["output"], rtol=1e-4)
    assert bundle.verify(made).verdict == "passed"
    weights(tmp_path / "b" / "onnx" / "net.bin", 5.0)
    again = bundle.read(made.folder)
    with pytest.raises(BundleError, match="was changed"):
        open_artefact(again, again.artefacts[0], backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_exchanged_after_their_check_are_not_read(backend, tmp_path, monkeypatch):
    """A second writer swaps the weights and the network at the moment in which the backend opens them."""
    pytest.importorskip({"ort": "onnxruntime"}.get(backend, backend))
    made, module = listed(tmp_path / "b", tmp_path), importlib.import_module(f"edgesmith.runtime.backends.{backend}")
    opening, places = module.open, []

    def exchanged(path, **settings):
        weights(tmp_path / "b" / "onnx" / "net.bin", 777.0)
        (tmp_path / "b" / "onnx" / "net.onnx").write_bytes(b"")
        places.append(Path(path))
        return opening(path, **settings)

    monkeypatch.setattr(module, "open", exchanged)
    with open_artefact(made, made.artefacts[0], backend) as session:
        (got,) = session.run(golden_inputs()).values()
    np.testing.assert_allclose(got, golden_inputs()["input"].mean((2, 3)) * 4, rtol=1e-4)
    assert not places[0].is_relative_to(tmp_path)
    assert not places[0].exists()  # the private copy is gone


PLACES = {
    "unlisted": "etc/secret.bin", "absolute": "{here}/etc/secret.bin", "climbing": "../../here/etc/secret.bin",
    "nothing": "", "memory": "*/_ORT_MEM_ADDR_/*", "the file itself": "net.onnx",
    "another member": "../golden/inputs.npz",
    "a companion by a climbing path": "../onnx/net.bin",
}  # fmt: skip


@pytest.mark.parametrize("where", ["initializer", "constant"])
@pytest.mark.parametrize("case", PLACES)
def test_what_the_manifest_does_not_list_is_not_read(case, where, stood, tmp_path):
    place = PLACES[case].format(here=stood)
    folder = listed(tmp_path / "b", tmp_path).folder
    weights(folder / "onnx" / "etc" / "secret.bin", 777.0)
    made = resealed(folder, net(tmp_path / "hostile.onnx", place, where))
    for backend in BACKENDS:
        with pytest.raises(BundleError, match="does not list"):
            open_artefact(made, made.artefacts[0], backend)
    report = bundle.verify(made)
    assert report.verdict == "failed"
    assert "does not list" in report.problems[made.artefacts[0].path]


def test_a_bundle_is_not_written_without_its_weights(tmp_path):
    path = net(tmp_path / "net.onnx", "net.bin")
    weights(tmp_path / "net.bin")
    with pytest.raises(BundleError, match="does not list"):
        bundle.write(tmp_path / "b", SPEC, [bundle.Item(path)], golden_inputs=golden_inputs())
    assert not (tmp_path / "b").exists()


FOREIGN = {
    "beside": ("w.bin", True), "below": ("sub/w.bin", True), "a dot": ("./w.bin", True),
    "climbing": ("../secret.bin", False), "climbing and back": ("../m/w.bin", False),
    "absolute": ("{up}/secret.bin", False),
    "absolute and inside": ("{up}/m/w.bin", False), "a link out": ("link.bin", False),
    "a folder link out": ("out/secret.bin", False),
    "a link inside": ("alias.bin", True), "nothing": ("", False), "backslashes": ("..\\secret.bin", False),
}  # fmt: skip


@pytest.fixture
def foreign(tmp_path):
    folder = tmp_path / "m"
    for name in ("w.bin", "sub/w.bin"):
        weights(folder / name)
    weights(tmp_path / "secret.bin", 777.0)
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "out").symlink_to(tmp_path)
    (folder / "alias.bin").symlink_to("w.bin")
    return folder


@pytest.mark.parametrize("case", FOREIGN)
def test_a_users_own_file_keeps_its_weights_inside_its_folder(case, foreign):
    place, right = FOREIGN[case]
    path = net(foreign / "net.onnx", place.format(up=foreign.parent))
    if right:
        assert external_data.model_file(path) == path
        return
    with pytest.raises(ModelError, match="outside its folder"):
        external_data.model_file(path)


def commands():
    from edgesmith.bench.measure.workload import BenchTarget, open_workload
    from edgesmith.optimize import optimizer
    from edgesmith.optimize.fp16 import convert
    from edgesmith.optimize.graph import complexity
    from edgesmith.optimize.graph import proto_graph as quantised
    from edgesmith.runtime.backends import openvino, ort
    from edgesmith.runtime.engines import build

    return {
        "optimize": lambda path: optimizer.optimize(path, path.with_name("out.onnx")),
        "quantize": quantised.read_model,
        "fp16": lambda path: convert.to_fp16(path, path.with_name("out.onnx"), []),
        "describe": complexity.describe,
        "bench": lambda path: open_workload(BenchTarget(str(path))),
        "build": lambda path: build.build_engine(path, path.with_name("out.engine")),
        **{one.__name__: one.open for one in (ort, openvino)},
    }


@pytest.mark.parametrize("command", commands())
@pytest.mark.parametrize("where", ["initializer", "constant"])
def test_every_command_refuses_a_file_that_reaches_out(command, where, foreign):
    path = net(foreign / "net.onnx", "../secret.bin", where)
    before = sorted(foreign.iterdir())
    with pytest.raises(ModelError, match="outside its folder"):
        commands()[command](path)
    assert sorted(foreign.iterdir()) == before


@pytest.mark.parametrize("backend", BACKENDS)
def test_content_alone_names_no_files(backend, stood):
    content = net(stood / "net.onnx", "etc/secret.bin").read_bytes()
    with pytest.raises(ModelError, match="from memory"):
        commands()[f"edgesmith.runtime.backends.{backend}"](stood / "net.onnx", content=content)
