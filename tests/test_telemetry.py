"""Nobody is told anything: no library that we load leaves a file under HOME or TMPDIR, or opens a socket.

Asked of each way into a library, in a process of its own with an empty home. Sockets are seen by Python's own audit
events, and by strace (native code, and processes that a library starts) where it is installed and may trace.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.bundles import colour_bundle, colour_net
from support.patience import PATIENCE_S

WATCHED = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
AUDIT = """import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        print("SOCKET", event, arguments[-2:], file=sys.stderr)
sys.addaudithook(hook)
"""
ANSWER = "with load(sys.argv[1], {}) as model: model(np.zeros((16, 16, 3), np.uint8)).top(1)"
USES = {
    "load and answer": "import numpy as np; from edgesmith.runtime import load\n" + ANSWER.format("'ort'"),
    "load and answer, auto": "import numpy as np; from edgesmith.runtime import load\n" + ANSWER.format("'auto'"),
    "load and answer, openvino": "import numpy as np; from edgesmith.runtime import load\n"
    + ANSWER.format("'openvino'"),
    "verify": "from edgesmith.runtime import bundle; assert bundle.verify(sys.argv[1]).passed",
    "need openvino": "from edgesmith.runtime.common.packages import need; need('openvino')",
    "a measuring process": "from edgesmith.bench.measure.process import Process\n"
    "from edgesmith.bench.measure.workload import BenchTarget\n"
    "with Process(BenchTarget(sys.argv[1], 'colours-fp32', 'openvino')) as process: process.ask('warm', most_s=0.01)",
    "optimize": "sys.argv[1:] = ['optimize', sys.argv[2], '-o', sys.argv[2] + '.out']\n"
    "from edgesmith.cli import main; main(standalone_mode=False)",
}
INTERNET = re.compile(r"socket\(AF_INET|connect\(.*(AF_INET|nscd)")


def may_trace() -> bool:
    command = ["strace", "-f", "-e", "trace=connect", "true"]
    return bool(shutil.which("strace")) and subprocess.run(command, capture_output=True).returncode == 0


def traces(program: str, folder: Path, *arguments: object, **variables: str) -> list[str]:
    """Run a program in an empty home; return the files it left there but for our own cache, and its sockets."""
    places = {name: folder / name.lower() for name in WATCHED}
    for place in places.values():
        place.mkdir(parents=True)
    log, strace = folder / "trace.log", []
    if may_trace():
        strace = ["strace", "-f", "-qq", "-e", "trace=socket,connect,sendto", "-o", str(log)]
    command = [*strace, sys.executable, "-c", AUDIT + program, *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], **{name: str(place) for name, place in places.items()}, **variables}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr[-800:]
    ours = places["XDG_CACHE_HOME"] / "edgesmith"
    found = [path for place in places.values() for path in place.rglob("*") if path.is_file()]
    left = [str(path.relative_to(folder)) for path in found if ours not in path.parents]
    said = [line for line in done.stderr.splitlines() if line.startswith("SOCKET")]
    native = [line for line in log.read_text().splitlines() if INTERNET.search(line)] if log.exists() else []
    return [*left, *said, *native]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("bundle") / "colours").folder


@pytest.mark.parametrize("use", USES)
def test_nothing_is_told(use, bundle, tmp_path):
    if "openvino" in USES[use]:
        pytest.importorskip("openvino")
    net = colour_net(tmp_path / "net.onnx", 1)
    assert traces(USES[use], tmp_path / "empty", bundle, net) == []


PLANTED = {
    "a file at home": ("import pathlib; pathlib.Path.home().joinpath('id').write_text('me')", "home/id"),
    "a temporary file": ("import os; open(os.environ['TMPDIR'] + '/.ses', 'w')", "tmpdir/.ses"),
    "a socket": (
        "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))", "SOCKET socket.connect",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_what_tells_is_found(case, tmp_path):
    program, trace = PLANTED[case]
    assert [line[: len(trace)] for line in traces(program, tmp_path / "empty")][:1] == [trace]


@pytest.mark.skipif(not may_trace(), reason="strace is not here, or may not trace")
def test_a_socket_of_a_process_that_is_started_is_found(tmp_path):
    code = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    found = traces(f"import subprocess; subprocess.run([sys.executable, '-c', {code!r}])", tmp_path / "empty")
    assert any("AF_INET" in line for line in found)


SAID = {"nothing": ({}, "1"), "on": ({"ORT_DISABLE_TELEMETRY": "0"}, "0"), "off": ({"ORT_DISABLE_TELEMETRY": "1"}, "1")}


@pytest.mark.parametrize("case", SAID)
def test_who_sets_it_is_obeyed(case, tmp_path):
    variables, value = SAID[case]
    program = f"import os, edgesmith.runtime; assert os.environ['ORT_DISABLE_TELEMETRY'] == {value!r}"
    assert traces(program, tmp_path / "empty", **variables) == []
