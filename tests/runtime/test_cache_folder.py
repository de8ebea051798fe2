"""Folders whose files are executed or trusted: refused where another user can write; found without a home."""

import json
import os
from pathlib import Path

import pytest

from edgesmith.runtime.common import cache_folder as folders
from edgesmith.runtime.common import machine
from edgesmith.runtime.errors import BuildError
from edgesmith.runtime.selection import autotune_cache

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    place = tmp_path / "above" / "cache"
    monkeypatch.setenv("EDGESMITH_CACHE", str(place))
    folders.private_folder(place)
    return place


# what another user may have done: (a change of the cache's folder, whether that is refused)
DONE = {
    "nothing": (lambda place: None, False),
    "a file for all": (lambda place: (place / "a").chmod(0o666), True),
    "a parent for all": (lambda place: place.parent.chmod(0o777), True),
    "a sticky parent for all": (lambda place: place.parent.chmod(0o1777), False),
    "a parent for the group": (lambda place: (os.chown(place.parent, -1, 12345), place.parent.chmod(0o770)), True),
    "a file of another": (lambda place: os.chown(place / "a", 12345, -1), True),
    "the folder of another": (lambda place: os.chown(place, 12345, -1), True),
    "a parent of another": (lambda place: os.chown(place.parent, 12345, -1), True),
}


@needs_root
@pytest.mark.parametrize("case", DONE)
def test_what_another_user_can_write_is_refused(case, cache):
    change, refused = DONE[case]
    (cache / "a").write_text("")
    change(cache)
    if not refused:
        assert folders.private_folder(cache) == cache
        return
    with pytest.raises(BuildError, match="is not safe; got .*; do: .*EDGESMITH_CACHE"):
        folders.private_folder(cache)


@needs_root
def test_a_choice_that_another_user_wrote_is_measured_again(cache):
    choice = autotune_cache.Choice("a", "ort", 1, {"a": 1.0})
    autotune_cache.remember("key", choice)
    assert autotune_cache.remembered("key") == choice
    os.chown(cache / "key.json", 12345, -1)
    assert autotune_cache.remembered("key") is None


@pytest.mark.parametrize("threads", [1, 0, -1, 30_000, True, 1.5, "1", None], ids=repr)
def test_threads_of_a_choice_are_bounded(threads, cache):
    (cache / "key.json").write_text(
        json.dumps({"artefact": "a", "backend": "ort", "threads": threads, "seconds": {"a": 1.0}})
    )
    known = autotune_cache.remembered("key") is not None
    assert known is (threads is None or (type(threads) is int and threads == 1))
    assert autotune_cache.remembered("absent") is None


def test_as_many_threads_as_were_asked_for_are_kept(cache):
    choice = autotune_cache.Choice("a", "ort", 5000, {"a": 1.0})
    autotune_cache.remember("key", choice)
    assert autotune_cache.remembered("key") is None
    assert autotune_cache.remembered("key", 5000) == choice


def test_without_a_home_the_cache_is_in_the_temporary_folder(monkeypatch, tmp_path):
    for name in ("EDGESMITH_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    place = folders.cache_folder()
    assert place.is_relative_to(tmp_path)
    assert folders.private_folder(place).stat().st_mode & 0o777 == 0o700


GIB = 1 << 30
# /proc/self/cgroup, the files below /sys/fs/cgroup, and the memory of a machine with 8 GiB
LIMITS = {
    "none": ("0::/\n", {}, 8 * GIB),
    "a container": ("0::/\n", {"memory.max": GIB}, GIB),
    "no limit": ("0::/a\n", {"a/memory.max": "max"}, 8 * GIB),
    "a parent's": ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": 2 * GIB}, 2 * GIB),
    "version 1": ("5:cpu:/x\n4:memory:/x\n", {"memory/x/memory.limit_in_bytes": 3 * GIB}, 3 * GIB),
    "version 1, none": ("4:memory:/\n", {"memory/memory.limit_in_bytes": 1 << 62}, 8 * GIB),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_containers_memory_is_the_limit(case, monkeypatch):
    groups, limits, expected = LIMITS[case]
    files = {"/proc/self/cgroup": groups, **{f"/sys/fs/cgroup/{name}": f"{value}\n" for name, value in limits.items()}}
    monkeypatch.setattr(machine, "read_text", lambda path: files.get(str(path), ""))
    monkeypatch.setattr(os, "sysconf", lambda name: 4096 if name == "SC_PAGE_SIZE" else 8 * GIB // 4096)
    assert machine.memory_bytes() == expected
