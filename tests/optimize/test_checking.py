"""The check rejects wrong answers, and a wrong rewrite is undone alone and named."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith.cli import main
from edgesmith.optimize import optimizer
from edgesmith.optimize.equivalence import AMPLE, Equivalence, compare, difference
from edgesmith.optimize.optimizer import optimize
from edgesmith.optimize.passes._base import Pass, Rewritten
from edgesmith.runtime.errors import UsageError
from support.graphs import batchnorm, model, ops

ONES = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
WRONG = {
    "twice": 2 * ONES,
    "minus": -ONES,
    "zeros": 0 * ONES,
    "NaN": np.where(ONES > 0.9, np.nan, ONES).astype(np.float32),
    "infinity": np.where(ONES > 0.9, np.inf, ONES).astype(np.float32),
    "another shape": ONES.reshape(4, 3),
    "another type": ONES.astype(np.float64),
    "one element off by a thousandth": ONES + np.float32(1e-3) * (ONES.max() == ONES),
    "turned": ONES[::-1],
}


@pytest.mark.parametrize("name", WRONG)
def test_the_comparer_rejects(name):
    assert difference(ONES, WRONG[name])[1]


def test_the_comparer_accepts_rounding_and_equal_NaN():
    nans = np.where(ONES > 0.9, np.nan, ONES).astype(np.float32)
    assert difference(ONES, ONES * np.float32(1 + 1e-6))[1] == ""
    assert difference(nans, nans) == (0.0, "")
    assert difference(np.array([1, 2]), np.array([1, 3]))[1]
    assert difference(np.array([True]), np.array([False]))[1]
    assert difference([ONES], [ONES, ONES])[1]


CHAIN = "(float[4] x) => (float[4] y) { a = Sin(x) b = Cos(a) c = Sin(b) d = Identity(c) y = Exp(d) }"


def _swap(net, node):
    """Turn the second Sin into Tanh: wrong. Turn every Identity into nothing: right."""
    if node.name == "Sin2":
        node.op = "Tanh"
        return Rewritten(node.name)
    return None


def test_a_wrong_rewrite_is_undone_alone(tmp_path, monkeypatch):
    onnx.save(model(CHAIN), tmp_path / "source.onnx")
    found = optimizer.find
    planted = Pass(_swap, (), "wrong")
    monkeypatch.setattr(optimizer, "find", lambda name: planted if name == "planted" else found(name))
    report = optimize(
        tmp_path / "source.onnx",
        tmp_path / "result.onnx",
        passes=("planted", "drop_identity", "eliminate_common_subexpressions"),
    )
    undone = {entry.name: entry.rolled_back for entry in report.passes if entry.rolled_back}
    assert list(undone) == ["planted"]
    assert undone["planted"][0][0] == "c"
    assert "differs by" in undone["planted"][0][1]
    assert report.check.verdict == "equal"
    assert ops(tmp_path / "result.onnx") == ["Cos", "Exp", "Sin", "Sin"]
    unchecked = optimize(tmp_path / "source.onnx", tmp_path / "wrong.onnx", passes=("planted",), verify=False)
    assert unchecked.check.verdict == "not run"
    assert compare(tmp_path / "source.onnx", tmp_path / "wrong.onnx").verdict == "different"


def _stumble(net, node):
    node.op = "Half done"
    raise KeyError("stumbled")


def _lose(net, node):
    net.drop(node)
    return Rewritten(node.name)


@pytest.mark.parametrize(("wrong", "reason"), [(_stumble, "KeyError: 'stumbled'"), (_lose, "broke the graph")])
def test_a_pass_that_fails_is_left_out(wrong, reason, tmp_path, monkeypatch):
    onnx.save(model(CHAIN), tmp_path / "source.onnx")
    found = optimizer.find
    monkeypatch.setattr(optimizer, "find", lambda name: Pass(wrong, (), "wrong") if name == "planted" else found(name))
    report = optimize(tmp_path / "source.onnx", tmp_path / "result.onnx", passes=("drop_identity", "planted"))
    undone = {entry.name: entry.rolled_back for entry in report.passes if entry.rolled_back}
    assert list(undone) == ["planted"]
    assert reason in undone["planted"][0][1]
    assert report.check.verdict == "equal"
    assert ops(tmp_path / "result.onnx") == ["Cos", "Exp", "Sin", "Sin"]


def test_real_samples_are_compared(tmp_path):
    made = model("(float[N,3,8,8] x) => (float[N,4,8,8] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", {"w": (4, 3, 3, 3)})
    onnx.save(made, tmp_path / "source.onnx")
    samples = [np.ones((5, 3, 8, 8), np.float32), {"x": np.zeros((1, 3, 8, 8), np.float32)}]
    plain = optimize(tmp_path / "source.onnx", tmp_path / "a.onnx")
    with_samples = optimize(tmp_path / "source.onnx", tmp_path / "b.onnx", samples=iter(samples))
    assert with_samples.check.runs == plain.check.runs + 2


def test_unknown_names_are_answered(tmp_path):
    onnx.save(model(CHAIN), tmp_path / "source.onnx")
    with pytest.raises(UsageError, match="did you mean 'openvino'"):
        optimize(tmp_path / "source.onnx", tmp_path / "a.onnx", target="open-vino")
    with pytest.raises(UsageError, match="did you mean 'eliminate_dead_nodes'"):
        optimize(tmp_path / "source.onnx", tmp_path / "a.onnx", passes=("eliminate_dead_node",))


@pytest.fixture
def conv(tmp_path):
    text = "(float[1,3,8,8] x, float[4] m) => (float[1,4,6,6] y) { c = Conv(x, w) d = Dropout(c)"
    text += " y = BatchNormalization(d, g, b, m, v) }"
    weights = batchnorm(4)
    del weights["m"]
    path = tmp_path / "in.onnx"
    onnx.save(model(text, weights | {"w": (4, 3, 3, 3)}), path)
    return path


def test_the_command_explains(conv, tmp_path):
    done = CliRunner().invoke(main, ["optimize", str(conv), "-o", str(tmp_path / "out.onnx"), "--explain"])
    assert done.exit_code == 0, done.output
    for text in ("fuse_batchnorm", "BatchNormalization2", "its mean is not constant", "multiply-adds", "worst error"):
        assert text in done.output


def test_the_command_speaks_json(conv, tmp_path):
    done = CliRunner().invoke(main, ["optimize", str(conv), "-o", str(tmp_path / "out.onnx"), "--json", "--no-verify"])
    report = json.loads(done.output)
    assert (report["before"]["nodes"], report["after"]["nodes"]) == (3, 2)
    assert report["check"]["verdict"] == "not run"


def test_the_command_refuses(tmp_path):
    done = CliRunner().invoke(main, ["optimize", str(tmp_path / "no.onnx"), "-o", str(tmp_path / "out.onnx")])
    assert done.exit_code == 2
    assert "no such file" in done.output
    assert list(tmp_path.iterdir()) == []


def test_multiply_adds_are_counted_behind_shape_arithmetic(tmp_path):
    text = (
        "(float[1,8,6,6] x) => (float[1,4,6,6] y) { s = Shape(x) d = Gather(s, one) h = Div(d, two)"
        " e = Unsqueeze(h, zero) a = Slice(x, zero, e, ones) y = Conv(a, w) }"
    )
    numbers = {"one": 1, "two": 2, "zero": [0], "ones": [1]}
    weights = {name: np.array(value, np.int64) for name, value in numbers.items()} | {"w": (4, 4, 1, 1)}
    onnx.save(model(text, weights), tmp_path / "source.onnx")
    report = optimize(tmp_path / "source.onnx", tmp_path / "result.onnx")
    assert report.before.macs == report.after.macs == 4 * 4 * 6 * 6


def test_a_network_that_amplifies_rounding_is_no_mistake(tmp_path):
    """Last digits of the Conv times ten thousand: the folded file is right, one with another function is not."""
    chaos = "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv(x, w) d = BatchNormalization(c, g, b, m, v)"
    chaos += " e = Mul(d, k) y = Sin(e) }"
    weights = batchnorm(4) | {"w": (4, 3, 3, 3), "k": (6, 6)}
    weights["k"] = np.full((6, 6), 1e4, np.float32)
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    onnx.save(model(chaos, weights), source)
    report = optimize(source, result)
    assert (report.check.verdict, ops(result)) == ("equal", ["Conv", "Mul", "Sin"])
    assert report.check.worst_error > 1e-4
    assert report.check.worst_error <= AMPLE * report.check.rounding
    assert report.check.scale == pytest.approx(1, abs=0.01)
    assert "of values up to 1; noise in the input's last digits changes the source's outputs by" in report.check.error
    onnx.save(model(chaos.replace("Sin", "Cos"), weights), result)
    assert compare(source, result).verdict == "different"


# check -> what is said of its error
ERRORS = {
    "none": (Equivalence("equal"), "worst error 0"),
    "small beside the values": (
        Equivalence("equal", "", 0.51, scale=5100.0), "worst error 0.51 of values up to 5.1e+03",
    ),
    "the network's own": (
        Equivalence("equal", "", 0.51, "y", 5, scale=3.0, rounding=0.9),
        "worst error 0.51 of values up to 3; noise in the input's last digits changes the source's outputs by 0.9",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_stands_beside_what_it_must_be_seen_with(case):
    check, said = ERRORS[case]
    assert check.error == said
