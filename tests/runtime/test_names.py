"""What a name may be: a table of hostile names at every door, and random ones against another way to say the rule."""

import dataclasses
import json
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgesmith.models import catalog
from edgesmith.runtime import bundle
from edgesmith.runtime.bundle.manifest import parse_manifest, safe_path
from edgesmith.runtime.common import names
from edgesmith.runtime.errors import BundleError, ModelError, UsageError
from edgesmith.runtime.serving import triton
from edgesmith.runtime.spec import ModelSpec
from support.bundles import LABELS, SPEC, colour_bundle, colour_net, golden_inputs

GOOD = ["mobilenetv2", "a", "_x", "resnet18-f37072fd", "x1.5,y", "A.B_c-d", "n" * 128, "console", "com", "nul0x"]
BAD = [
    "", ".", "..", "../../x", "/home/me/x", "a/b", "a\\b", "C:x", ".hidden", "-rf", ",a", "a b", "a\nb", "a\0b",
    "a\x1b[31m", "naïve", "a\u202eb", "n" * 129, "con", "NUL", "nul.onnx", "Com1", "lpt9.x", "a.", "a:b", "a*", 'a"b',
    "a'b", "$(x)", "`x`", "%PATH%", "~", "a|b", "a;b", "::error", "##[x]", "=1+1", "a​b", None, 3, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_passes_every_door(name):
    assert names.is_name(name)
    assert ModelSpec(name).name == name
    assert safe_path(f"onnx/{name}") == f"onnx/{name}"


def _written(name):
    ModelSpec(name)


def _read(name):
    values = json.loads(SPEC.to_json())
    ModelSpec.from_json(json.dumps({**values, "name": name}))


def _changed(name):
    dataclasses.replace(SPEC, name=name)


@pytest.mark.parametrize("door", [_written, _read, _changed])
@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_bad_name_passes_no_door(name, door):
    with pytest.raises(ModelError, match="name of .* is not valid"):
        door(name)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return json.loads(colour_bundle(tmp_path_factory.mktemp("names") / "b").manifest.to_json())


@pytest.mark.parametrize("field", ["spec", "artefact", "path", "file", "companion"])
@pytest.mark.parametrize("name", BAD, ids=repr)
def test_a_bad_name_passes_no_manifest(name, field, manifest):
    values = json.loads(json.dumps(manifest))
    first = values["artefacts"][0]
    if field == "spec":
        values["spec"]["name"] = name
    elif field == "artefact":
        first["name"] = name
    elif name == "a/b" or not isinstance(name, str):
        return  # a path may have parts; what is not text cannot be a key
    elif field == "path":
        values["files"][name] = values["files"][first["path"]]
        first["path"] = name
    elif field == "file":
        values["files"][f"onnx/{name}"] = values["files"][first["path"]]
    else:
        first["companions"] = [f"onnx/{name}"]
    with pytest.raises(BundleError):
        parse_manifest(json.dumps(values))


def test_every_network_of_the_catalogue_has_a_name():
    assert [name for name in catalog.network_names() if not names.is_name(name)] == []


@given(st.text(alphabet=string.printable + "é\u202e\0", max_size=12))
def test_the_rule_said_in_another_way(name):
    letters = set(string.ascii_letters + string.digits)
    devices = {"con", "prn", "aux", "nul", *(f"{kind}{number}" for kind in ("com", "lpt") for number in range(10))}
    expected = (
        len(name) > 0
        and set(name) <= letters | set("._-,")
        and name[0] in letters | {"_"}
        and not name.endswith(".")
        and name.split(".")[0].lower() not in devices
    )
    assert names.is_name(name) is expected


@pytest.mark.parametrize("path", ["a/../b", "a//b", "/a", "a/", "a/./b", "/".join("abcdefghi")])
def test_a_path_is_made_of_names(path):
    with pytest.raises(BundleError, match="a path in the bundle is not safe"):
        safe_path(path)


def test_a_file_with_a_bad_name_does_not_go_into_a_bundle(tmp_path):
    item = bundle.Item(colour_net(tmp_path / "my net.onnx"))
    with pytest.raises(UsageError, match="cannot go into a bundle; got the name 'my net.onnx'"):
        bundle.write(tmp_path / "b", SPEC, [item], golden_inputs=golden_inputs())
    assert not (tmp_path / "b").exists()


TEXTS = ["a\nb", "a\x1b[31mb", "a\0b", "a\u2028b", "a\u202eb", "x" * 1025, "a\rb", "\ud800"]


@pytest.mark.parametrize("field", ["labels", "output_names", "input_name"])
@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_a_label_or_tensor_that_cannot_be_printed_is_refused(text, field):
    value = text if field == "input_name" else (text,)
    with pytest.raises(ModelError, match="the name of a label or tensor is not valid"):
        dataclasses.replace(SPEC, **{field: value})
    assert dataclasses.replace(SPEC, labels=('café "au lait" \\ \'', "猫", "a/../b"))


def test_labels_and_tensors_are_text_in_tritons_files(tmp_path):
    """Quotes and backslashes neither end a string nor add a field, and each label keeps its line."""
    labels = ('"} hostile {', "\\", "../../x")
    assert len(labels) == len(LABELS)
    spec = dataclasses.replace(SPEC, labels=labels)
    made = bundle.write(
        tmp_path / "b", spec, [bundle.Item(colour_net(tmp_path / "n.onnx"))], golden_inputs=golden_inputs()
    )
    triton.write_triton(made, tmp_path / "models")
    assert (tmp_path / "models" / "colours" / "labels.txt").read_text().splitlines() == list(labels)
    hostile = 'a" } evil: "\\'
    text = triton.text({"name": hostile, "input_map": {hostile: hostile}})
    quoted = '"a\\" } evil: \\"\\\\"'
    assert text == f"name: {quoted}\ninput_map {{ key: {quoted} value: {quoted} }}\n"
