"""Bundles: round trips, the same bytes twice, and every way in which one can be broken or tampered with."""

import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgesmith.runtime import bundle, load
from edgesmith.runtime.bundle import archive, manifest
from edgesmith.runtime.common import child_process, files
from edgesmith.runtime.errors import BundleError, EdgesmithError, UsageError
from support.bundles import SPEC, colour_bundle, colour_net, golden_inputs


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture
def copy(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / "copy")


@pytest.fixture
def packed(made, tmp_path):
    return bundle.pack(made, tmp_path / "colours.zip")


def test_what_is_written_is_read_back(made):
    again = bundle.read(made.folder)
    assert again == made
    assert (again.spec, [a.name for a in again.artefacts]) == (SPEC, ["colours-fp32", "colours-int8"])
    assert again.manifest.provenance == {"weights": "by hand"}
    np.testing.assert_array_equal(again.golden_inputs()["input"], golden_inputs()["input"])


def test_a_zip_holds_the_same_bundle(made, packed):
    zipped = bundle.read(packed)
    assert (zipped.manifest, zipped.digest) == (made.manifest, made.digest)
    assert bundle.verify(packed).passed


def test_the_same_content_gives_the_same_bytes(made, packed, tmp_path):
    other = colour_bundle(tmp_path / "elsewhere" / "colours")
    assert other.digest == made.digest
    assert bundle.pack(other, tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_the_manifest_makes_a_round_trip(made):
    assert manifest.parse_manifest(made.manifest.to_json()) == made.manifest


def test_verify_passes_and_reports(made):
    report = bundle.verify(made.folder, threads=1)
    assert report.verdict == "passed"
    assert [(r.artefact, r.status, r.agreement) for r in report.replays if r.backend == "ort"] == [
        ("colours-fp32", "passed", 1.0), ("colours-int8", "passed", 1.0)
    ]  # fmt: skip
    json.dumps(report.to_dict(), allow_nan=False)


def test_an_engine_takes_its_sidecar_along(tmp_path):
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"vtrt")
    (tmp_path / "m.engine.json").write_text("{}")
    made = bundle.write(tmp_path / "b", SPEC, [bundle.Item(engine, "engine", "fp16", "sm86", requires={"sm": "8.6"})],
                        golden_inputs=golden_inputs())  # fmt: skip
    assert made.artefacts[0].companions == ("engines/m.engine.json",)
    assert made.artefacts[0].requires == {"sm": "8.6"}
    assert bundle.verify(made).verdict == "cannot tell"


def test_a_failed_write_leaves_the_earlier_bundle(made, copy, tmp_path):
    before = (copy / "manifest.json").read_bytes()
    net = colour_net(tmp_path / "x.onnx")
    with pytest.raises(BundleError):
        bundle.write(copy, SPEC, [bundle.Item(net, precision="fp32", tolerance=7.0)], golden_inputs=golden_inputs())
    assert (copy / "manifest.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "x.onnx"}


def test_wrong_use_is_a_usage_error(tmp_path):
    net = colour_net(tmp_path / "x.onnx")
    for items, message in (([], "distinct names"), ([bundle.Item(net)] * 2, "distinct names; got x, x"),
                           ([bundle.Item(tmp_path / "no.onnx")], "no such file")):  # fmt: skip
        with pytest.raises(UsageError, match=message):
            bundle.write(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())
    with pytest.raises(UsageError, match="cannot read bundle .*nowhere"):
        bundle.read(tmp_path / "nowhere")
    assert not (tmp_path / "b").exists()


# Tampering with files ------------------------------------------------------------------------------------------------


def change_byte(folder):
    path = folder / "onnx/colours-fp32.onnx"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def lengthen(folder):
    with (folder / "golden/inputs.npz").open("ab") as file:
        file.write(b"x")


def remove(folder):
    (folder / "onnx/colours-int8.onnx").unlink()


def add(folder):
    (folder / "onnx/extra.onnx").write_bytes(b"x")


def link_out(folder):
    path = folder / "onnx/colours-fp32.onnx"
    outside = folder.parent / "outside.onnx"
    path.rename(outside)
    path.symlink_to(outside)


TAMPERED = {
    "a byte changed": (change_byte, "onnx/colours-fp32.onnx", "was changed: SHA-256"),
    "a byte more": (lengthen, "golden/inputs.npz", "was changed: .* bytes, not"),
    "a file gone": (remove, "onnx/colours-int8.onnx", "is missing"),
    "a file more": (add, "onnx/extra.onnx", "is not in the manifest"),
    "a link out of it": (link_out, "onnx/colours-fp32.onnx", "is outside the bundle"),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_is_found_and_named(case, copy):
    spoil, name, message = TAMPERED[case]
    spoil(copy)
    opened = bundle.read(copy)
    with pytest.raises(BundleError, match=f"{name} {message}"):
        opened.content(name)
    report = bundle.verify(copy, threads=1)
    assert (report.verdict, list(report.problems)) == ("failed", [name])


def rewrite(folder, change):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_wrong_outputs_fail_the_replay(copy):
    name = "golden/colours-fp32.npz"
    outputs = archive.read_arrays(copy / name)
    for wrong in (2 * outputs["output"], -outputs["output"], 0 * outputs["output"], outputs["output"][:, ::-1]):
        archive.write_arrays(copy / name, {"output": wrong})
        entry = {"sha256": files.sha256(copy / name), "bytes": (copy / name).stat().st_size}
        rewrite(copy, lambda values, entry=entry: values["files"].update({name: entry}))
        report = bundle.verify(copy, threads=1)
        assert (report.verdict, report.problems) == ("failed", {})


# Tampering with the manifest -----------------------------------------------------------------------------------------


def set_at(*path):
    *keys, value = path

    def change(values):
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = value

    return change


MANIFESTS = {
    "a later format": (
        set_at("format", 99),
        "this bundle is of a later version; got format 99; .*do: upgrade edgesmith",
    ),
    "no format": (lambda values: values.pop("format"), "got format None"),
    "format true": (set_at("format", True), "format True"),
    "files a list": (set_at("files", []), "files is list, not dict"),
    "a field missing": (lambda values: values.pop("artefacts"), "got no field 'artefacts'"),
    "an artefact a number": (set_at("artefacts", [7]), "an artefact with fields 7"),
    "an unknown field": (set_at("artefacts", 0, "plugin", "x.so"), "an artefact with fields"),
    "an unknown role": (set_at("artefacts", 0, "role", "pickle"), "role 'pickle'"),
    "a tolerance that allows all": (set_at("artefacts", 0, "tolerance", 1e9), "tolerance"),
    "a tolerance NaN": (set_at("artefacts", 0, "tolerance", float("nan")), "the number NaN"),
    "a path that climbs": (set_at("artefacts", 0, "path", "../../etc/passwd"), "is not safe; got '../../etc/passwd'"),
    "an absolute path": (set_at("artefacts", 0, "path", "/etc/passwd"), "is not safe"),
    "a drive": (set_at("artefacts", 0, "path", "C:x"), "is not safe"),
    "a path unlisted": (set_at("artefacts", 0, "path", "onnx/other.onnx"), "got no digest of onnx/other.onnx"),
    "a digest too short": (set_at("files", "golden/inputs.npz", {"sha256": "00", "bytes": 1}), "digest '00'"),
    "a size below zero": (set_at("files", "golden/inputs.npz", {"sha256": "0" * 64, "bytes": -1}), "size -1"),
    "a spec of nonsense": (set_at("spec", "input_shape", [3, -1, 8]), "not all positive integers"),
    "two of one name": (set_at("artefacts", 0, "name", "colours-int8"), "distinct names"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_wrong_manifest_is_refused(case, copy):
    change, message = MANIFESTS[case]
    rewrite(copy, change)
    with pytest.raises(BundleError, match=message):
        bundle.read(copy)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_no_mutation_of_the_manifest_is_more_than_a_known_error(made, data):
    text = bytearray(made.manifest.to_json().encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
    with contextlib.suppress(EdgesmithError):
        manifest.parse_manifest(bytes(text))


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"\xff\xfe", b"{" * 100_000, b'{"format": 1}'])
def test_what_is_no_manifest_is_refused(text, copy):
    (copy / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
        bundle.read(copy)


# Tampering with the archive ------------------------------------------------------------------------------------------


def rebuild(source, target, change):
    """Copy a .zip member by member; `change` maps (name, bytes) to a list of (name, bytes)."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            for member, content in change(name, old.read(name)):
                new.writestr(member, content)
    return target


INPUTS = "golden/inputs.npz"
ZIPS = {
    "a member missing": (lambda n, b: [] if n == INPUTS else [(n, b)], "is incomplete; got no golden/inputs.npz"),
    "a bomb": (lambda n, b: [(n, bytes(1 << 26) if n == INPUTS else b)], "not have the size in the manifest"),
    "a member short": (lambda n, b: [(n, b[:5] if n == INPUTS else b)], "not have the size in the manifest"),
    "no manifest": (lambda n, b: [] if n == "manifest.json" else [(n, b)], "is not a bundle; got no manifest.json"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_a_wrong_zip_is_refused(case, packed, tmp_path):
    change, message = ZIPS[case]
    with pytest.raises(BundleError, match=message):
        bundle.read(rebuild(packed, tmp_path / "wrong.zip", change))


def test_nothing_outside_the_manifest_is_extracted(packed, tmp_path):
    def climb(name, content):
        return [(name, content), ("../../climbed", b"x"), ("/absolute", b"x")] if name == INPUTS else [(name, content)]

    opened = bundle.read(rebuild(packed, tmp_path / "climbing.zip", climb))
    assert not list(tmp_path.rglob("climbed"))
    assert {path.name for path in opened.folder.iterdir()} == {"manifest.json", "onnx", "golden"}


def test_a_member_twice_is_refused(packed, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        wrong = rebuild(packed, tmp_path / "twice.zip", lambda n, b: [(n, b)] * (2 if n == INPUTS else 1))
    with pytest.raises(BundleError, match="contains a member twice"):
        bundle.read(wrong)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_no_damage_to_a_zip_is_more_than_a_known_error(made, tmp_path_factory, at, junk):
    folder = tmp_path_factory.mktemp("zip")
    path = bundle.pack(made, folder / "x.zip")
    content = bytearray(path.read_bytes())
    start = at % len(content)
    content[start : start + len(junk)] = junk
    path.write_bytes(content)
    with contextlib.suppress(EdgesmithError):
        bundle.verify(path, threads=1)


def repacked(source, target, method=zipfile.ZIP_DEFLATED, **more):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", method) as new:
        for name in old.namelist():
            new.writestr(name, more.get(name, old.read(name)))
    return target


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_only_stored_and_deflated_members_are_read(method, packed, tmp_path):
    with pytest.raises(BundleError, match="expected members that are stored or deflated"):
        bundle.read(repacked(packed, tmp_path / "b.zip", method))
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3)))
    with pytest.raises(BundleError, match="expected members that are stored or deflated"):
        archive.read_arrays(repacked(tmp_path / "a.npz", tmp_path / "b.npz", method))


def test_a_bomb_is_refused_before_anything_is_unpacked(packed, tmp_path, monkeypatch):
    """The manifest itself lists the large member: it has the right size and digest, and no signature was asked for."""
    large = bytes(3 << 20)
    with zipfile.ZipFile(packed) as old:
        values = json.loads(old.read("manifest.json"))
    values["files"][INPUTS] = {"bytes": len(large), "sha256": hashlib.sha256(large).hexdigest()}
    bomb = repacked(packed, tmp_path / "bomb.zip", **{"manifest.json": json.dumps(values), INPUTS: large})
    unpacked, real = [], archive._extract
    monkeypatch.setattr(archive, "_extract", lambda *rest: (unpacked.append(rest[2]), real(*rest))[1])
    assert bundle.read(bomb).manifest.files[INPUTS].bytes == len(large)
    unpacked.clear()
    monkeypatch.setattr(archive, "SMALL", 1 << 20)
    with pytest.raises(BundleError, match="is too large; got .* bytes unpacked; expected at most"):
        bundle.read(bomb)
    assert unpacked == ["manifest.json"]
    monkeypatch.setattr(archive, "SMALL", 64 << 20)
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(BundleError, match="expected 1000 free in"):
        bundle.read(bomb)


def test_what_a_killed_process_unpacked_goes_with_the_next_zip(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    code = child_process.code(
        f"from edgesmith.runtime import bundle\nb = bundle.read({str(packed)!r})\nprint(b.folder, flush=True)\ninput()"
    )
    with subprocess.Popen(code, stdin=-1, stdout=-1, text=True) as process:
        left = Path(process.stdout.readline().strip())
        opened = bundle.read(packed)
        assert left.is_dir()  # still in use
        process.send_signal(signal.SIGTERM)
    assert left.is_dir()
    assert left.parent.stat().st_mode & 0o777 == 0o700
    bundle.read(packed)
    assert not left.exists()
    folder = opened.folder
    assert folder.is_dir()
    del opened
    assert not folder.exists()
    assert not list(tmp_path.glob(".*"))


def test_an_npz_with_a_pickle_or_a_bomb_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "pickle.npz", x=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(BundleError, match="cannot be read"):
        archive.read_arrays(tmp_path / "pickle.npz")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros(1 << 20))
    monkeypatch.setattr(archive, "LARGEST_ARRAYS", 1 << 20)
    with pytest.raises(BundleError, match="too large"):
        archive.read_arrays(tmp_path / "bomb.npz")


def test_a_form_that_is_no_longer_run_is_passed_over_and_said(copy):
    values = json.loads((copy / "manifest.json").read_text())
    values["artefacts"].append({**values["artefacts"][0], "name": "colours-nchwc16", "role": "nchwc"})
    (copy / "manifest.json").write_text(json.dumps({**values, "format": 2}))
    assert bundle.verify(copy).verdict == "passed"
    with load(copy, device="cpu") as model:
        assert model.chosen.artefact.name != "colours-nchwc16"
        assert "skipped: colours-nchwc16: the role nchwc is no longer supported" in model.why()
