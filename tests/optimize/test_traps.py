"""Graphs made to be fused wrongly: each must compute the same, keep its interface and come to rest, without checking.

The first table names the nodes that may be left, where that matters; the others only demand that nothing changes.
"""

import numpy as np
import pytest

from support.graphs import batchnorm, model
from support.sound import TARGETS, sound

f32, f16, f64, i64 = np.float32, np.float16, np.float64, np.int64
BN = batchnorm(4)
BN2 = batchnorm(4, "GBMV", seed=7)
W = {"w": (4, 3, 3, 3)}
X = "(float[N,3,8,8] x)"

# name -> (graph, weights, node types expected or None, opset)
SHARING = {
    "weights shared by two Convs with a BN each": (
        f"{X} => (float[N,4,6,6] y, float[N,4,6,6] z) {{ a = Conv(x, w, k) y = BatchNormalization(a, g, b, m, v)"
        " b2 = Conv<strides=[1,1]>(x, w, k) z = BatchNormalization(b2, G, B, M, V) }",
        W | BN | BN2 | {"k": (4,)}, ["Conv", "Conv"],
    ),
    "weights that are added elsewhere": (
        "(float[4,3,3,3] x) => (float[4,4,1,1] y, float[4,3,3,3] z)"
        " { a = Conv(x, w) y = BatchNormalization(a, g, b, m, v) z = Add(x, w) }",
        W | BN, ["Add", "Conv"],
    ),
    "two BNs after one Conv": (
        f"{X} => (float[N,4,6,6] y, float[N,4,6,6] z) {{ a = Conv(x, w) y = BatchNormalization(a, g, b, m, v)"
        " z = BatchNormalization(a, G, B, M, V) }",
        W | BN | BN2, ["BatchNormalization", "BatchNormalization", "Conv"],
    ),
    "one tensor as data and as scale": (
        "(float[4] x, float[N,4,2,2] u) => (float[N,4,2,2] y) { y = BatchNormalization(u, x, b, m, v) }",
        {key: BN[key] for key in "bmv"}, ["BatchNormalization"],
    ),
    "a Conv whose weights are made of its input": (
        "(float[4,4,3,3] x) => (float[4,4,1,1] y) { c = Mul(x, s) y = Conv(c, c) }",
        {"s": (4, 1, 1)}, ["Conv", "Mul"],
    ),
    "a Conv added to itself after a scale": (
        f"{X} => (float[N,4,6,6] y) {{ c = Conv(x, w) d = Mul(c, s) y = Add(c, d) }}",
        W | {"s": (4, 1, 1)}, ["Add", "Conv", "Mul"],
    ),
    "parameters that are graph outputs": (
        f"{X} => (float[N,4,6,6] y, float[4,3,3,3] w, float[4] g)"
        " { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }",
        W | BN, ["Conv"],
    ),
    "three names for one tensor": (
        "(float[4] x) => (float[4] y, float[4] z, float[4] u)"
        " { a = Relu(x) y = Identity(a) z = Identity(y) u = Dropout(z) }",
        {}, None,
    ),
    "an output that another output is made of": (
        f"{X} => (float[N,4,6,6] c, float[N,4,6,6] y) {{ c = Conv(x, w) d = Identity(c) y = Relu(d) }}",
        W, ["Conv", "Relu"],
    ),
    "an output in the middle of a chain of Clips": (
        "(float[4] x) => (float[4] b, float[4] y) { a = Relu(x) b = Min(a, h) c = Max(b, l) y = Relu(c) }",
        {"h": f32(0.5), "l": f32(0.1)}, None,
    ),
    "nodes of one name": (
        f"{X} => (float[N,4,6,6] y) {{ [n] c = Conv(x, w) [n] d = BatchNormalization(c, g, b, m, v) [n] y = Relu(d) }}",
        W | BN, ["Conv", "Relu"],
    ),
    "nodes without a name": (
        f'{X} => (float[N,4,6,6] y) {{ [""] c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }}',
        W | BN, ["Conv"],
    ),
}  # fmt: skip

BROADCASTS = {
    "a scale that makes one channel three": (
        "(float[N,1,8,8] x) => (float[N,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }",
        W | {"s": (3, 1, 1)}, ["Conv", "Mul"],
    ),
    "a mean that makes one channel three": (
        "(float[N,1,8,8] x) => (float[N,4,6,6] y) { a = Sub(x, s) y = Conv(a, w) }",
        W | {"s": (1, 3, 1, 1)}, ["Conv", "Sub"],
    ),
    "a scale that adds the batch dimension": (
        "(float[3,8,8] x) => (float[1,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }",
        W | {"s": (1, 3, 1, 1)}, ["Conv", "Mul"],
    ),
    "a scalar of four dimensions that adds one": (
        "(float[3,8,8] x) => (float[1,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }",
        W | {"s": (1, 1, 1, 1)}, ["Conv", "Mul"],
    ),
    "a scale of a vector before Gemm": (
        "(float[3] x) => (float[1,4] y) { a = Mul(x, s) y = Gemm(a, w) }",
        {"w": (3, 4), "s": (1, 3)}, ["Gemm", "Mul"],
    ),
    "a scale that makes one row many": (
        "(float[1,3] x) => (float[5,4] y) { a = Mul(x, s) y = Gemm(a, w) }",
        {"w": (3, 4), "s": (5, 1)}, ["Gemm", "Mul"],
    ),
    "a bias that makes one channel of a Conv four": (
        "(float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w) y = Add(c, t) }",
        {"w": (1, 3, 3, 3), "t": (4, 1, 1)}, ["Add", "Conv"],
    ),
    "a bias that makes one row of a Gemm five": (
        "(float[1,3] x) => (float[5,4] y) { c = Gemm(x, w) y = Add(c, t) }",
        {"w": (3, 4), "t": (5, 4)}, ["Add", "Gemm"],
    ),
    "a product whose constant adds a dimension": (
        "(float[5,3] x) => (float[1,5,4] y) { c = MatMul(x, w) y = Add(c, t) }",
        {"w": (3, 4), "t": (1, 1, 4)}, ["Add", "MatMul"],
    ),
    "zero that adds a dimension": (
        "(float[3] x) => (float[1,3] y) { y = Add(x, z) }", {"z": np.zeros((1, 1), f32)}, ["Add"],
    ),
    "six of another rank": (
        "(float[4] x) => (float[1,4] y) { a = Relu(x) y = Min(a, h) }", {"h": f32([[6]])}, ["Min", "Relu"],
    ),
    "six once per channel": (
        "(float[2,3] x) => (float[2,3] y) { a = Max(x, l) y = Min(h, a) }",
        {"l": f32([[0]]), "h": f32([0.5, 0.5, 0.5])}, None,
    ),
    "bounds of another rank in a row": (
        "(float[2,3] x) => (float[1,2,3] y) { a = Min(x, h) y = Max(a, l) }", {"h": f32([6]), "l": f32([[[0]]])}, None,
    ),
    "a HardSwish that widens": (
        "(float[4] x) => (float[1,4] y) { a = Add(x, t) b = Clip(a, z, s) c = Mul(x, b) y = Div(c, q) }",
        {"t": f32(3), "z": f32(0), "s": f32(6), "q": f32([[6]])}, None,
    ),
    "a Sum of broadcast inputs": (
        "(float[2,3] x, float[3] u) => (float[2,3] y) { a = Sum(x, u) b = Sum(a) y = Mean(b) }", {}, ["Sum"],
    ),
    "Expand that widens one dimension": (
        "(float[1,3] x) => (float[2,3] y) { a = Expand(x, s) y = Relu(a) }", {"s": i64([2, 1])}, ["Expand", "Relu"],
    ),
    "Expand that widens nothing": (
        "(float[N,3] x) => (float[N,3] y) { a = Expand(x, s) y = Relu(a) }", {"s": i64([1, 3])}, ["Relu"],
    ),
}  # fmt: skip

TRANSPOSED = {
    name: (
        f"(float[N,{channels},5,5] x) => (float[] y) {{ c = ConvTranspose<{attributes}>(x, w{bias})"
        " d = BatchNormalization(c, g, b, m, v) e = Mul(d, s) y = Add(e, t) }",
        {"w": (channels, 4 // group, 3, 3), "k": (4,), "s": (4, 1, 1), "t": (1, 4, 1, 1)} | BN,
        ["ConvTranspose"],
    )
    for name, channels, group, attributes, bias in (
        ("plain", 3, 1, "strides=[2,2]", ""),
        ("with a bias", 3, 1, "strides=[2,2]", ", k"),
        ("output_padding", 3, 1, "strides=[2,2], output_padding=[1,1]", ", k"),
        ("output_shape", 3, 1, "strides=[2,2], output_shape=[10,12]", ", k"),
        ("dilated, asymmetric pads", 3, 1, "dilations=[2,1], pads=[1,0,2,1]", ""),
        ("two groups of one and a half", 6, 2, "group=2, strides=[2,1]", ", k"),
        ("depthwise", 4, 4, "group=4", ", k"),
        ("auto_pad", 3, 1, 'auto_pad="SAME_UPPER", strides=[2,2]', ""),
    )
}

GEMMS = {
    f"{before and 'scaled, '}alpha {alpha}, beta {beta}, transA {a}, transB {b}, bias {bias}": (
        f"(float[{'3,5' if a else '5,3'}] x) => (float[5,4] y) {{ {before} c ="
        f" Gemm<alpha={alpha}, beta={beta}, transA={a}, transB={b}>({'u' if before else 'x'}, w{', k' if bias else ''})"
        " d = BatchNormalization(c, g, b, m, v) e = Mul(d, s) y = Add(e, t) }",
        {"w": (4, 3) if b else (3, 4), "s": (4,), "t": (1, 4), "p": (3,) if not a else (1, 5)} | BN
        | ({"k": bias} if bias else {}),
        None if before else ["Gemm"],
    )
    for before in ("", "r = Mul(x, p) u = Add(r, p)")
    for alpha, beta, a, b, bias in (
        (0.5, 2.0, 0, 0, (4,)), (2.0, 0.5, 1, 0, (5, 1)), (1.0, 0.0, 0, 1, (1, 4)), (0.5, 1.0, 1, 1, ()),
        (0.25, 3.0, 0, 1, (5, 4)), (3.0, 2.0, 0, 0, None),
    )
}  # fmt: skip

TABLES = {"sharing": SHARING, "broadcast": BROADCASTS, "transposed": TRANSPOSED, "gemm": GEMMS}
CASES = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", CASES)
def test_a_trap(name, target, tmp_path):
    text, weights, expected, *rest = CASES[name]
    sound(model(text, weights, *rest), tmp_path, expected, **TARGETS[target])
