"""A blocked artefact in a bundle: its contract, what happens where it does not hold, and the manifest's format."""

import json
import shutil

import numpy as np
import onnx
import pytest

from edgesmith.optimize import blocked
from edgesmith.runtime import bundle, load, manifest, nchwc
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import BuildError, BundleError, NotAvailable
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.verify import replay
from support.blocked_nets import SCALE, SIDE, net
from support.bundles import colour_bundle

pytest.importorskip("onnxruntime")
B = nchwc.block()
needs_blocks = pytest.mark.skipif(not B, reason="ONNX Runtime has no blocked layout on this machine")
SPEC = ModelSpec(
    "squeezed", input_shape=(3, SIDE, SIDE), num_classes=16, preprocess=Preprocess(crop=(SIDE, SIDE), resize=SIDE),
    input_name="x", output_names=("y",),
)  # fmt: skip
GOLDEN = {"x": np.random.default_rng(0).standard_normal((4, 3, SIDE, SIDE)).astype(np.float32)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of a portable file and its blocked form."""
    folder = tmp_path_factory.mktemp("blocked")
    portable = folder / "squeezed-fp32.onnx"
    onnx.save(net(SCALE, 2 * B), portable)
    kept = blocked.keep(portable)
    items = []
    for path, role, target, requires in (
        (portable, "onnx", "generic", {}),
        (kept.path, nchwc.ROLE, nchwc.TARGET, kept.contract),
    ):
        with ort.open(path, threads=1) as session:
            outputs = replay(session, GOLDEN)
        items.append(bundle.Item(path, role, "fp32", target, outputs, requires=requires))
    return bundle.write(folder / "bundle", SPEC, items, golden_inputs=GOLDEN)


def changed(made, folder, change):
    """Copy the bundle with another manifest: `change` edits its values."""
    shutil.copytree(made.folder, folder)
    values = json.loads((folder / manifest.NAME).read_text())
    change(values)
    (folder / manifest.NAME).write_text(json.dumps(values))
    return folder


def other_contract(key, value):
    """Return a change of one point of the blocked artefact's contract; None removes it."""

    def change(values):
        requires = values["artefacts"][1]["requires"]
        requires.pop(key)
        requires.update({} if value is None else {key: value})

    return change


@needs_blocks
def test_it_is_measured_beside_the_portable_file(made, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path))
    with load(made, threads=1) as model:
        told = model.why()
        assert "ms squeezed-fp32 with ort" in told
        assert f"ms squeezed-fp32.nchwc{B} with ort" in told
        np.testing.assert_allclose(
            model.run(GOLDEN["x"])["y"], made.arrays("golden/squeezed-fp32.npz")["y"], 1e-4, 1e-4
        )


@needs_blocks
def test_without_measuring_the_portable_file_comes_first(made):
    with load(made, device="cpu", threads=1) as model:
        assert model.chosen.artefact.role == "onnx"


@needs_blocks
def test_both_replay_their_golden_outputs(made):
    report = bundle.verify(made)
    assert report.passed
    assert {entry.artefact for entry in report.replays if entry.status == "passed"} == {
        "squeezed-fp32", f"squeezed-fp32.nchwc{B}",
    }  # fmt: skip


BROKEN = {
    "another ONNX Runtime": ("onnxruntime", "1.0.0"),
    "another block": ("block", "8" if B == 16 else "16"),
    "other instructions": ("isa", "sve"),
    "another architecture": ("machine", "aarch64"),
    "no version": ("onnxruntime", None),
    "no block": ("block", None),
    "no instructions": ("isa", None),
    "no architecture": ("machine", None),
}


@needs_blocks
@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("device", ["auto", "cpu", "ort"])
def test_a_contract_that_does_not_hold_falls_back(case, device, made, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    key, value = BROKEN[case]
    opened = bundle.read(changed(made, tmp_path / "bundle", other_contract(key, value)))
    with load(opened, device=device, threads=1) as model:
        assert model.chosen.artefact.role == "onnx"
        line = next(
            line for line in model.why().splitlines() if line.startswith(f"passed over: squeezed-fp32.nchwc{B}")
        )
        assert f"got {key} {nchwc.contract()[key]}" in line
        assert f"expected {key} {value or 'in its contract'}" in line
    skipped = [entry for entry in bundle.verify(opened).replays if entry.status == "skipped"]
    assert [entry.artefact for entry in skipped] == [f"squeezed-fp32.nchwc{B}"]
    assert f"{key} " in skipped[0].reason


@needs_blocks
def test_alone_and_for_another_machine_it_does_not_run(made, tmp_path):
    def alone(values):
        del values["artefacts"][0]
        values["artefacts"][0]["requires"]["block"] = "32"

    with pytest.raises(NotAvailable, match="expected block 32"):
        load(changed(made, tmp_path / "bundle", alone))


@needs_blocks
def test_the_manifest_says_that_it_needs_a_reader_that_knows(made, tmp_path):
    values = json.loads(made.manifest.to_json())
    assert values["format"] == 2
    assert manifest.parse(json.dumps(values)) == made.manifest
    with pytest.raises(BundleError, match="format 1 with what only format 2 has"):
        manifest.parse(json.dumps(values | {"format": 1}))


def test_a_bundle_without_one_stays_in_format_1(tmp_path):
    written = colour_bundle(tmp_path / "colours")
    values = json.loads(written.manifest.to_json())
    assert values["format"] == 1
    assert manifest.parse(json.dumps(values | {"format": 2})) == written.manifest


def test_what_is_not_known_here_does_not_hold():
    whole = dict.fromkeys(nchwc.CONTRACT, "1")
    nchwc.check("a", whole, whole)
    with pytest.raises(BuildError, match="got isa not known; expected isa 1"):
        nchwc.check("a", whole, {key: "1" for key in nchwc.CONTRACT if key != "isa"})


def probe():
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], name="r", domain=nchwc.DOMAIN)
    ends = [[onnx.helper.make_tensor_value_info(name, 1, [1, nchwc.CHANNELS, 1, 2])] for name in "xy"]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid(nchwc.DOMAIN, 1)]
    return onnx.helper.make_model(onnx.helper.make_graph([node], "p", *ends), ir_version=8, opset_imports=opsets)


def test_the_probe_is_the_file_it_says():
    assert onnx.load_from_string(nchwc.PROBE) == probe()


@pytest.mark.parametrize("change", ["no such operator", "no reordering"])
def test_where_there_are_no_blocks_nothing_is_made(change, monkeypatch, tmp_path):
    model = probe()
    if change == "no such operator":
        model.graph.node[0].op_type = "ReorderSomething"
    else:
        model.graph.node[0].op_type, model.graph.node[0].domain = "Identity", ""
    monkeypatch.setattr(nchwc, "PROBE", model.SerializeToString())
    nchwc.block.cache_clear()
    try:
        assert nchwc.block() == 0
        with pytest.raises(NotAvailable, match="no blocked layout on this machine"):
            blocked.keep(onnx_file(tmp_path))
    finally:
        nchwc.block.cache_clear()


def onnx_file(folder):
    onnx.save(net(SCALE, 32), folder / "net.onnx")
    return folder / "net.onnx"


def test_blocks_lie_as_described():
    image = np.arange(2 * 8 * 2 * 2).reshape(2, 8, 2, 2)
    assert nchwc.blocked(image, 4).reshape(2, 2, 2, 2, 4)[1, 1, 0, 1].tolist() == image[1, 4:, 0, 1].tolist()


@needs_blocks
def test_the_contract_names_what_runs_here():
    ours = nchwc.contract()
    assert set(ours) == set(nchwc.CONTRACT)
    assert ours["block"] == str(B)
