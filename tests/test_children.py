"""No Python process that we start imports from the folder it is started in: each is started in a poisoned one."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from experiments import optimizer_peers, zoo_table

from edgesmith.bench.measure.process import Process
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.runtime.common import child_process
from edgesmith.runtime.engines import build
from edgesmith.runtime.errors import EdgesmithError
from support.bundles import colour_net
from support.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("numpy", "json", "random", "edgesmith", "runpy", "importlib", "click", "onnx", "onnxruntime", "torch",
         "socket", "struct", "pickle", "subprocess", "tempfile", "warnings", "encodings", "sitecustomize")  # fmt: skip


@pytest.fixture
def poisoned(tmp_path, monkeypatch):
    """Stand in a folder whose modules leave a marker when they are imported; return what gives the markers."""
    place, markers = tmp_path / "pull-request", tmp_path / "markers"
    place.mkdir()
    markers.mkdir()
    for name in NAMES:
        (place / f"{name}.py").write_text(f"open({str(markers / name)!r}, 'w')\nraise SystemExit('poisoned: {name}')\n")
    monkeypatch.chdir(place)
    for name in ("PYTHONPATH", "PYTHONSAFEPATH"):
        monkeypatch.setenv(name, "")  # so that it is put back even where it was not set
        monkeypatch.delenv(name)
    return lambda: sorted(path.name for path in markers.iterdir())


def ran(command: list[str], **others) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, **others)
    assert done.returncode == 0, done.stderr[-600:]
    return done.stdout


def test_the_poison_works(poisoned):
    """What was done before: `-m` and `-c` import out of the working directory (not json: coverage has it by then)."""
    subprocess.run([sys.executable, "-c", "import click"], capture_output=True)
    subprocess.run([sys.executable, "-m", "edgesmith.bench.measure.worker"], capture_output=True, input=b"")
    assert {"click", "edgesmith"} <= set(poisoned())


def test_the_measuring_process(poisoned, tmp_path):
    (tmp_path / "work.py").write_text("import beside\ndef setup():\n    return beside.call\n")
    (tmp_path / "beside.py").write_text("def call():\n    pass\n")
    for path in (colour_net(tmp_path / "net.onnx", 1), tmp_path / "work.py"):
        with Process(BenchTarget(str(path))) as process:
            assert process.ask("warm", most_s=0.01)["calls"]
    assert poisoned() == []


def test_the_build_of_an_engine(poisoned, tmp_path):
    colour_net(tmp_path / "net.onnx", 1)
    with pytest.raises(EdgesmithError) as caught:  # asked of no TensorRT: the child is reached, wherever this runs
        build._in_child(
            {"onnx": str(tmp_path / "net.onnx"), "flavour": "none", "module": "none", "sm": "8.6"}, 60, None
        )
    assert "poisoned" not in str(caught.value)
    assert poisoned() == []


def test_a_row_of_the_zoo(poisoned, tmp_path):
    out = tmp_path / "zoo"
    assert zoo_table._child("no such network", out, (), 60)
    assert "unknown" in (out / "no such network.json").read_text()
    assert poisoned() == []


def test_the_peers(poisoned, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(optimizer_peers, "environment", lambda folder: Path(sys.executable))
    monkeypatch.setattr(
        optimizer_peers, "row", lambda model, tool, command, *_, **__: commands.append(command) or skipped(tool)
    )
    source = tmp_path / "in.onnx"
    onnx.save(onnx.parser.parse_model(optimizer_peers.ONE), source)
    list(optimizer_peers.compare(tmp_path / "out", [source], speed=False))
    ours = next(command for command in commands if "optimize" in command)
    copy = commands[0]
    for command in (copy, ours):
        ran(command)
        assert (tmp_path / "out" / "rows" / "in" / "result.onnx").exists()
        (tmp_path / "out" / "rows" / "in" / "result.onnx").unlink()
    assert ran(child_process.code(optimizer_peers.EXPORT.partition(" torch;")[0] + " sys; print('here')")) == "here\n"
    assert ran(child_process.isolated("-S", "-c", optimizer_peers.LAUNCH, "60", str(64 << 30), *copy)).startswith(
        "[0, "
    )
    assert poisoned() == []


def skipped(tool: str) -> optimizer_peers.Row:
    return optimizer_peers.Row("in", tool, None, "skipped", 0, 0, 0)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot be told to leave the working directory out")
def test_the_workers_of_a_cluster_here(poisoned):
    pytest.importorskip("distributed")
    from edgesmith.bench.sweep.cluster import Cluster

    with Cluster() as cluster:
        assert cluster._client.submit(len, "abc").result(timeout=PATIENCE_S) == 3
    assert poisoned() == []


COMMANDS = {
    "bench": ["bench", "{net}", "--processes", "1", "--seconds", "0.05", "--metrics", "latency", "--out", "{out}"],
    "optimize": ["optimize", "{net}", "-o", "{out}"],
    "describe": ["describe", "{net}"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("started", ["as a script", "with -m, cleared"])
def test_the_commands(command, started, poisoned, tmp_path):
    """As CI runs them: the script that pip installs, which stands in a folder of its own."""
    net = colour_net(tmp_path / "net.onnx", 1)
    words = [word.format(net=net, out=tmp_path / "out.json") for word in COMMANDS[command]]
    if started == "as a script":
        (tmp_path / "bin").mkdir()
        script = tmp_path / "bin" / "edgesmith"
        script.write_text("import sys\nfrom edgesmith.cli import main\nsys.exit(main())\n")
        ran([sys.executable, str(script), *words])
        assert poisoned() == []
        return
    for name in ("runpy", "edgesmith", "importlib"):  # found by -m itself, before anything of ours
        Path(f"{name}.py").unlink()
    ran([sys.executable, "-m", "edgesmith", *words])
    assert not set(poisoned()) & {"numpy", "json", "random", "click", "onnx", "onnxruntime"}


def test_the_path_that_a_child_gets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "alias").symlink_to(tmp_path)
    kept = ["/usr/lib/x", str(tmp_path / "lib")]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *kept, str(tmp_path / "alias"), "."])
    for value, path in (("", kept), (os.pathsep, kept), ("lib", kept)):
        monkeypatch.setenv("PYTHONPATH", value)
        assert child_process._path() == path
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # whoever names it means it
    assert child_process._path() == [str(tmp_path), *kept, str(tmp_path / "alias"), "."]


def test_a_source_checkout_and_pythonpath_still_work(tmp_path):
    """The package is found by the place of its files: from a checkout, in any folder, however it was found here."""
    (tmp_path / "checkout").mkdir()
    (tmp_path / "checkout" / "edgesmith").symlink_to(ROOT)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "mine.py").write_text("HERE = 'mine'\n")
    program = tmp_path / "program.py"
    program.write_text(
        "import subprocess, sys; sys.path.insert(0, sys.argv[1]); \n"
        "sys.meta_path[:] = [finder for finder in sys.meta_path if 'Editable' not in repr(finder)]\n"
        "from edgesmith.runtime.common import child_process\n"
        "text = 'import edgesmith.bench.measure.worker, mine, sys; print(mine.HERE, *sys.argv[1:])'\n"
        "print(subprocess.run(child_process.code(text, 'a b'), check=True, stdout=-1, text=True).stdout)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    command = [sys.executable, str(program), str(tmp_path / "checkout")]
    assert ran(command, env=environment, cwd=tmp_path / "checkout").split() == ["mine", "a", "b"]


def interpreters(root: Path) -> list[str]:
    """Return the files of the package that start Python by themselves."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if parts[0] in ("tests", "examples", "docs", "build", ".venv", "site") or parts[-1] == "child_process.py":
            continue
        names = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)]
        if any(node.attr == "executable" and getattr(node.value, "id", "") == "sys" for node in names):
            found.append("/".join(parts))
    return found


def test_python_is_started_in_one_place():
    assert interpreters(ROOT) == []


def test_a_planted_start_of_python_is_found(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "x.py").write_text("import subprocess, sys\nsubprocess.run([sys.executable, '-m', 'json'])\n")
    assert interpreters(tmp_path) == ["bench/x.py"]
