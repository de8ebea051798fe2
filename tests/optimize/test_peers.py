"""The comparison with other optimizers: what it measures of a process, and how it marks a wrong result."""

import sys

import onnx

from edgesmith.optimize import peers, verify
from support.graphs import model

TEXT = "(float[1,4] x) => (float[1,4] y) { a = Identity(x) y = Relu(a) }"
COPY = "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2])"


def rows(tmp_path):
    source, wrong = tmp_path / "source.onnx", tmp_path / "wrong.onnx"
    onnx.save(model(TEXT), source)
    onnx.save(model(TEXT.replace("Relu", "Neg")), wrong)
    expected, result = verify.reference(source), tmp_path / "result.onnx"
    python = [sys.executable, "-c"]
    commands = {
        "copy": [*python, COPY, str(source), str(result)],
        "wrong": [*python, COPY, str(wrong), str(result)],
        "crash": [*python, "raise SystemExit('out of luck')"],
        "ours": [sys.executable, "-m", "edgesmith", "optimize", str(source), "-o", str(result)],
    }
    return {
        tool: peers.row(source, tool, command, result, expected, speed=tool == "copy")
        for tool, command in commands.items()
    }


def test_what_is_measured(tmp_path):
    found = rows(tmp_path)
    assert (found["copy"].nodes, found["copy"].verdict) == (2, "equal")
    assert 0.2 < found["copy"].speed_on < 5
    assert (found["wrong"].nodes, found["wrong"].verdict) == (2, "different")
    assert (found["crash"].nodes, found["crash"].verdict) == (None, "failed: out of luck")
    assert (found["ours"].nodes, found["ours"].verdict) == (1, "equal")
    assert found["ours"].peak_bytes > 20_000_000
    text = peers.markdown(list(found.values()))
    assert "| source | 2 | 2 (different) | failed | 1 |" in text
