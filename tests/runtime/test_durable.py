"""Loss of everything that was not fsynced, at each moment of a write: one whole output, earlier or new, remains.

The file system is simulated from the calls of a real write; a file's bytes are those of its last fsync, or gone. With
an exchange, the entries of each folder are those of its last fsync or any later ones, which is more than any real file
system loses. Without one, the entries of all folders are those of one moment since the last fsync of any folder, as a
journal keeps them: a rename from one folder to another is there whole or not at all.
"""

import errno
import itertools
import os
import shutil
from pathlib import Path

import pytest

from edgesmith.runtime.common import durable, files

WHOLE = ({"a": b"earlier", "b/c": b"earlier"}, {"a": b"new", "b/c": b"new"})


class Disk:
    """What would be on the disk: entries of folders and bytes of files by inode, as of their last fsync and since."""

    def __init__(self, root, monkeypatch, journal=False):
        self.root, self.entries, self.content, self.moments = root, {}, {}, []
        self.journal, self.since = journal, []
        for name in ("fsync", "replace", "rename", "rmdir", "unlink"):
            self.watch(monkeypatch, os, name)
        self.watch(monkeypatch, durable, "_exchanged")
        for folder, _, names in os.walk(root):
            self.listed(folder)
            for name in names:
                self.written(Path(folder) / name)

    def watch(self, monkeypatch, place, name):
        real = getattr(place, name)

        def watched(*arguments, **settings):
            answer = real(*arguments, **settings)
            if name == "fsync":
                path = Path(f"/proc/self/fd/{arguments[0]}").readlink()
                if path.is_dir():
                    self.listed(path, fresh=True)
                    self.since = []
                else:
                    self.written(path)
            self.look()
            return answer

        monkeypatch.setattr(place, name, watched)

    def listed(self, folder, fresh=False):
        now = {entry.name: entry.inode() for entry in os.scandir(folder)}
        versions = self.entries.setdefault(Path(folder).stat().st_ino, [])
        if fresh:
            versions.clear()
        if now in versions:
            versions.remove(now)
        versions.append(now)

    def written(self, path):
        self.content[path.stat().st_ino] = path.read_bytes()

    def look(self):
        """Keep what a loss of power at this moment may leave at the target."""
        for folder, _, _ in os.walk(self.root):
            self.listed(folder)
        self.since.append({inode: versions[-1] for inode, versions in self.entries.items()})
        every = (dict(zip(self.entries, one, strict=True)) for one in itertools.product(*self.entries.values()))
        for folders in self.since if self.journal else every:
            self.moments.append(self.tree(folders, folders[self.root.stat().st_ino], ""))

    def tree(self, folders, entries, at):
        """Return {path: bytes} below a folder; an inode without bytes is a file whose content was lost."""
        values = {}
        for name, inode in entries.items():
            if inode in folders:
                values |= self.tree(folders, folders[inode], f"{at}{name}/")
            else:
                values[at + name] = self.content.get(inode, b"")
        return values


def standing(tree, name="x"):
    return {path[len(name) + 1 :]: value for path, value in tree.items() if path.startswith(name + "/")}


def write(target, text):
    with files.atomic_folder(target) as folder:
        (folder / "b").mkdir()
        for name in ("a", "b/c"):
            (folder / name).write_text(text)


def recovered(tree, place):
    """Write a tree to the disk, let the next write begin, and return what is at the target."""
    shutil.rmtree(place, ignore_errors=True)
    for name, value in tree.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(value)
    with files.workplace(place / "x"):
        return {path.relative_to(place / "x").as_posix(): path.read_bytes() for path in (place / "x").rglob("*")
                if path.is_file()}  # fmt: skip


def lower_layer(monkeypatch):
    """Play overlayfs, where a folder of a lower layer cannot be renamed."""
    real = Path.replace

    def replace(self, target):
        if self.name == "x" and self.parent.name != "work":
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)


WAYS = {"exchanged": (True, False), "moved aside": (False, False), "copied aside": (False, True)}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads the names of descriptors in /proc")
@pytest.mark.parametrize("way", WAYS)
def test_what_was_not_fsynced_is_lost_and_a_whole_output_remains(way, tmp_path, monkeypatch):
    exchange, lower = WAYS[way]
    root = tmp_path / "disk"
    write(root / "x", "earlier")
    with monkeypatch.context() as patched:
        if not exchange:
            patched.setattr(durable, "_exchanged", lambda new, target: False)
        if lower:
            lower_layer(patched)
        disk = Disk(root, patched, journal=not exchange)
        write(root / "x", "new")
        disk.look()
    assert len(disk.moments) > 20
    for tree in {str(sorted(tree.items())): tree for tree in disk.moments}.values():
        assert standing(tree) in WHOLE or recovered(tree, tmp_path / "again") in WHOLE, sorted(tree)
    assert standing(disk.moments[-1]) == WHOLE[1]
    assert [path.name for path in root.iterdir()] == ["x"]


@pytest.mark.parametrize("missing", ["files", "folders", "everything"])
def test_a_write_without_fsync_is_noticed(missing, tmp_path, monkeypatch):
    """The test of the test above: without one kind of fsync the new output can be lost with the earlier one."""
    root = tmp_path / "disk"
    write(root / "x", "earlier")
    with monkeypatch.context() as patched:
        disk = Disk(root, patched)
        watched = os.fsync

        def forgetful(descriptor):
            folder = Path(f"/proc/self/fd/{descriptor}").is_dir()
            if missing != "everything" and folder is not (missing == "folders"):
                watched(descriptor)

        patched.setattr(os, "fsync", forgetful)
        write(root / "x", "new")
        disk.look()
    assert any(standing(tree) not in WHOLE for tree in disk.moments)


def test_a_file_is_on_the_disk_before_its_name(tmp_path, monkeypatch):
    root = tmp_path / "disk"
    with files.atomic_file(root / "new" / "x") as place:
        place.write_text("earlier")
    with monkeypatch.context() as patched:
        disk = Disk(root, patched)
        with files.atomic_file(root / "new" / "x") as place:
            place.write_text("new")
        disk.look()
    assert {tree["new/x"] for tree in disk.moments} == {b"earlier", b"new"}
    assert disk.moments[-1]["new/x"] == b"new"
