"""The comparison with other optimizers: what it measures of a process, and how it marks a wrong result."""

import sys

import onnx
from experiments import optimizer_peers

from edgesmith.optimize import equivalence
from support.graphs import model
from support.patience import PATIENCE_S

TEXT = "(float[1,4] x) => (float[1,4] y) { a = Identity(x) y = Relu(a) }"
COPY = "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])"


def rows(tmp_path):
    source, wrong = tmp_path / "source.onnx", tmp_path / "wrong.onnx"
    onnx.save(model(TEXT), source)
    onnx.save(model(TEXT.replace("Relu", "Neg")), wrong)
    expected, result = equivalence.reference(source), tmp_path / "result.onnx"
    python = [sys.executable, "-c"]
    commands = {
        "copy": [*python, COPY, str(source), str(result)],
        "wrong": [*python, COPY, str(wrong), str(result)],
        "endless": [*python, "import time; time.sleep(600)"],
        "greedy": [*python, "x = bytearray(10**12)"],
        "crash": [*python, "raise SystemExit('out of luck')"],
        "ours": [sys.executable, "-m", "edgesmith", "optimize", str(source), "-o", str(result)],
    }
    return {
        tool: optimizer_peers.row(
            source,
            tool,
            command,
            result,
            expected,
            speed=tool == "copy",
            timeout_s=3 if tool == "endless" else PATIENCE_S,
        )
        for tool, command in commands.items()
    }


def test_what_is_measured(tmp_path):
    found = rows(tmp_path)
    assert (found["copy"].nodes, found["copy"].verdict) == (2, "equal")
    assert 0.2 < found["copy"].speed_on < 5
    assert (found["wrong"].nodes, found["wrong"].verdict) == (2, "different")
    assert (found["crash"].nodes, found["crash"].verdict) == (None, "failed: out of luck")
    assert found["endless"].verdict == "failed: no end after 3 s"
    assert found["greedy"].verdict == "failed: MemoryError"
    assert (found["ours"].nodes, found["ours"].verdict) == (1, "equal")
    assert found["ours"].peak_bytes > 20_000_000
    text = optimizer_peers.markdown(list(found.values()))
    assert "| source | 2 | 2 (different) | failed | failed | failed | 1 |" in text


def test_memory_is_counted_in_sizes_of_the_model_over_that_of_one_node():
    start = optimizer_peers.Row(optimizer_peers.ONE_NODE, "ours", 1, "equal", 0.1, 0.1, 50_000_000, 100)
    big = optimizer_peers.Row("big", "ours", 7, "equal", 1.0, 1.0, 80_000_000, 10_000_000)
    assert "| big | 3.0 |" in optimizer_peers.markdown([start, big])


def test_what_was_measured_is_not_measured_again(tmp_path, monkeypatch):
    monkeypatch.setattr(optimizer_peers, "environment", lambda folder: sys.executable)
    monkeypatch.setattr(optimizer_peers, "TOOLS", {"copy": COPY, "crash": "raise SystemExit('out of luck')"})
    monkeypatch.setattr(optimizer_peers, "OURS", {})
    onnx.save(model(TEXT), tmp_path / "source.onnx")
    files = [tmp_path / "source.onnx"]
    first = list(optimizer_peers.compare(tmp_path, files, speed=False))
    assert [entry.verdict for entry in first[0]] == ["equal", "failed: out of luck"]
    monkeypatch.setattr(
        optimizer_peers, "row", lambda model, tool, *_, **__: optimizer_peers.Row(model.stem, tool, 9, "new", 0, 0, 0)
    )
    assert list(optimizer_peers.compare(tmp_path, files, speed=False)) == first
    anew = list(optimizer_peers.compare(tmp_path, files, speed=False, again="cr"))
    assert [entry.verdict for entry in anew[0]] == ["equal", "new"]
