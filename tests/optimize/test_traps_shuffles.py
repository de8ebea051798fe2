"""Channel shuffles in places where taking them up could go wrong; each graph must compute the same without checking."""

import numpy as np
import pytest

from support.graphs import batchnorm, model
from support.sound import TARGETS, sound

f32, i64 = np.float32, np.int64
TEN = {"target": "ort-x86", "block": 4}


def shuffle(source, result, groups, channels=12, size=4, order="0,2,1,3,4"):
    """Return the nodes of one shuffle and its shapes."""
    split, whole = i64([0, groups, channels // groups, size, size]), i64([0, channels, size, size])
    text = f" {result}_a = Reshape({source}, {result}_s) {result}_b = Transpose<perm=[{order}]>({result}_a)"
    return f"{text} {result} = Reshape({result}_b, {result}_t)", {f"{result}_s": split, f"{result}_t": whole}


WEIGHTS = {
    "w": (12, 3, 1, 1), "v": (5, 12, 1, 1), "u": (12, 12, 1, 1), "k": (12,), "d": (12, 1, 3, 3), "r": (12, 4, 1, 1),
    "half": (6, 3, 1, 1), "s": (12, 1, 1), "halves": i64([6, 6]), "thirds": i64([4, 4, 4]), "h": f32(0.5),
    "p": i64([3, 1, 0, 2, 5, 4, 7, 6, 9, 8, 11, 10]), "q": i64([0, 2, 3]), "many": (6, 24, 1, 1),
    "three": f32(3), "zero": f32(0), "six": f32(6),
    "e": (5, 12), "big": (3, 12, 3, 3),
} | batchnorm(12, "GBMV")  # fmt: skip

# name -> nodes between x (N, 3, 4, 4) and y; {n} marks a shuffle of tensor a into b by n groups.
CASES = {
    "three groups": "a = Conv(x, w) {a>b/3} y = Conv(b, v)",
    "twice, back again": "a = Conv(x, w) {a>b/3} {b>c/4} y = Conv(c, v)",
    "twice, not back": "a = Conv(x, w) {a>b/3} {b>c/3} y = Conv(c, v)",
    "of the input of the graph": "z = Concat<axis=1>(x, x, x, x) {z>b/2} y = Conv(b, v)",
    "before a grouped Conv": "a = Conv(x, w) {a>b/2} c = Conv<group=3>(b, r) y = Conv(c, v)",
    "between grouped Convs": "a = Conv(x, w) c = Conv<group=3>(a, r) {c>b/3} e1 = Conv<group=3>(b, r) y = Conv(e1, v)",
    "between grouped and depthwise": "a = Conv(x, w) c = Conv<group=3>(a, r, k) {c>b/3}"
    " e1 = Conv<group=12, pads=[1,1,1,1]>(b, d) f = Conv<group=3>(e1, r) y = Conv(f, v)",
    "before BatchNormalization": "a = Conv(x, w) {a>b/2} c = BatchNormalization(b, G, B, M, V) d1 = Relu(c) y ="
    " Conv(d1, v)",
    "before a scale per channel": "a = Conv(x, w) {a>b/2} c = Mul(b, s) y = Conv(c, v)",
    "before PRelu": "a = Conv(x, w) {a>b/2} c = PRelu(b, s) y = Conv(c, v)",
    "before a classifier": "a = Conv(x, w) {a>b/2} c = GlobalAveragePool(b) f = Flatten(c) z = Gemm<transB=1>(f, e)"
    " y = Relu(z)",
    "and a residual": "a = Conv(x, w) {a>b/2} c = Conv(b, u) z = Add(a, c) y = Conv(z, v)",
    "and a residual of the shuffled": "a = Conv(x, w) {a>b/2} c = Conv(b, u) z = Add(b, c) y = Conv(z, v)",
    "of a sum": "a = Conv(x, w) c = Conv(a, u) z = Add(a, c) {z>b/2} y = Conv(b, v)",
    "one weight on both sides": "a = Conv(x, w) c = Conv(a, u, k) {c>b/2} f = Conv(b, u, k) {f>z/3} y = Conv(z, v)",
    "after depthwise": "a = Conv(x, w) c = Conv<group=12, pads=[1,1,1,1]>(a, d, k) {c>b/2} y = Conv(b, v)",
    "of pooled channels": "a = Conv(x, w) c = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) {c>b/2} y = Conv(b, v)",
    "of a Clip with a variable bound": "a = Conv(x, w) i = ReduceMax<keepdims=0>(a) c = Clip(a, , i) {c>b/2} y"
    " = Conv(b, v)",
    "into halves, one of them twice": "a = Conv(x, w) {a>b/2} l, n = Split<axis=1>(b, halves) o ="
    " Concat<axis=1>(l, n, l, n)"
    " y = Conv(o, many)",
    "into thirds that are summed": "a = Conv(x, w) {a>b/2} l, n, o = Split<axis=1>(b, thirds) s1 = Add(l, n) s2"
    " = Mul(s1, o)"
    " z = Concat<axis=1>(s2, l, n) y = Conv(z, v)",
    "of two branches": "l = Conv(x, half) n = Relu(l) o = Conv(x, half) a = Concat<axis=1>(n, o) {a>b/2}"
    " c, f = Split<axis=1>(b, halves) i = Sigmoid(c) z = Concat<axis=1>(f, i) y = Conv(z, v)",
    "by Gather": "a = Conv(x, w) b = Gather<axis=1>(a, p) c = Relu(b) y = Conv(c, v)",
    "by a Gather that leaves channels out": "a = Conv(x, w) b = Gather<axis=1>(a, q) y = Conv(b, w)",
    "of rows instead": "a = Conv(x, w) b = Gather<axis=2>(a, q) c = Gather<axis=3>(b, q) y = Conv(c, v)",
    "with the groups turned as well": "a = Conv(x, w) {a>b/3@0,2,1,4,3} y = Conv(b, v)",
    "of the positions": "a = Conv(x, w) {a>b/3@0,1,2,4,3} y = Conv(b, v)",
    "before softmax": "a = Conv(x, w) {a>b/2} c = Softmax<axis=1>(b) y = Conv(c, v)",
    "and the shape is read": "a = Conv(x, w) {a>b/2} c = Conv(b, v) t = Shape(b) i = Cast<to=1>(t) j ="
    " ReduceMax<keepdims=0>(i)"
    " y = Mul(c, j)",
    "behind an activation that gets its name": "a = Conv(x, w) c = Add(a, three) j = Clip(c, zero, six) l = Div(j, six)"
    " f = Mul(l, a) {f>b/2} y = Conv(b, v)",
    "before ConvTranspose": "a = Conv(x, w) {a>b/2} y = ConvTranspose(b, r)",
    "before and after a Conv of nine": "a = Conv(x, w) {a>b/2} c = Conv<pads=[1,1,1,1]>(b, big) z ="
    " Concat<axis=1>(c, c, c, c)"
    " {z>f/2} y = Conv(f, v)",
}  # fmt: skip


def graph(name):
    text, weights = CASES[name], {}
    while "{" in text:
        mark = text[text.index("{") + 1 : text.index("}")]
        pair, _, order = mark.partition("@")
        (source, rest) = pair.split(">")
        result, groups = rest.split("/")
        nodes, shapes = shuffle(source, result, int(groups), order=order or "0,2,1,3,4")
        text, weights = text.replace("{" + mark + "}", nodes), weights | shapes
    known = {key: value for key, value in WEIGHTS.items() if f"{key}," in text or f"{key})" in text}
    return model(f"(float[N,3,4,4] x) => (float[] y) {{ {text} }}", known | weights)


@pytest.mark.parametrize("target", [*TARGETS, "blocks of four"])
@pytest.mark.parametrize("name", CASES)
def test_a_shuffle(name, target, tmp_path):
    options = TEN if target == "blocks of four" else TARGETS[target]
    sound(graph(name), tmp_path, **options)
