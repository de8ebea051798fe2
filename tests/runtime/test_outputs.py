"""Where a result may go: what is ours of the same kind is replaced, and nothing else is touched."""

import json
import os
import struct
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from edgesmith.bench.gate import ci_reports
from edgesmith.bench.report import page
from edgesmith.export.sources.options import spec_text
from edgesmith.runtime import bundle, outputs
from edgesmith.runtime.bundle import signing
from edgesmith.runtime.common import figures, files
from edgesmith.runtime.errors import UsageError
from edgesmith.runtime.serving import triton
from edgesmith.runtime.serving.frame_sources import open_writer
from support.bundles import SPEC, colour_bundle, colour_net, golden_inputs

THESIS = b"three years of work\n" * 40


def _safetensors(key):
    head = json.dumps({"__metadata__": {key: "{}"}}).encode()
    return struct.pack("<Q", len(head)) + head


def _figure(path, ending):
    pytest.importorskip("matplotlib")
    figures.save_figure(figures.pyplot().figure(), path.with_suffix(ending))
    path.with_suffix(ending).rename(path)


def _zipped(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name.replace("__", "/").replace("_json", ".json").replace("_pkl", ".pkl"), text)


def _frame(path):
    path.mkdir()
    open_writer(path).add(0, np.zeros((4, 4, 3), np.uint8))


def _engine(path, beside=None):
    path.write_bytes(b"ftrt" + bytes(24) + bytes([8, 6, 1, 0]) + bytes(64))
    if beside is not None:
        path.with_name(path.name + ".json").write_text(json.dumps(beside))


def _packed(path):
    made = colour_bundle(path.with_name("source") / "b")
    bundle.pack(made, path)


def _triton(path):
    triton.write_triton(colour_bundle(path.with_name("source") / "b"), path.parent)


def _signed(path):
    pytest.importorskip("cryptography")
    colour_bundle(path)
    signing.generate_key(path.with_name("key"))
    bundle.sign(bundle.opened(path), path.with_name("key"))


def _gif(path):
    kept = open_writer(path)
    kept.add(0, np.zeros((4, 4, 3), np.uint8))
    kept.close()


STATE = b"recipe global_generator progress"
OURS = {
    "bundle": colour_bundle,
    "bundle, signed": _signed,
    "zip": _packed,
    "triton": _triton,
    "frames": _frame,
    "onnx": colour_net,
    "engine": _engine,
    "engine, with its sidecar": lambda path: _engine(path, {"sha256": 1, "attestation": 1, "source_sha256": 1}),
    "result": lambda path: path.write_text('{"format": "edgesmith-bench", "version": 2}'),
    "coco": lambda path: path.write_text('{"format": "edgesmith-coco", "images": []}'),
    "page": lambda path: path.write_text(page.render([])),
    "picture": _gif,
    "picture, svg": lambda path: _figure(path, ".svg"),
    "picture, png": lambda path: _figure(path, ".png"),
    "markdown": lambda path: path.write_text(ci_reports.markdown_summary([ci_reports.GateFinding("a", "same", "b")])),
    "csv": lambda path: path.write_text("epoch,loss,lr,seconds\n1,2,3,4\n"),
    "parquet": lambda path: path.write_bytes(b"PAR1 machine metric form PAR1"),
    "junit": lambda path: path.write_text(ci_reports.junit_xml([])),
    "spec": lambda path: path.write_text(spec_text({})),
    "weights": lambda path: path.write_bytes(_safetensors("edgesmith.spec")),
    "state": lambda path: _zipped(path, w__data_pkl=STATE),
}


def _place(tmp_path, kind):
    name = "colours" if kind.startswith("triton") else f"x{'.gif' if kind == 'picture' else ''}"
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / name


def test_every_kind_is_tried():
    assert {case.split(",")[0] for case in OURS} | {"video"} == set(outputs.KINDS)


@pytest.mark.parametrize("case", OURS)
def test_nothing_an_empty_place_and_what_is_ours_may_be_replaced(case, tmp_path):
    kind, place = case.split(",")[0], _place(tmp_path, case)
    assert outputs.claim(place, kind) == place
    place.mkdir() if outputs.KINDS[kind].folder else place.touch()
    assert outputs.claim(place, kind) == place
    place.rmdir() if outputs.KINDS[kind].folder else place.unlink()
    OURS[case](place)
    assert outputs.claim(place, kind) == place


def _folder(path, **texts):
    path.mkdir()
    for name, text in texts.items():
        (path / name.replace("_", ".")).write_text(text)


def _bundle_and(name):
    def make(path):
        colour_bundle(path)
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(THESIS)

    return make


def _version_two(path):
    _triton(path)
    (path / "2").mkdir()
    (path / "2" / "model.onnx").write_bytes(THESIS)


def _beside(name):
    def make(path):
        _engine(path) if name.endswith(".json") else colour_net(path)
        path.with_name(path.name + name).write_bytes(b'{"my": "notes"}')

    return make


FOREIGN = {
    "spec: somebody's settings": lambda path: path.write_text("[network]\nname = 'x'\n"),
    "bundle: a thesis": lambda path: _folder(path, thesis_tex="x"),
    "bundle: other bundles": lambda path: (path.mkdir(), colour_bundle(path / "lenet5")),
    "bundle: a manifest of somebody else": lambda path: _folder(path, manifest_json='{"name": "my web page"}'),
    "bundle: a bundle with a README": _bundle_and("README.md"),
    "bundle: a bundle with a hidden file": _bundle_and(".git"),
    "bundle: a bundle with a file among its own": _bundle_and("onnx/mine.onnx"),
    "bundle: a bundle with an empty folder": lambda path: (colour_bundle(path), (path / "mine").mkdir()),
    "zip: a backup": lambda path: _zipped(path, thesis="x"),
    "zip: no zip": lambda path: path.write_bytes(THESIS),
    "zip: a manifest of somebody else": lambda path: _zipped(path, manifest_json="{}"),
    "triton: a model of others": lambda path: _folder(path, config_pbtxt='name: "colours"\n'),
    "triton: a version of others beside ours": _version_two,
    "frames: a data set": lambda path: (path.mkdir(), Image.new("RGB", (4, 4)).save(path / "000000.png")),
    "onnx: a text": lambda path: path.write_bytes(THESIS),
    "onnx: half an ONNX file": lambda path: path.write_bytes(colour_net(path).read_bytes()[:-9]),
    "onnx: its weights' place is taken": _beside(".data"),
    "engine: an ONNX file": colour_net,
    "engine: its sidecar's place is taken": _beside(".json"),
    "coco: COCO's own": lambda path: path.write_text('{"images": [], "annotations": []}'),
    "result: other JSON": lambda path: path.write_text('{"format": "mine"}'),
    "result: a list": lambda path: path.write_text("[1]"),
    "page: somebody's page": lambda path: path.write_text("<!doctype html><title>made by edgesmith? no</title>"),
    "picture: a photo": lambda path: Image.new("RGB", (4, 4)).save(path, format="PNG"),
    "video: a video": lambda path: path.write_bytes(b"\0\0\0\x20ftypisom"),
    "markdown: a README": lambda path: path.write_text("# My project\n\n| a | b |\n"),
    "csv: a table": lambda path: path.write_text("name,mark\nme,1.0\n"),
    "parquet: other columns": lambda path: path.write_bytes(b"PAR1 name mark PAR1"),
    "junit: of pytest": lambda path: path.write_text('<testsuite name="pytest"/>'),
    "weights: of others": lambda path: path.write_bytes(_safetensors("format")),
    "weights: a checkpoint": lambda path: _zipped(path, w__data_pkl=b"layer1"),
    "state: a checkpoint": lambda path: _zipped(path, w__data_pkl=b"layer1"),
}  # fmt: skip


def contents(folder):
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_ours_stays_and_is_named(case, tmp_path):
    kind, place = case.split(":")[0], _place(tmp_path, case)
    FOREIGN[case](place)
    before = contents(tmp_path / "there")
    with pytest.raises(UsageError, match="cannot be replaced; got a .*; expected nothing, or .*--overwrite"):
        outputs.claim(place, kind)
    assert contents(tmp_path / "there") == before
    assert outputs.claim(place, kind, overwrite=True) == place


def test_every_kind_refuses_something():
    assert {case.split(":")[0] for case in FOREIGN} == set(outputs.KINDS)


def _fifo(path):
    os.mkfifo(path)


NEVER = {
    "a file for a bundle": ("bundle", "x", lambda path: path.write_bytes(THESIS), "got a file;"),
    "a folder for an ONNX file": ("onnx", "x", Path.mkdir, "got a folder;"),
    "a bundle for an ONNX file": ("onnx", "x", colour_bundle, "got a folder;"),
    "a device": ("result", "/dev/null", None, "a device, a pipe or a socket"),
    "a pipe": ("result", "x", _fifo, "a device, a pipe or a socket"),
    "inside a bundle": ("onnx", "x/onnx/new.onnx", lambda path: colour_bundle(path.parents[1]), "is inside a bundle"),
    "deep in a bundle": ("page", "x/a/b/c.html", lambda path: colour_bundle(path.parents[2]), "is inside a bundle"),
    "below a file": ("onnx", "x/y.onnx", lambda path: path.parent.write_bytes(THESIS), "is not a folder"),
    "the current folder": ("bundle", ".", None, "the current folder"),
    "above the current folder": ("bundle", "..", None, "the current folder"),
    "a mount point": ("bundle", "/proc", None, "a mount point"),
    "a NUL": ("bundle", "a\0b/c", None, "cannot write"),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("case", NEVER)
def test_what_is_never_replaced(case, overwrite, tmp_path, monkeypatch):
    kind, name, make, said = NEVER[case]
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    if make:
        make(tmp_path / "in" / name)
    with pytest.raises(UsageError, match=said):
        outputs.claim(Path(name), kind, overwrite=overwrite)


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_not_followed(there, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(colour_bundle(tmp_path / "b").source if there else tmp_path / "gone")
    with pytest.raises(UsageError, match="got a link to"):
        outputs.claim(link, "bundle")
    outputs.claim(link, "bundle", overwrite=True)


def test_the_writers_of_folders_refuse_by_themselves(tmp_path):
    made = colour_bundle(tmp_path / "b")
    for name in ("own", "repository/colours_preprocess"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "thesis.tex").write_bytes(THESIS)
    (tmp_path / "own.zip").write_bytes(THESIS)
    before = contents(tmp_path)
    item = bundle.Item(colour_net(tmp_path / "colours-fp32.onnx"))
    for write in (
        lambda: bundle.write(tmp_path / "own", SPEC, [item], golden_inputs=golden_inputs()),
        lambda: bundle.pack(made, tmp_path / "own.zip"),
        lambda: triton.write_triton(made, tmp_path / "repository"),
    ):
        with pytest.raises(UsageError, match="cannot be replaced"):
            write()
    assert contents(tmp_path) == before
    bundle.write(tmp_path / "own", SPEC, [item], golden_inputs=golden_inputs(), overwrite=True)
    assert bundle.verify(tmp_path / "own").problems == {}


def test_a_repository_keeps_its_other_models(tmp_path):
    made = colour_bundle(tmp_path / "b")
    for name in ("resnet", "colours_2", ".hidden"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(THESIS)
    (tmp_path / "models" / "README.md").write_bytes(THESIS)
    before = contents(tmp_path / "models")
    for _ in range(2):
        triton.write_triton(made, tmp_path / "models")
    after = contents(tmp_path / "models")
    assert before.items() <= after.items()
    new = {Path(name).relative_to(tmp_path / "models").parts[0] for name in after.keys() - before.keys()}
    assert new == {"colours", "colours_preprocess", "colours_ensemble"}


def test_no_folder_takes_the_place_of_a_file_though_nobody_asked(tmp_path):
    """The mechanics themselves: what `claim` allowed may have changed since."""
    for name in ("file", "link"):
        place = tmp_path / name
        place.write_bytes(THESIS) if name == "file" else place.symlink_to(tmp_path / "file")
        with pytest.raises(Exception, match="a file or a link stands there"), files.atomic_folder(place) as made:
            (made / "a").write_text("new")
    assert (tmp_path / "file").read_bytes() == THESIS
    assert (tmp_path / "link").is_symlink()


LOOK_ALIKE = [".x.notes.tmp", ".x.abcdefgh.tmp", ".x.20240101.tmp", ".x.tmp", ".x.a.b.tmp"]


@pytest.mark.parametrize("name", LOOK_ALIKE)
def test_a_hidden_folder_that_looks_like_ours_stays(name, tmp_path):
    (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / name / "thesis.tex").write_bytes(THESIS)
    (tmp_path / ".x.lock").write_bytes(THESIS)
    before = contents(tmp_path)
    with files.locked(tmp_path / "x"), files.atomic_file(tmp_path / "x") as place:
        place.write_text("new")
    (tmp_path / "x").unlink()
    assert contents(tmp_path) == before


def test_a_marked_work_folder_that_nobody_holds_goes(tmp_path):
    """The other side: the sweep still does its work, with the mark and for an empty folder that never got one."""
    left, empty = tmp_path / ".x.abcdefgh.tmp", tmp_path / ".x.hgfedcba.tmp"
    for folder in (left, empty):
        folder.mkdir(mode=0o700)
    (left / files.MARK).write_text(files.MARKED)
    (left / "half").write_bytes(THESIS)
    with files.atomic_file(tmp_path / "x"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_mounted_is_refused_before_any_work(tmp_path, monkeypatch):
    """A rename over a mount point fails with EBUSY, at the end of the work."""
    lines, real = tmp_path / "mountinfo", Path.read_bytes
    (tmp_path / "my bundle").mkdir()
    (tmp_path / "page.html").write_text("")
    lines.write_text("".join(
        f"36 35 98:0 /a {tmp_path}/{name} rw - ext4 /dev/root rw\n" for name in ("my\\040bundle", "page.html")
    ))  # fmt: skip
    monkeypatch.setattr(Path, "read_bytes", lambda self: real(lines if str(self) == "/proc/self/mountinfo" else self))
    for name, kind in (("my bundle", "bundle"), ("page.html", "page")):
        with pytest.raises(UsageError, match="cannot be replaced; got a mount point"):
            outputs.claim(tmp_path / name, kind, overwrite=True)
    assert outputs.claim(tmp_path / "my", "bundle")


def test_a_full_disk_is_refused_before_any_work(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    disk = SimpleNamespace(f_flag=0, f_blocks=real.f_blocks, f_frsize=4096, f_bavail=10)
    monkeypatch.setattr(os, "statvfs", lambda path: disk)
    with pytest.raises(UsageError, match="got 40960 bytes left on the disk"):
        outputs.claim(tmp_path / "b", "bundle")
    disk.f_bavail = 1 << 20
    assert outputs.claim(tmp_path / "b", "bundle") == tmp_path / "b"
