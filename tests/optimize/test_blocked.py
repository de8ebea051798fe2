"""ONNX Runtime's own graph, kept in its blocked layout."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from edgesmith import cli
from edgesmith.optimize import blocked
from edgesmith.optimize.passes import keep_blocked
from edgesmith.optimize.recipes import RECIPES
from edgesmith.optimize.runner import optimize
from edgesmith.optimize.verify import compare
from edgesmith.runtime import nchwc
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import CheckFailed, ModelError, UsageError
from support.blocked_nets import SCALE, net, random_net
from support.graphs import model

pytest.importorskip("onnxruntime")
B = nchwc.block()
pytestmark = pytest.mark.skipif(not B, reason="ONNX Runtime has no blocked layout on this machine")
B = B or 16
HALVES = "l, r = Split<axis = 1>(c, sizes) d = Relu(r) m = Concat<axis = 1>(l, d)"
JOIN = "m = Concat<axis = 1>(c, c1, c2)"


def sizes(*parts):
    return {"sizes": np.array(parts, np.int64)}


LIMITS = {"low": np.float32(-0.3), "high": np.float32(0.7)}
# name: (network, conversions of layout left in the result: one for each output)
KEPT = {
    "squeeze-excite": (net(SCALE, 2 * B), 1),
    "squeeze-excite of a batch": (net(SCALE, 2 * B, batch=2), 1),
    "squeeze-excite, channels no whole blocks": (net(SCALE, 2 * B + 4), 1),
    "squeeze-excite of a batch, no whole blocks": (net(SCALE, B + 4, batch=3), 1),
    "squeeze to whole blocks": (net(SCALE, 2 * B, inner=B), 1),
    "the scaled activation is an output too": (net(SCALE, 2 * B, outputs="m"), 2),
    "what is scaled is an output too": (net(SCALE, 2 * B, outputs="c"), 2),
    "scaled twice": (net(SCALE.replace("m = Mul(c, t)", "n = Mul(c, t) m = Mul(t, n)"), B), 1),
    "the factor first": (net(SCALE.replace("Mul(c, t)", "Mul(t, c)"), B), 1),
    "the greatest of each channel as the factor": (net("d = GlobalMaxPool(c) m = Mul(c, d)", B + 4), 1),
    "Abs": (net("m = Abs(c)", B), 1),
    "Exp of whole blocks": (net("d = Tanh(c) m = Exp(d)", B), 1),
    "Elu": (net("m = Elu(c)", B + 4), 1),
    "three in a row": (net("d = HardSwish(c) e = Abs(d) m = Neg(e)", B + 4), 1),
    "Clip after Abs": (net("d = Abs(c) m = Clip(d, low, high)", B + 4, weights=LIMITS), 1),
    "two readers": (net("d = Abs(c) m = Add(d, c)", B), 1),
    "two readers and an output": (net("d = Abs(c) m = Add(d, c)", B, outputs="d"), 2),
    "a square": (net("d = Abs(c) m = Mul(d, d)", B), 1),
    "Split and Concat": (net(HALVES, 2 * B, weights=sizes(B, B)), 1),
    "Split and Concat of a batch": (net(HALVES, 2 * B, batch=2, weights=sizes(B, B)), 1),
    "Split, the last part no whole block": (net(HALVES, B + 4, weights=sizes(B, 4)), 1),
    "Concat, the last part no whole block": (net(JOIN, B, parts=(B, 4), mid=2 * B + 4), 1),
    "Concat of a batch": (net(JOIN, B, batch=2, parts=(2 * B, 4), mid=3 * B + 4), 1),
}
# name: (network, what the reason says)
LEFT = {
    "nothing between": (net("m = Relu(c)", B), "keeps all of it blocked by itself"),
    "a last pooling": (
        model(
            f"(float[1,3,6,6] x) => (float[1,{B}] y) {{ c = Conv(x, w) p = GlobalAveragePool(c) y = Flatten(p) }}",
            {"w": (B, 3, 1, 1)},
        ),
        "keeps all of it blocked by itself",
    ),
    "Exp where there is padding": (net("d = Abs(c) m = Exp(d)", B + 4), "not finite everywhere"),
    "a bound that is not finite": (
        net("m = Max(c, low)", B + 4, weights={"low": np.float32(-np.inf)}), "constant is not finite",
    ),
    "a constant per channel": (
        net("d = Abs(c) m = Mul(d, k)", B, weights={"k": np.ones((1, B, 1, 1), np.float32)}), "not one number",
    ),
    "Split within a block": (net(HALVES, B + 4, weights=sizes(4, B)), "cuts within a block"),
    "Split of rows": (net("l, d = Split<axis = 2, num_outputs = 2>(c) m = Concat<axis = 2>(l, d)", B), "another axis"),
    "Concat with padding in the middle": (net(JOIN, B, parts=(4, B), mid=2 * B + 4), "before the last"),
    "different shapes": (net("d = ReduceMax<keepdims = 1>(c) m = Mul(c, d)", B), "by itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_stands_between_convolutions_stays_blocked(name, tmp_path):
    source = tmp_path / "net.onnx"
    onnx.save(KEPT[name][0], source)
    kept = blocked.keep(source)
    assert kept.path == tmp_path / f"net.nchwc{B}.onnx"
    assert kept.report.check.verdict == "equal", kept.report.check
    assert not any(entry.rolled_back for entry in kept.report.passes)
    made = onnx.load(kept.path)
    assert sum(node.op_type.startswith("Reorder") for node in made.graph.node) == KEPT[name][1]
    assert (list(made.graph.input), [value.name for value in made.graph.output]) == (
        list(KEPT[name][0].graph.input), [value.name for value in KEPT[name][0].graph.output],
    )  # fmt: skip


@pytest.mark.parametrize("name", LEFT)
def test_what_cannot_stay_blocked_is_left_with_a_reason(name, tmp_path):
    onnx.save(LEFT[name][0], tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=LEFT[name][1]):
        blocked.keep(tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_compute_the_same(seed, tmp_path):
    source, rng = tmp_path / "net.onnx", np.random.default_rng(seed)
    onnx.save(random_net(rng, B), source)
    try:
        kept = blocked.keep(source)
    except ModelError as error:
        if "is gained by keeping it blocked" not in str(error):
            raise
        return
    assert not any(entry.rolled_back for entry in kept.report.passes)
    image = rng.standard_normal(ort.open(source, threads=1).inputs[0].shape).astype(np.float32)
    expected = run(source, image)
    for optimise in (False, True):  # whoever loads it with everything on gets the same
        np.testing.assert_allclose(run(kept.path, image, optimise), expected, 1e-4, 1e-5 * np.abs(expected).max())


def run(path, image, optimise=True):
    with ort.open(path, threads=1, optimise=optimise) as session:
        return session.run({"x": image})["y"]


def test_a_second_run_changes_nothing(tmp_path):
    onnx.save(net(SCALE, B + 4, batch=2), tmp_path / "net.onnx")
    kept = blocked.keep(tmp_path / "net.onnx")
    again = optimize(kept.path, tmp_path / "again.onnx", passes=RECIPES[blocked.RECIPE], block=B)
    assert (again.rewrites, again.check.verdict) == (0, "equal")


TWICE = f"{SCALE.replace('m =', 'n =')} d = Abs(n) k = Conv(d, same) e = Abs(k) m = Neg(e)"


def test_a_wrong_rewrite_is_undone_and_named(tmp_path, monkeypatch):
    form = keep_blocked.form

    def planted(net, node, known):
        build = form(net, node, known)
        if node.op != "Neg" or isinstance(build, str):
            return build

        def wrong(of):
            node.op = "Abs"
            return build(of)

        return wrong

    monkeypatch.setattr(keep_blocked, "form", planted)
    onnx.save(net(TWICE, B, weights={"same": (B, B, 1, 1)}), tmp_path / "net.onnx")
    kept = blocked.keep(tmp_path / "net.onnx")
    undone = [(entry.name, where) for entry in kept.report.passes for where, _ in entry.rolled_back]
    assert {name for name, _ in undone} == {"keep_blocked"}
    assert kept.report.check.verdict == "equal"
    assert compare(tmp_path / "net.onnx", kept.path).verdict == "equal"
    assert "Neg" in [node.op_type for node in onnx.load(kept.path).graph.node]
    assert kept.report.rewrites


def test_what_onnx_runtime_itself_changed_is_compared_too(tmp_path, monkeypatch):
    write = blocked._write_own

    def planted(source, target):
        write(source, target)
        model = onnx.load(target)
        bias = next(item for item in model.graph.initializer if item.dims == [B])
        array = onnx.numpy_helper.to_array(bias) + np.float32(0.5)
        bias.CopyFrom(onnx.numpy_helper.from_array(array, bias.name))
        onnx.save(model, target)

    monkeypatch.setattr(blocked, "_write_own", planted)
    onnx.save(net(SCALE, B), tmp_path / "net.onnx")
    with pytest.raises(CheckFailed, match="differs from the portable file"):
        blocked.keep(tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def quantised():
    return net("s8 = QuantizeLinear(c, step, zero) m = DequantizeLinear(s8, step, zero)", B,
               weights={"step": np.float32(0.1), "zero": np.int8(0)})  # fmt: skip


REFUSED = {
    "a free batch": (lambda: net(SCALE, B, batch="N"), "free dimensions.*--batch 1"),
    "quantised": (quantised, "is quantised; got QuantizeLinear"),
    "no convolution": (lambda: model("(float[2,8] x) => (float[2,8] y) { y = Relu(x) }"), "keeps nothing of"),
    "one-dimensional maps": (
        lambda: model("(float[1,16,9] x) => (float[1,16,9] y) { y = Conv(x, w) }", {"w": (16, 16, 1)}), "keeps nothing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_blocked_form_is_refused(name, tmp_path):
    onnx.save(REFUSED[name][0](), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=REFUSED[name][1]):
        blocked.keep(tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"no protobuf")
    with pytest.raises(ModelError, match="is no ONNX file"):
        blocked.keep(tmp_path / "net.onnx")
    with pytest.raises(UsageError):
        blocked.keep(tmp_path / "other.onnx")


def test_the_contract_stands_in_the_metadata(tmp_path):
    onnx.save(net(SCALE, B), tmp_path / "net.onnx")
    kept = blocked.keep(tmp_path / "net.onnx", tmp_path / "blocked.onnx")
    assert blocked.contract_of(kept.path) == kept.contract == nchwc.contract()
    assert blocked.contract_of(tmp_path / "net.onnx") == {}
    broken = onnx.load(kept.path)
    broken.metadata_props[-1].value = "[1"
    onnx.save(broken, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match="the contract of"):
        blocked.contract_of(tmp_path / "broken.onnx")


def test_on_the_command_line(tmp_path):
    source, result = tmp_path / "net.onnx", tmp_path / "out.onnx"
    onnx.save(net(SCALE, B), source)
    arguments = ["optimize", str(source), "-o", str(result), "--target", "ort-x86", "--blocked"]
    told = CliRunner().invoke(cli.main, arguments)
    assert told.exit_code == 0, told.output
    assert f"block {B}" in told.output
    report = json.loads(CliRunner().invoke(cli.main, [*arguments, "--json"]).output)
    assert report["blocked"]["contract"] == nchwc.contract()
    assert report["blocked"]["report"]["check"]["verdict"] == "equal"
    assert {path.name for path in tmp_path.iterdir()} == {"net.onnx", "out.onnx", f"out.nchwc{B}.onnx"}
    assert compare(source, result).verdict == "equal"
    refused = CliRunner().invoke(cli.main, [*arguments[:4], "--blocked"])
    assert refused.exit_code == 2
    assert "--target ort-x86" in refused.output
