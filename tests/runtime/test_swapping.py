"""Loads while another process replaces the bundle, and copies of a bundle that arrive in any order.

`PYTHONPATH=tests python tests/runtime/test_swapping.py 10000` loads that often (docs/trust.md).
"""

import itertools
import shutil
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgesmith.runtime import bundle, load
from edgesmith.runtime.common import child_process
from edgesmith.runtime.errors import BundleError, UsageError
from edgesmith.runtime.serving.reload import ReloadingModel
from edgesmith.runtime.verify import replay
from support.bundles import SPEC, colour_net, golden_inputs, picture

GAINS = (4.0, -4.0)
SWAP = """
import shutil, sys
from pathlib import Path
from edgesmith.runtime.common.files import atomic_folder
target, *sources = map(Path, sys.argv[1:])
print("ready", flush=True)
while True:
    for source in sources:
        with atomic_folder(target) as folder:
            shutil.copytree(source, folder, dirs_exist_ok=True)
"""


def versions(place):
    """Write two bundles whose answers are the negative of each other's; return them, and the digest of each."""
    made = []
    for number, gain in enumerate(GAINS):
        (place / f"v{number}").mkdir()
        path = colour_net(place / f"v{number}" / "colours.onnx", gain=gain)
        made.append(bundle.write(place / f"b{number}", SPEC, [bundle.Item(path)], golden_inputs=golden_inputs()))
    return {one.digest: gain for one, gain in zip(made, GAINS, strict=True)}, [one.folder for one in made]


def load_while_swapped(place, count):
    """Load a bundle that another process replaces all the time; return how often each version was loaded."""
    gains, folders = versions(place)
    target, loaded = shutil.copytree(folders[0], place / "target"), dict.fromkeys(gains, 0)
    feeds = golden_inputs()
    right = {digest: feeds["input"].mean((2, 3)) * gain for digest, gain in gains.items()}
    command = child_process.code(SWAP, str(target), *map(str, folders))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"ready\n"
        try:
            for _ in range(count):
                with load(target, device="ort", precision="fp32", threads=1) as model:
                    (output,) = replay(model.session, feeds).values()
                np.testing.assert_allclose(output, right[model.bundle.digest], rtol=1e-4, atol=1e-5)
                loaded[model.bundle.digest] += 1
        finally:
            writer.kill()
    return loaded


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_load_is_of_one_version_while_another_process_swaps_them(tmp_path):
    assert min(load_while_swapped(tmp_path, 200).values()) > 0


def test_a_mixture_is_read_again_and_a_damaged_bundle_is_not(tmp_path, monkeypatch):
    """At the first look the manifest is of one version and the network of the other."""
    gains, folders = versions(tmp_path)
    target, real, looks = shutil.copytree(folders[0], tmp_path / "target"), bundle.Bundle.copy, []

    def replaced(self, *rest):
        looks.append(self.digest)
        if len(looks) == 1:
            shutil.rmtree(target)
            shutil.copytree(folders[1], target)
        return real(self, *rest)

    monkeypatch.setattr(bundle.Bundle, "copy", replaced)
    with load(target, device="ort", precision="fp32", threads=1) as model:
        assert [looks[0], model.bundle.digest] == list(gains)
    (target / "onnx" / "colours.onnx").write_bytes(b"")
    before = len(looks)
    with pytest.raises(BundleError, match="was changed"):
        load(target, device="ort", precision="fp32")
    assert len(looks) == before + 1


def test_a_bundle_without_end_of_replacement_is_an_error(tmp_path, monkeypatch):
    _, folders = versions(tmp_path)
    monkeypatch.setattr(bundle.Bundle, "is_replaced", lambda self: True)
    (folders[0] / "onnx" / "colours.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match="is replaced again and again"):
        load(folders[0], device="ort", precision="fp32")


FILES = ("manifest.json", "onnx/colours.onnx", "golden/inputs.npz")


@pytest.mark.parametrize("order", [*itertools.permutations(FILES)], ids=lambda order: " ".join(order))
def test_a_copy_that_arrives_file_by_file_is_followed(order, tmp_path):
    """As rsync and scp write it: nothing else changes after the last file, and none of the times have to."""
    _, folders = versions(tmp_path)
    target = shutil.copytree(folders[0], tmp_path / "target")
    with ReloadingModel(target, device="ort", precision="fp32", threads=1) as live:
        best = live(picture("red")).top(1)[0].label
        for name in order:
            live.refresh()
            shutil.copy2(folders[1] / name, target / name)
            assert live(picture("red")).top(3)
        live.refresh()
        assert live.problem is None
        assert live.model.bundle.digest == bundle.read(folders[1]).digest
        assert best == "red" != live(picture("red")).top(1)[0].label
        assert live.refresh() is False


def test_a_bundle_that_is_gone_for_a_while_comes_back(tmp_path):
    _, folders = versions(tmp_path)
    target = shutil.copytree(folders[0], tmp_path / "target")
    with closing(ReloadingModel(target, device="ort", precision="fp32", threads=1)) as live:
        shutil.rmtree(target)
        assert live.refresh() is False
        assert isinstance(live.problem, UsageError)
        shutil.copytree(folders[1], target)
        assert live.refresh() is True
        assert live.problem is None


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(f"{load_while_swapped(Path(folder), int(sys.argv[1]))}\n")
