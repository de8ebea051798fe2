"""What is not ours to change: bodies of If, Loop and Scan, local functions, known operator names of other domains."""

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

from support.graphs import batchnorm, model, ops
from support.sound import TARGETS, sound

f32, i64 = np.float32, np.int64
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}
CB = "c = Conv(x, w) d = BatchNormalization(c, g, b, m, v)"
IF = "If(p)<then_branch = t () => ({kind} o) {{ {yes} }}, else_branch = e () => ({kind} q) {{ {no} }}>"
FOUR = "float[1,4,6,6]"


def either(kind, yes, no):
    return IF.format(kind=kind, yes=yes, no=no)


BODIES = {
    "If reads the Conv's output": (
        f"(float[1,3,8,8] x, bool p) => ({FOUR} y, {FOUR} z)"
        f" {{ {CB} y = Relu(d) z = {either(FOUR, 'o = Identity(c)', 'q = Neg(c)')} }}",
        W | BN, ["BatchNormalization", "Conv", "If", "Relu"],
    ),
    "If reads the weights": (
        f"(float[1,3,8,8] x, bool p) => ({FOUR} y, float[4,3,3,3] z)"
        f" {{ {CB} y = Relu(d) z = {either('float[4,3,3,3]', 'o = Identity(w)', 'q = Neg(w)')} }}",
        W | BN, ["Conv", "If", "Relu"],
    ),
    "If reads what a Dropout and an Identity pass on": (
        f"(float[1,3,8,8] x, bool p) => ({FOUR} z)"
        f" {{ {CB} i = Identity(d) j = Dropout(i) z = {either(FOUR, 'o = Add(i, j)', 'q = Sub(j, d)')} }}",
        W | BN, None,
    ),
    "If reads one of two equal nodes": (
        f"(float[4] x, bool p) => (float[4] y, float[4] z) {{ a = Sin(x) b = Sin(x) y = Add(a, b)"
        f" z = {either('float[4]', 'o = Neg(a)', 'q = Neg(b)')} }}",
        {}, None,
    ),
    "If reads an outer shuffle": (
        "(float[1,3,2,2] x, bool p) => (float[1,2,2,2] y, float[1,4,2,2] z) { c = Conv(x, u) a = Reshape(c, s)"
        " b = Transpose<perm=[0,2,1,3,4]>(a) d = Reshape(b, t) y = Conv(d, r)"
        f" z = {either('float[1,4,2,2]', 'o = Relu(d)', 'q = Neg(c)')} }}",
        {"u": (4, 3, 1, 1), "r": (2, 4, 1, 1), "s": i64([1, 2, 2, 2, 2]), "t": i64([1, 4, 2, 2])}, None,
    ),
    "a body with names of its own": (
        f"(float[1,3,8,8] x, bool p) => ({FOUR} z)"
        f" {{ {CB} z = {either(FOUR, 'r = Relu(d) o = Identity(r)', 'r = Neg(d) s = Identity(r) q = Identity(s)')} }}",
        W | BN, ["Conv", "If"],
    ),
    "a condition that is constant": (
        f"(float[4] x) => (float[4] y) {{ p = Constant<value = bool {{1}}>() a = Relu(x)"
        f" y = {either('float[4]', 'o = Sin(a)', 'q = Neg(a)')} }}",
        {}, None,
    ),
    "Loop reads and carries": (
        "(float[4] x) => (float[4] y) { a = Identity(x) r = Relu(a) s = Clip(r, , h)"
        " y = Loop(n, yes, a)<body = l (int64 i, bool cond, float[4] u) => (bool go, float[4] w)"
        " { go = Identity(cond) v = Add(u, s) w = Add(v, r) }> }",
        {"h": f32(6), "n": i64(3), "yes": np.array(True)}, None,
    ),
    "Scan reads from outside": (
        "(float[3,4] x) => (float[4] y, float[3,4] z) { k = Neg(one) a = Identity(x)"
        " y, z = Scan<num_scan_inputs=1, body = l (float[4] u, float[4] v) => (float[4] w, float[4] o)"
        " { t = Add(u, v) w = Mul(t, k) o = Identity(w) }>(k, a) }",
        {"one": (4,)}, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_a_body(name, tmp_path):
    text, weights, expected = BODIES[name]
    sound(model(text, weights), tmp_path, expected, **TARGETS["ort-x86"])


# A local function of the name of a standard operator that does something else: (graph, function, weights, left)
NAMESAKES = {
    "Conv": (
        "c = custom.Conv(x, w) y = BatchNormalization(c, g, b, m, v)", "(a, k) => (o) { s = Conv(a, k) o = Exp(s) }"
    ),
    "BatchNormalization": (
        "c = Conv(x, w) y = custom.BatchNormalization(c, g, b, m, v)",
        "(a, g, b, m, v) => (o) { o = BatchNormalization(a, b, g, m, v) }",
    ),
    "Relu": ("c = Conv(x, w) d = custom.Relu(c) y = Clip(d, n, h)", "(a) => (o) { o = Sin(a) }"),
    "Clip": ("c = Conv(x, w) d = custom.Clip(c, n, h) y = Relu(d)", "(a, n, h) => (o) { o = Sin(a) }"),
    "Identity": ("c = Conv(x, w) d = custom.Identity(c) y = Relu(d)", "(a) => (o) { o = Sin(a) }"),
    "Dropout": ("c = Conv(x, w) y = custom.Dropout(c)", "(a) => (o) { o = Sin(a) }"),
    "Mul": ("c = Conv(x, w) y = custom.Mul(c, s)", "(a, k) => (o) { p = Mul(a, k) o = Sin(p) }"),
    "Pad": ("d = custom.Pad(x, p) y = Conv(d, w)", "(a, k) => (o) { p = Sin(a) o = Identity(p) }"),
    "Transpose": (
        "c = Conv(x, w) d = custom.Transpose<perm=[0,1,3,2]>(c) y = Transpose<perm=[0,1,3,2]>(d)",
        "<perm> (a) => (o) { s = Sin(a) o = Transpose<perm : ints = @perm>(s) }",
    ),
    "Slice": (
        "c = Conv(x, w) d = custom.Slice(c, i0, i2, i1) e = Slice(c, i2, i4, i1) y = Concat<axis=1>(e, d)",
        "(a, s, e, x) => (o) { p = Slice(a, s, e, x) o = Sin(p) }",
    ),
    "Concat": (
        "c = Conv(x, w) d, e = Split<axis=1>(c, two) i = custom.Concat<axis=1>(e, d) y = Relu(i)",
        "<axis> (a, e) => (o) { p = Concat<axis : int = @axis>(e, a) o = Sin(p) }",
    ),
    "Mean": ("c = Conv(x, w) d = custom.Mean(c) y = Relu(d)", "(a) => (o) { o = Sin(a) }"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMESAKES)
def test_a_namesake_of_another_domain(name, tmp_path):
    text, function = NAMESAKES[name]
    weights = W | BN | {"n": f32(0), "h": f32(0.5), "s": (4, 1, 1), "p": i64([0] * 8), "two": i64([2, 2])}
    weights |= {f"i{index}": i64([index]) for index in (0, 1, 2, 4)}
    made = model(f"(float[1,3,8,8] x) => (float[1,4,6,6] y) {{ {text} }}", weights)
    read = {item for node in made.graph.node for item in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in read]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    made.functions.append(onnx.parser.parse_function(f'<domain: "custom", opset_import: ["" : 18]> {name} {function}'))
    after = sound(made, tmp_path)
    assert any(node.domain == "custom" for node in after.graph.node)
    assert list(after.functions) == list(made.functions)


def test_an_overload_is_called_still(tmp_path):
    made = model(
        "(float[4] x) => (float[4] y) { a = Identity(x) b = custom.F(a) c = custom.F(b) y = Identity(c) }", ir=10
    )
    for node, (overload, body) in zip(made.graph.node[1:3], (("one", "Sin"), ("two", "Exp")), strict=True):
        node.overload = overload
        text = f'<domain: "custom", opset_import: ["" : 18]> F (i) => (o) {{ o = {body}(i) }}'
        function = onnx.parser.parse_function(text)
        function.overload = overload
        made.functions.append(function)
    after = sound(made, tmp_path)
    assert [(node.op_type, node.overload) for node in after.graph.node] == [("F", "one"), ("F", "two")]


def test_the_standard_domain_by_its_other_name(tmp_path):
    made = model(
        "(float[1,3,8,8] x) => (float[1,4,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }", W | BN
    )
    for node in made.graph.node:
        node.domain = "ai.onnx"
    for entry in made.opset_import:
        entry.domain = entry.domain or "ai.onnx"
    sound(made, tmp_path, ["Conv"])


def test_defaults_that_may_be_fed(tmp_path):
    """Weights, bounds, pads and statistics that the caller may replace are no constants."""
    text = (
        "(float[1,3,8,8] x, float[4,3,3,3] w, float[4] g, float h, int64[8] p, float[4,1,1] s) => (float[] y)"
        " { a = Pad(x, p) c = Conv(a, w) d = BatchNormalization(c, g, b, m, v) e = Mul(d, s) f = Relu(e)"
        " y = Clip(f, , h) }"
    )
    weights = W | BN | {"h": f32(0.5), "p": i64([0] * 8), "s": (4, 1, 1)}
    after = sound(model(text, weights), tmp_path)
    assert ops(after) == ["BatchNormalization", "Clip", "Conv", "Mul", "Pad", "Relu"]
    sound_inputs = [value.name for value in after.graph.input]
    assert sound_inputs == ["x", "w", "g", "h", "p", "s"]


def test_an_input_without_a_shape(tmp_path):
    made = model("(float[] x) => (float[] y) { a = Mul(x, s) b = Relu(a) c = Flatten(b) y = Reshape(c, t) }",
                 {"s": (3, 1, 1), "t": i64([-1])})  # fmt: skip
    from edgesmith.optimize.optimizer import optimize

    onnx.save(made, tmp_path / "source.onnx")
    optimize(tmp_path / "source.onnx", tmp_path / "result.onnx", verify=False)
    assert {"Mul", "Relu"} <= set(ops(tmp_path / "result.onnx"))
