"""The bill of materials: valid by the published schema, true of environment and sources, and under the digests."""

import hashlib
import json
from importlib import metadata

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.export import sbom
from edgesmith.export.settings import ExportSettings
from edgesmith.runtime import bundle
from edgesmith.runtime.bundle import signing, writer
from edgesmith.runtime.bundle.bundle import read_bundle
from edgesmith.runtime.common.packages import versions
from edgesmith.runtime.errors import UsageError
from support.bundles import SPEC, colour_net, golden_inputs

pytest.importorskip("cyclonedx", reason="pip install 'edgesmith[optimize]'")
SOURCES = {"net.onnx": "0" * 64, "net-raw.onnx": "1" * 64}


@pytest.fixture(scope="module")
def bill():
    return sbom.bill_of_materials(SPEC, SOURCES)


def schema_error(text):
    """Return what the published schema says against a bill, None for nothing."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    pytest.importorskip("jsonschema")
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_a_bill_is_valid_by_the_published_schema(bill):
    assert schema_error(bill) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values["components"][0].update(type="thing"),
        lambda values: values["components"][0].pop("name"),
        lambda values: values.update(serialNumber="1"),
        lambda values: values["components"].append(values["components"][0]),
        lambda values: values["components"][0].update(invented=1),
    ],
)
def test_a_spoilt_bill_is_not(bill, spoil):
    values = json.loads(bill)
    spoil(values)
    assert schema_error(json.dumps(values)) is not None


def test_it_lists_every_installed_package_with_its_version(bill):
    listed = {one["name"]: one.get("version") for one in json.loads(bill)["components"] if one["type"] != "file"}
    installed = versions()
    assert {name: listed.get(name) for name in installed if name != "edgesmith"} == {
        name: version for name, version in installed.items() if name != "edgesmith"
    }
    assert listed["numpy"] == metadata.version("numpy")


def test_it_has_the_build_of_torch_and_the_digests_of_the_sources(bill):
    torch = pytest.importorskip("torch")
    bill = sbom.bill_of_materials(SPEC, SOURCES)
    components = {one["name"]: one for one in json.loads(bill)["components"]}
    build = {one["name"]: one["value"] for one in components["torch"]["properties"]}
    assert build["edgesmith:torch.git_version"] == torch.version.git_version
    assert components["torch"]["purl"].startswith("pkg:pypi/torch@")
    for name, digest in {**SOURCES, "edgesmith": sbom.package_digest()}.items():
        assert components[name]["hashes"] == [{"alg": "SHA-256", "content": digest}]


def test_the_same_gives_the_same_text_and_another_source_another_number(bill):
    pytest.importorskip("torch")
    first, again = (sbom.bill_of_materials(SPEC, SOURCES) for _ in range(2))
    assert first == again
    other = sbom.bill_of_materials(SPEC, {**SOURCES, "net.onnx": "2" * 64})
    assert json.loads(other)["serialNumber"] != json.loads(first)["serialNumber"]


def test_the_digest_of_the_package_is_of_names_and_contents_of_its_python_files(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "room" / "__init__.py").write_text("")
    digests = [sbom.package_digest(tmp_path)]
    for name, text in (("room/a.py", "1"), ("room/a.py", "2"), ("room/b.py", "2"), ("c.py", "")):
        (tmp_path / name).write_text(text)
        digests.append(sbom.package_digest(tmp_path))
    assert len(set(digests)) == len(digests)
    for name in ("tests/test_a.py", "room/data.csv"):
        (tmp_path / name).write_text("3")
    assert sbom.package_digest(tmp_path) == digests[-1]


def test_the_sources_are_the_files_that_the_user_named(tmp_path):
    model = onnx.load(colour_net(tmp_path / "net.onnx"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.arange(4.0), "unused"))
    onnx.save(model, tmp_path / "outside.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "net.py").write_text("Net = object\n")
    for word, names in (
        ("net.onnx", ["net.onnx"]),
        ("outside.onnx", ["outside.onnx", "w.bin"]),
        ("net.py:Net", ["net.py"]),
    ):
        digests = sbom.source_digests(ExportSettings(str(tmp_path / word), data="random"))
        assert digests == {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in names}
    assert sbom.source_digests(ExportSettings("lenet5", weights="random")) == {}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A signed bundle that the command made of somebody's file, the file, and the public key."""
    folder = tmp_path_factory.mktemp("bill")
    net = colour_net(folder / "net.onnx")
    options = ["--data", "random", "--precision", "fp32", "--target", "ort-x86", "--out", str(folder / "b")]
    done = CliRunner().invoke(main, ["export", str(net), *options])
    assert done.exit_code == 0, done.output
    return folder / "b", net


def test_an_exported_bundle_carries_its_bill(exported):
    folder, net = exported
    text = (folder / sbom.NAME).read_text()
    assert schema_error(text) is None
    assert read_bundle(folder).manifest.files[sbom.NAME].sha256 == hashlib.sha256(text.encode()).hexdigest()
    hashes = {one["name"]: one["hashes"][0]["content"] for one in json.loads(text)["components"] if "hashes" in one}
    assert hashes["net.onnx"] == hashlib.sha256(net.read_bytes()).hexdigest()
    assert any(name.endswith("-raw.onnx") for name in hashes)


def test_a_changed_or_missing_bill_fails_the_check_of_a_signed_bundle(exported, tmp_path):
    pytest.importorskip("cryptography")
    folder, _ = exported
    signing.generate_key(tmp_path / "key")
    writer.sign_bundle(read_bundle(folder), tmp_path / "key")
    trusted = bundle.read(folder, trusted_key=tmp_path / "key.pub")
    assert bundle.verify(trusted, threads=1).passed
    bill = folder / sbom.NAME
    text = bill.read_text()
    try:
        bill.write_text(text.replace("numpy", "numpi"))
        assert sbom.NAME in bundle.verify(bundle.read(folder, trusted_key=tmp_path / "key.pub"), threads=1).problems
        bill.unlink()
        assert sbom.NAME in bundle.verify(bundle.read(folder, trusted_key=tmp_path / "key.pub"), threads=1).problems
    finally:
        bill.write_text(text)


@pytest.mark.parametrize("name", ["manifest.json", "signature.json", "../x", "a/b", "golden", "onnx", ""])
def test_a_document_has_a_name_of_its_own(name, tmp_path):
    items = [writer.Item(colour_net(tmp_path / "net.onnx"))]
    with pytest.raises(UsageError, match="document"):
        writer.write_bundle(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs(), documents={name: "x"})
    assert not (tmp_path / "b").exists()
