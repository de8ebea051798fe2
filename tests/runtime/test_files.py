"""Work folders that killed processes leave, exchanging folders in one step, and locks among processes."""

import os
import subprocess
import sys
import threading
import time

import pytest

from edgesmith.runtime.common import durable, files
from edgesmith.runtime.errors import EdgesmithError

HALF = """
import os, sys
from edgesmith.runtime.common import durable, files
with files.{opener}(sys.argv[1]) as place:
    if place: (place / 'a' if place.is_dir() else place).write_text('half')
    print('ready', flush=True)
    sys.stdin.read()
"""


def killed_in_the_middle(opener, target):
    code = HALF.format(opener=opener)
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdin=-1, stdout=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        yield
        process.kill()


@pytest.mark.parametrize("opener", ["atomic_file", "atomic_folder", "workplace"])
def test_what_a_killed_process_left_goes_with_the_next_run_and_what_is_in_use_stays(opener, tmp_path):
    target = tmp_path / "x"
    for _ in killed_in_the_middle(opener, target):
        with files.atomic_file(tmp_path / "x") as place:
            place.write_text("whole")
        assert len(list(tmp_path.glob(".x.*.tmp"))) == 1
    assert len(list(tmp_path.glob(".x.*.tmp"))) == 1
    with files.atomic_file(target) as place:
        place.write_text("again")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert target.read_text() == "again"


def test_only_folders_of_this_target_are_looked_at(tmp_path):
    other, link = tmp_path / ".y.abc.tmp", tmp_path / ".x.abc.tmp"
    other.mkdir()
    link.symlink_to(other)
    with files.atomic_file(tmp_path / "x"):
        pass
    assert other.is_dir()
    assert link.is_symlink()


@pytest.mark.skipif(sys.platform != "linux", reason="needs renameat2")
def test_a_folder_is_there_at_each_moment_while_it_is_replaced(tmp_path):
    target, missing, stop = tmp_path / "x", [], threading.Event()

    def watch():
        while not stop.is_set():
            try:
                (target / "a").read_text()
            except OSError as error:
                missing.append(error)

    with files.atomic_folder(target) as place:
        (place / "a").write_text("0")
    watcher = threading.Thread(target=watch)
    watcher.start()
    for number in range(200):
        with files.atomic_folder(target) as place:
            (place / "a").write_text(str(number))
    stop.set()
    watcher.join()
    assert missing == []


def test_where_nothing_can_be_exchanged_the_earlier_folder_is_moved_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "_exchanged", lambda one, other: False)
    for text in ("1", "2"):
        with files.atomic_folder(tmp_path / "x") as place:
            (place / "a").write_text(text)
    assert (tmp_path / "x" / "a").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_one_holds_a_lock_and_a_killed_one_holds_it_no_more(tmp_path):
    held = []

    def work(number):
        with files.locked(tmp_path / "x"):
            held.append(number)
            time.sleep(0.02)
            assert held[-1] == number

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(held) == list(range(8))
    assert list(tmp_path.iterdir()) == []
    for _ in killed_in_the_middle("locked", tmp_path / "x"):
        pass
    with files.locked(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    tmp_path.chmod(0o555)
    with (
        pytest.raises(EdgesmithError, match="cannot write .*; got Permission denied"),
        files.atomic_file(tmp_path / "x"),
    ):
        pass
    tmp_path.chmod(0o755)
