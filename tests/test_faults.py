"""Kill -9, two at once, a full disk, a read-only folder: the earlier result stays, and the next run ends well."""

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgesmith.runtime import bundle
from edgesmith.runtime.bundle import requirements
from edgesmith.runtime.common import files
from edgesmith.runtime.engines import build
from edgesmith.runtime.errors import EdgesmithError
from support import faults, sameness, soak
from support.bundles import SPEC, colour_bundle, colour_net, golden_inputs
from support.engine_graphs import saved, small_net
from support.patience import PATIENCE_S

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
@pytest.mark.parametrize("job", faults.JOBS, ids=lambda job: job.name)
@pytest.mark.parametrize(
    "moments", [pytest.param(2, marks=pytest.mark.slow), pytest.param(6, marks=pytest.mark.nightly)]
)
def test_a_job_that_is_killed_starts_again_and_ends_the_same(job, moments):
    assert faults.run(moments, seed=1, jobs=(job,)) == []


@linux
def test_a_process_that_lives_on_is_found():
    environment = {**os.environ, faults.MARK: "planted"}
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=environment) as process:
        assert faults.orphans("planted", patience_s=0.2) == [process.pid]
        process.kill()
    assert faults.orphans("planted") == []


def test_a_short_soak():
    found = soak.soak(20_000, every_s=0.02)
    assert (found.wrong, found.errors, found.threads_left, found.files_left) == (0, 0, 0, 0)
    assert found.frames == 20_000
    assert found.reloads > 2


@pytest.mark.slow
def test_a_soak_keeps_its_memory():
    found = soak.soak(40_000)
    assert (found.wrong, found.errors) == (0, 0)
    assert abs(found.growth) < 0.02


@pytest.mark.slow
def test_two_exports_of_one_bundle_at_once_both_end_well_and_give_the_same(tmp_path):
    job = faults.JOBS[0]
    started = [faults.start(job, tmp_path) for _ in range(2)]
    assert [one.wait(PATIENCE_S) for one in started] == [0, 0]
    assert bundle.verify(tmp_path / "out" / "lenet5", threads=1).passed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lenet5"]
    (tmp_path / "out" / "lenet5").rename(tmp_path / "first")
    assert faults.start(job, tmp_path).wait(PATIENCE_S) == 0
    assert sameness.differences(tmp_path / "first", tmp_path / "out" / "lenet5") == []


def test_two_builds_of_one_cached_engine_are_one(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    net = saved(small_net("fp16"), tmp_path / "n.onnx")
    (tmp_path / "e.engine").write_bytes(b"of another machine")
    items = [bundle.Item(net, precision="fp16"), bundle.Item(tmp_path / "e.engine", "engine", "fp16", "sm75")]
    made = bundle.write(tmp_path / "b", SPEC, items, golden_inputs=golden_inputs())
    builds, real, found = [], build.build_engine, []

    def counted(*arguments, **settings):
        builds.append(arguments[1])
        return real(*arguments, **settings)

    monkeypatch.setattr(build, "build_engine", counted)

    def work():
        found.append(requirements.rebuild_engine(made, made.artefacts[1], sm="8.6"))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(builds) == 1
    assert found[0] == found[1]
    assert found[0].is_file()
    assert (tmp_path / "cache" / "engines").stat().st_mode & 0o077 == 0
    assert {path.suffix for path in (tmp_path / "cache" / "engines").iterdir()} == {".engine", ".json"}


@contextlib.contextmanager
def mounted(place: Path, options: str):
    """A small file system of its own; skipped where this user may not mount one."""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_and_the_earlier_bundle_is_intact(tmp_path):
    net = colour_net(tmp_path / "n.onnx")
    (tmp_path / "big.onnx").write_bytes(os.urandom(2 << 20))
    with mounted(tmp_path / "disk", "size=1m") as disk:
        before = colour_bundle(disk / "b").digest
        items = [bundle.Item(net), bundle.Item(tmp_path / "big.onnx")]
        with pytest.raises(EdgesmithError, match="cannot write .*; got No space left on device; do: free some space"):
            bundle.write(disk / "b", SPEC, items, golden_inputs=golden_inputs())
        with pytest.raises(EdgesmithError, match="got No space left"), files.atomic_file(disk / "f") as place:
            place.write_bytes(bytes(2 << 20))
        assert bundle.verify(disk / "b", threads=1).passed
        assert bundle.read(disk / "b").digest == before
        assert not list(disk.glob(".*"))


def test_a_read_only_folder_is_said_and_the_earlier_bundle_is_intact(tmp_path):
    net = colour_net(tmp_path / "n.onnx")
    with mounted(tmp_path / "disk", "size=1m") as disk:
        colour_bundle(disk / "b")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(EdgesmithError, match="got Read-only file system; do: choose another folder"):
            bundle.write(disk / "b", SPEC, [bundle.Item(net)], golden_inputs=golden_inputs())
        assert bundle.verify(disk / "b", threads=1).passed
