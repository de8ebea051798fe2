"""What the fuzzer found in arrays, images, specs, checkpoints and bundles, and the error that each now ends in."""

import dataclasses
import json
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgesmith.models import checkpoints
from edgesmith.optimize.calibration import statistics_cache
from edgesmith.runtime import bundle, load
from edgesmith.runtime.bundle import archive
from edgesmith.runtime.common.files import existing_file, sha256
from edgesmith.runtime.errors import BundleError, DataError, ModelError, UsageError
from edgesmith.runtime.images import preprocess
from edgesmith.runtime.selection import autotune_cache
from edgesmith.runtime.serving import frame_sources
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.bundles import SPEC, colour_bundle, picture

BATCHES = {"a list": [np.zeros((3, 16, 16))], "an object": object(), "no dimensions": np.float32(1), "none": None}


@pytest.mark.parametrize("case", BATCHES)
def test_what_is_no_batch(case, tmp_path):
    with load(colour_bundle(tmp_path / "b" / "colours"), device="ort", threads=1) as loaded:
        with pytest.raises(DataError, match="this is not a batch"):
            loaded.run(BATCHES[case])
        assert loaded(picture("blue")).top(1)[0].label == "blue"


@pytest.mark.parametrize("reader", [preprocess.read_image, lambda path: list(frame_sources.frames(str(path)))])
def test_what_is_no_image_file(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.gif")
    with pytest.raises((DataError, UsageError), match="not a regular file|no such file"):
        reader(tmp_path / "pipe.gif")


def test_a_path_that_cannot_be_one():
    for path in ("x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="cannot read image"):
            preprocess.read_image(path)
        with pytest.raises(UsageError, match="cannot read model"):
            existing_file(path, "model")
        with pytest.raises(UsageError, match="cannot read source"):
            frame_sources.frames(path)


@pytest.mark.skipif(not hasattr(os, "setresuid"), reason="this system has no users to become")
def test_a_file_that_may_not_be_read_is_said():
    with tempfile.TemporaryDirectory() as name:
        file, users = Path(name) / "x.onnx", os.getresuid()
        Path(name).chmod(0o755)
        file.touch(mode=0)
        if users[0] == 0:  # root may read everything
            os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(UsageError, match="got no permission to read it"):
                existing_file(file, "model")
        finally:
            os.setresuid(*users)


def test_a_picture_as_long_and_narrow_as_a_thread():
    """Resized so that its shorter side is 16 pixels it would take 6 GB."""
    thread = np.zeros((2, 8_000_000, 3), np.uint8)
    with pytest.raises(
        DataError,
        match="the aspect ratio of this image is too large; got 8000000x2 pixels, 16 by 64000000 after resizing",
    ):
        preprocess.apply([thread], SPEC)


def test_a_picture_that_was_opened_and_is_not_whole(tmp_path):
    Image.fromarray(picture("red")).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(data[: len(data) // 2])
    with Image.open(tmp_path / "x.png") as opened, pytest.raises(DataError, match="this image cannot be decoded; got "):
        preprocess.apply([opened], SPEC)


def test_an_animation_far_larger_than_its_file(tmp_path):
    frame = b"\x2c" + bytes(4) + b"\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\x00\x00" + bytes(6)
    (tmp_path / "x.gif").write_bytes(head + frame + b"\x3b")
    with pytest.raises(DataError, match="animation .* is too large"):
        list(frame_sources.frames(str(tmp_path / "x.gif")))


def test_an_animation_that_breaks_off_gives_the_frames_before(tmp_path):
    frames = [Image.fromarray(picture(colour)) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    data = (tmp_path / "x.gif").read_bytes()
    (tmp_path / "x.gif").write_bytes(data[: len(data) * 2 // 3])
    found = frame_sources.frames(str(tmp_path / "x.gif"))
    assert next(found).shape == (40, 30, 3)


PREPROCESSES = {
    "a text for a size": {"resize": "nan"}, "a text for a mean": {"mean": ["x", 0, 0]},
    "a deviation of zero": {"std": [0, 1, 1]}, "fewer deviations": {"std": [1.0]}, "a crop of one": {"crop": [3]},
    "a number for a name": {"interpolation": 7},
    "a size of a galaxy": {"resize": 2**40}, "a crop of a galaxy": {"crop": [2**40, 8]},
}  # fmt: skip


@pytest.mark.parametrize("case", PREPROCESSES)
def test_preprocessing_of_nonsense(case):
    values = json.loads(SPEC.to_json())
    values["preprocess"] |= PREPROCESSES[case]
    with pytest.raises(ModelError, match="the ModelSpec cannot be read"):
        ModelSpec.from_json(json.dumps(values))


@pytest.mark.parametrize("change", [{"labels": [1]}, {"output_names": "output"}, {"input_name": None}, {"layout": 3}])
def test_names_of_nonsense(change):
    with pytest.raises(ModelError, match="the ModelSpec cannot be read"):
        ModelSpec.from_json(json.dumps({**json.loads(SPEC.to_json()), **change}))


def test_fewer_means_than_channels():
    odd = dataclasses.replace(SPEC, preprocess=Preprocess((16, 16), 16, mean=(0.5,), std=(0.5,)))
    with pytest.raises(DataError, match="has too few means; got 1 means for RGB"):
        preprocess.apply([picture("red")], odd)


@pytest.mark.parametrize("data", [b"\x80\x02.", b"\x80\x02u.", b"\x80\x02R.", pickle.dumps([1])[:-1] + b"R."])
def test_a_pickle_that_is_no_pickle(data, tmp_path):
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(ModelError, match=r"is not a checkpoint|was refused"):
        checkpoints.read_checkpoint(tmp_path / "a.pth")


ODD_TENSORS = {
    "a sparse": lambda value: value.to_sparse(),
    "a quantised": lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8),
    "an empty": lambda value: value.to("meta"),
    "a complex": lambda value: value.to(torch.complex64),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("case", ODD_TENSORS)
def test_a_tensor_that_is_no_array_of_numbers(case, tmp_path):
    torch.save({"a.weight": ODD_TENSORS[case](torch.ones(2, 2))}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match=f"holds {case} tensor; got a.weight"):
        checkpoints.read_checkpoint(tmp_path / "a.pth")


HEADERS = {
    "a bracket left open": "{'descr': '<f4', 'shape': (3,",
    "a list for a key": "{[]: 1}",
    "a shape of a galaxy": "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424,)}",
    "no type": "{'descr': [['a']], 'fortran_order': False, 'shape': (1,)}",
    "deep": "(" * 5000,
}


@pytest.mark.parametrize("case", HEADERS)
def test_arrays_whose_header_is_no_header(case, tmp_path):
    text = HEADERS[case].encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64))
    with pytest.raises(BundleError, match="a.npz cannot be read; got .*; expected arrays in .npz"):
        archive.read_arrays(tmp_path / "a.npz")


NO_BATCHES = {
    "no dimensions": {"output": np.float32(1)}, "texts": {"output": np.full((4, 3), "x")},
    "no rows": {"output": np.zeros((0, 3), np.float32)}, "nothing": {},
    "complex numbers": {"output": np.zeros((4, 3), np.complex64)},
}  # fmt: skip


@pytest.mark.parametrize("case", NO_BATCHES)
@pytest.mark.parametrize("file", ["golden/inputs.npz", "golden/colours-fp32.npz"])
def test_golden_arrays_that_are_no_batches(case, file, tmp_path):
    """With digests that fit: a hostile bundle, not a damaged one."""
    made = colour_bundle(tmp_path / "b" / "colours")
    place, manifest = made.folder / file, made.folder / "manifest.json"
    np.savez(place, **NO_BATCHES[case])
    values = json.loads(manifest.read_text())
    values["files"][file] = {"sha256": sha256(place), "bytes": place.stat().st_size}
    manifest.write_text(json.dumps(values))
    if case == "no rows" and "inputs" not in file:  # what a detector gives that finds nothing, and not what this gives
        assert bundle.verify(made.folder, threads=1).verdict == "failed"
        return
    with pytest.raises(BundleError, match="cannot be used; got .*; expected batches of numbers"):
        bundle.verify(made.folder, threads=1)


def test_a_member_that_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as made:
        made.writestr("output.npy", bytes(100))
    with pytest.raises(BundleError, match="cannot be used; got output "):
        archive.read_arrays(tmp_path / "a.npz")


def test_a_calibration_cache_whose_compression_is_damaged_is_none(tmp_path):
    np.savez_compressed(tmp_path / "c.npz", **{"ends/a": np.zeros(4), "channels/a": np.zeros((2, 3))})
    assert statistics_cache.read(tmp_path / "c.npz", ["a"])["a"].high == 0
    data = bytearray((tmp_path / "c.npz").read_bytes())
    name, extra = struct.unpack_from("<HH", data, 26)
    data[30 + name + extra] = 0xFF  # a block of no kind: zlib.error
    (tmp_path / "c.npz").write_bytes(data)
    assert statistics_cache.read(tmp_path / "c.npz", ["a"]) is None


def test_a_zipped_bundle_whose_compression_is_another(tmp_path):
    """A member that says it is LZMA: its decoder has errors of its own."""
    packed = bundle.pack(colour_bundle(tmp_path / "b" / "colours"), tmp_path / "b.zip")
    data = bytearray(packed.read_bytes())
    data[8:10] = struct.pack("<H", 14)
    at = data.find(b"PK\x01\x02")
    data[at + 10 : at + 12] = struct.pack("<H", 14)
    packed.write_bytes(data)
    with pytest.raises(BundleError, match="b.zip cannot be read"):
        bundle.read(packed)


def test_a_member_with_a_name_that_no_file_can_have(tmp_path):
    made = colour_bundle(tmp_path / "b" / "colours")
    file = made.folder / "manifest.json"
    file.write_text(file.read_text().replace("onnx/colours-fp32.onnx", "x" * 300))
    with pytest.raises(BundleError, match="a path in the bundle is not safe"):
        load(made.folder, precision="fp32", device="ort")


@pytest.mark.parametrize("seconds", ["[]", '{"a": "b"}', "7"])
def test_a_remembered_choice_of_nonsense_is_none(seconds, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path))
    text = '{"artefact": "a", "backend": "ort", "threads": 1, "seconds": {"a": 0.5}}'
    (tmp_path / "k.json").write_text(text)
    assert autotune_cache.remembered("k").seconds == {"a": 0.5}
    (tmp_path / "k.json").write_text(text.replace('{"a": 0.5}', seconds))
    assert autotune_cache.remembered("k") is None
