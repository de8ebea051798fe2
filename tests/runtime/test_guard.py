"""The guard: exit codes, crashes, hangs, memory, signals and left folders of a child, as seen by its parent."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgesmith.runtime.common import files, isolation, machine
from edgesmith.runtime.errors import UsageError
from support.bundles import colour_bundle
from support.patience import PATIENCE_S, until

pytestmark = pytest.mark.skipif(not isolation.CAN_FORK, reason="this system cannot fork")
FULL = Path("/dev/full")
IMPORTS = "import atexit, os, signal, sys, time\nfrom edgesmith.runtime.common import files\n"
IMPORTS += "from edgesmith.runtime.common.isolation import Limits, run_isolated\n"


def in_process(body: str, *arguments: str, **settings) -> subprocess.CompletedProcess:
    """Run lines in a process of their own, so that no thread of the tests' own is there when it forks."""
    command = [sys.executable, "-c", IMPORTS + body, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, **settings)


ENDINGS = {
    "a number": ("lambda: 3", 3, 0),
    "nothing": ("lambda: None", 0, 0),
    "sys.exit": ("lambda: sys.exit(2)", 2, 0),
    "sys.exit of a text": ("lambda: sys.exit('no')", 1, 0),
    "an error": ("lambda: 1 / 0", 1, 0),
    "a crash": ("lambda: os.kill(os.getpid(), signal.SIGSEGV)", 139, signal.SIGSEGV),
    "an abort": ("os.abort", 134, signal.SIGABRT),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_how_a_child_ends(case):
    action, code, number = ENDINGS[case]
    done = in_process(f"e = run_isolated({action}, Limits()); print(e.code, e.signal, e.late, e.peak_bytes > 1 << 20)")
    assert done.stdout.split() == [str(code), str(int(number)), "False", "True"]


def test_what_it_prints_and_its_last_wishes_arrive():
    done = in_process("def f():\n  atexit.register(print, 'end')\n  print('said')\nrun_isolated(f, Limits())")
    assert done.stdout.split() == ["said", "end"]


def test_what_the_parent_is_to_do_at_its_end_the_child_leaves_to_it(tmp_path):
    """An exit function and a temporary folder of the parent's stay; a folder that the child made is removed."""
    done = in_process(
        "import tempfile\n"
        "mine = tempfile.TemporaryDirectory(dir=sys.argv[1]); atexit.register(print, 'the parent ends')\n"
        "def f():\n  global other; other = tempfile.TemporaryDirectory(dir=sys.argv[1])\n"
        "  print(len(os.listdir(sys.argv[1])))\n"
        "run_isolated(f, Limits()); print(len(os.listdir(sys.argv[1])), os.path.isdir(mine.name))",
        str(tmp_path),
    )
    assert done.stdout.splitlines() == ["2", "1 True", "the parent ends"]


def test_a_hang_ends_at_the_limit():
    done = in_process("l = Limits(0.5); e = run_isolated(lambda: time.sleep(60), l); print(e.late, e.error('work', l))")
    assert done.stdout.strip() == (
        "True work was stopped: it took too long; got more than 0.5 s; "
        "do: check whether the file is malformed, or raise EDGESMITH_MAX_SECONDS"
    )


def test_memory_is_bounded():
    done = in_process(
        "e = run_isolated(lambda: bytearray(1 << 30), Limits(None, 256 << 20)); print(e.code, e.peak_bytes)"
    )
    code, peak = map(int, done.stdout.split())
    assert code == 1
    assert peak < 300 << 20
    assert "MemoryError" in done.stderr


def test_a_crash_leaves_no_work_folder(tmp_path):
    body = (
        "def crash():\n  with files.atomic_file(sys.argv[1]) as place:\n"
        "    place.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGSEGV)\n"
        "print(run_isolated(crash, Limits()).signal)"
    )
    assert in_process(body, str(tmp_path / "target")).stdout.strip() == "11"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_child_cleans_up(number, tmp_path):
    body = (
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "def work():\n  with files.atomic_file(sys.argv[1]):\n    print('ready', flush=True); time.sleep(60)\n"
        "sys.exit(run_isolated(work, Limits()).code)"
    )
    with subprocess.Popen([sys.executable, "-c", IMPORTS + body, str(tmp_path / "x")], stdout=-1, stderr=-1) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == (7 if number == signal.SIGTERM else 1)
    assert list(tmp_path.iterdir()) == []


def test_the_child_ends_when_its_parent_is_killed(tmp_path):
    body = "run_isolated(lambda: (print(os.getpid(), flush=True), time.sleep(60)), Limits())"
    with subprocess.Popen([sys.executable, "-c", IMPORTS + body], stdout=subprocess.PIPE) as process:
        child = int(process.stdout.readline())
        process.kill()

    def ended() -> bool:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return True
        return "\nState:\tZ" in machine.read_text(f"/proc/{child}/status")

    assert until(ended), "the child outlived its parent"


def test_limits_come_from_the_environment(monkeypatch):
    assert isolation.Limits.from_environment(60).seconds == 60
    monkeypatch.setenv("EDGESMITH_MAX_SECONDS", "5")
    monkeypatch.setenv("EDGESMITH_MAX_BYTES", "1e9")
    assert isolation.Limits.from_environment(None) == isolation.Limits(5.0, 10**9)
    for wrong in ("-1", "many", "0", "inf", "nan"):
        monkeypatch.setenv("EDGESMITH_MAX_BYTES", wrong)
        with pytest.raises(UsageError, match="EDGESMITH_MAX_BYTES is not a limit; got .*; expected a positive number"):
            isolation.Limits.from_environment(None)


def test_a_crash_of_a_command_is_one_line(tmp_path):
    """A graph that makes far more than the memory allowed is refused in one line, by a command as users call it."""
    import numpy as np
    import onnx

    from support.graphs import model

    made = model("(float[1] x) => (float[N] y) { y = Expand (x, n) }", {"n": np.array([2**40])})
    onnx.save(made, tmp_path / "in.onnx")
    done = subprocess.run(
        [sys.executable, "-m", "edgesmith", "optimize", str(tmp_path / "in.onnx"), "-o", str(tmp_path / "out.onnx")],
        capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, "EDGESMITH_MAX_BYTES": str(3 << 30)},
    )  # fmt: skip
    assert done.returncode in (1, 3)
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"in.onnx", "out.onnx"}


def test_the_ledger_names_work_folders(tmp_path):
    with (tmp_path / "ledger").open("wb") as ledger:
        files.write_down(ledger.fileno())
        try:
            with files.workplace(tmp_path / "x") as place:
                assert (tmp_path / "ledger").read_bytes() == os.fsencode(place.parent) + b"\0"
        finally:
            files.write_down(-1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGSEGV])
def test_a_signal_from_outside_is_no_crash(number):
    message = str(isolation.Ended(128 + number, number).error("`edgesmith run`", isolation.Limits()))
    outside = number != signal.SIGSEGV
    assert ("was stopped; got SIG" in message) is outside
    assert ("crashed" in message) is not outside


def test_a_command_writes_to_a_terminal_that_stops_the_background():
    """`stty tostop`: the child is a group of its own, which the terminal would stop at its first line."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    body = (
        "import termios; a = termios.tcgetattr(1); a[3] |= termios.TOSTOP; termios.tcsetattr(1, termios.TCSANOW, a)\n"
    )
    body += "print(run_isolated(lambda: (print('written', flush=True), 3)[1], Limits()).code, flush=True)"
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, "-c", IMPORTS + body])
    text = b""
    with contextlib.suppress(OSError):  # the terminal is gone with its last process
        while block := os.read(terminal, 1 << 12):
            text += block
    os.waitpid(child, 0)
    os.close(terminal)
    assert (termios.TOSTOP > 0, text.split()) == (True, [b"written", b"3"])


CLOSED = [(0,), (1,), (2,), (0, 1, 2)]


@pytest.mark.parametrize("closed", CLOSED, ids=str)
@pytest.mark.parametrize(
    "words", [["models", "lenet5", "--json"], ["verify", "b", "--threads", "1"]], ids=lambda w: w[0]
)
def test_closed_standard_streams_change_no_answer_and_no_file(words, closed, tmp_path):
    """A file that is opened next would get the number of standard output, and what is printed."""
    colour_bundle(tmp_path / "b")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    command = [sys.executable, "-m", "edgesmith", *words]
    code = f"import os\nfor one in {closed}: os.close(one)\nos.execv({sys.executable!r}, {command!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "rror" in done.stderr) == (0, False), done.stderr
    assert bool(done.stdout) is (1 not in closed)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "words",
    [["models", "lenet5"], ["models", "lenet5", "--json"], ["verify", "b"], ["--help"], ["--version"]],
    ids=" ".join,
)
def test_a_full_standard_output_is_one_plain_line(words, unbuffered, tmp_path):
    """In the process itself and in the child of a command on foreign files; click's own output too."""
    colour_bundle(tmp_path / "b")
    command = [sys.executable, "-m", "edgesmith", *words]
    with FULL.open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONUNBUFFERED": unbuffered})  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: standard output cannot be written; got No space left on device; do: ")
    assert done.returncode == 1


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(("words", "code"), [(["models", "lenet5"], 0), (["verify", "b"], 0), (["run", "nothing"], 2)])
def test_a_full_standard_error_changes_no_answer(words, code, tmp_path):
    colour_bundle(tmp_path / "b")
    command = [sys.executable, "-m", "edgesmith", *words]
    with FULL.open("w") as full:
        done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=full, text=True)
    assert (done.returncode, bool(done.stdout)) == (code, code == 0)
