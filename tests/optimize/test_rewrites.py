"""Every pass on tiny graphs: what can be fused is, what must not be is left alone, and both compute the same."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from support.graphs import batchnorm, model, ops

f32, f16, f64, i64 = np.float32, np.float16, np.float64, np.int64
BN = batchnorm(4)
X, Y = "(float[N,3,8,8] x)", "(float[N,4,8,8] y)"
CONV = "c = Conv<pads=[1,1,1,1]>(x, w)"
W = {"w": (4, 3, 3, 3)}


def halves(tensors):
    return {name: array.astype(f16) for name, array in tensors.items()}


# name -> (graph, weights, node types expected afterwards, opset)
FUSED = {
    "BN into Conv": (f"{X} => {Y} {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}", W | BN, ["Conv"]),
    "BN into Conv with bias": (
        f"{X} => {Y} {{ c = Conv<pads=[1,1,1,1]>(x, w, k) y = BatchNormalization<epsilon=0.1>(c, g, b, m, v) }}",
        W | BN | {"k": (4,)},
        ["Conv"],
    ),
    "BN into grouped Conv": (
        "(float[1,6,8,8] x) => (float[1,4,6,6] y) { c = Conv<group=2>(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (4, 3, 3, 3)} | BN,
        ["Conv"],
    ),
    "BN into ConvTranspose": (
        "(float[1,3,5,5] x) => (float[1,4,7,7] y) { c = ConvTranspose(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (3, 4, 3, 3)} | BN,
        ["ConvTranspose"],
    ),
    "BN into grouped ConvTranspose": (
        "(float[1,6,5,5] x) => (float[1,4,7,7] y)"
        "{ c = ConvTranspose<group=2>(x, w, k) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (6, 2, 3, 3), "k": (4,)} | BN,
        ["ConvTranspose"],
    ),
    "BN into depthwise ConvTranspose": (
        "(float[1,4,5,5] x) => (float[1,4,7,7] y)"
        "{ c = ConvTranspose<group=4>(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (4, 1, 3, 3)} | BN,
        ["ConvTranspose"],
    ),
    "BN into 1-D Conv": (
        "(float[1,3,8] x) => (float[1,4,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (4, 3, 3)} | BN,
        ["Conv"],
    ),
    "BN into Gemm": (
        "(float[N,3] x) => (float[N,4] y)"
        "{ c = Gemm<alpha=0.5, beta=2.0>(x, w, k) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (3, 4), "k": (1, 4)} | BN,
        ["Gemm"],
    ),
    "BN into Gemm, transposed, scalar bias, beta 0": (
        "(float[N,3] x) => (float[N,4] y)"
        "{ c = Gemm<transB=1, beta=0.0>(x, w, k) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (4, 3), "k": np.float32(3)} | BN,
        ["Gemm"],
    ),
    "BN into Gemm with a bias per row": (
        "(float[5,3] x) => (float[5,4] y) { c = Gemm(x, w, k) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (3, 4), "k": (5, 1)} | BN,
        ["Gemm"],
    ),
    "BN into MatMul": (
        "(float[N,3] x) => (float[N,4] y) { c = MatMul(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": (3, 4)} | BN,
        ["Gemm"],
    ),
    "MatMul and Add": (
        "(float[N,3] x) => (float[N,4] y) { c = MatMul(x, w) y = Add(k, c) }",
        {"w": (3, 4), "k": (4,)},
        ["Gemm"],
    ),
    "weights in Constant nodes": (
        "(float[1,1,4,4] x) => (float[1,1,4,4] y) { w = Constant<value = float[1,1,1,1] {2.0}>()"
        " one = Constant<value = float[1] {3.0}>() c = Conv(x, w) y = BatchNormalization(c, one, one, one, one) }",
        {},
        ["Conv"],
    ),
    "weights shared by two Convs": (
        f"{X} => (float[N,4,8,8] y, float[N,4,8,8] z)"
        f"{{ {CONV} y = BatchNormalization(c, g, b, m, v) z = Conv<pads=[1,1,1,1]>(x, w) }}",
        W | BN,
        ["Conv", "Conv"],
    ),
    "statistics behind CastLike and Expand": (
        f"{X} => {Y} {{ zero = Constant<value = float {{0.0}}>() s = Shape<start=0, end=1>(w) z = CastLike(zero, x)"
        " k = Expand(z, s) c = Conv<pads=[1,1,1,1]>(x, w, k) gg = CastLike(g, c)"
        " y = BatchNormalization(c, gg, b, m, v) }",
        W | BN,
        ["Conv"],
    ),
    "an Expand that repeats a constant a few times": (
        "(float[1] x) => (float[4,100,100] y) { a = Expand(c, s) y = Add(a, x) }",
        {"c": (100, 100), "s": i64([4, 100, 100])},
        ["Add"],
    ),
    "BN after a Concat of Convs": (
        f"{X} => (float[N,6,8,8] y) {{ {CONV} d = Conv(x, u) e = Concat<axis=1>(c, d)"
        " y = BatchNormalization(e, g, b, m, v) }",
        W | {"u": (2, 3, 1, 1)} | batchnorm(6),
        ["Concat", "Conv", "Conv"],
    ),
    "BN before Conv without padding": (
        "(float[N,4,8,8] x) => (float[N,2,6,6] y) { c = BatchNormalization(x, g, b, m, v) y = Conv(c, w) }",
        {"w": (2, 4, 3, 3)} | BN,
        ["Conv"],
    ),
    "BN before grouped Conv with bias": (
        "(float[N,4,8,8] x) => (float[N,6,6,6] y){ c = BatchNormalization(x, g, b, m, v) y = Conv<group=2>(c, w, k) }",
        {"w": (6, 2, 3, 3), "k": (6,)} | BN,
        ["Conv"],
    ),
    "BN before Gemm": (
        "(float[N,4] x) => (float[N,3] y)"
        "{ c = BatchNormalization(x, g, b, m, v) y = Gemm<alpha=0.5, transB=1>(c, w, k) }",
        {"w": (3, 4), "k": (3,)} | BN,
        ["Gemm"],
    ),
    "Mul and Add after BN after Conv": (
        f"{X} => {Y} {{ {CONV} d = BatchNormalization(c, g, b, m, v) e = Mul(d, s) y = Add(e, t) }}",
        W | BN | {"s": (4, 1, 1), "t": (1, 4, 1, 1)},
        ["Conv"],
    ),
    "Sub, Div and Sub from": (
        f"{X} => {Y} {{ {CONV} d = Sub(c, s) e = Div(d, t) y = Sub(s, e) }}",
        W | {"s": (4, 1, 1), "+t": (1,)},
        ["Conv"],
    ),
    "Mul and Add onto a lone BN": (
        "(float[N,4,8,8] x) => (float[N,4,8,8] y){ d = BatchNormalization(x, g, b, m, v) e = Mul(d, s) y = Add(e, t) }",
        BN | {"s": (4, 1, 1), "t": (4, 1, 1)},
        ["BatchNormalization"],
    ),
    "scale before padded Conv": (
        f"{X} => {Y} {{ a = Mul(x, s) y = Conv<pads=[1,1,1,1]>(a, w) }}",
        W | {"s": (3, 1, 1)},
        ["Conv"],
    ),
    "half-precision weights": (
        "(float16[1,3,8,8] x) => (float16[1,4,8,8] y)"
        f"{{ {CONV} y = BatchNormalization<epsilon=0.00000001>(c, g, b, m, v) }}",
        halves(BN | {"w": np.random.default_rng(0).normal(size=(4, 3, 3, 3))}),
        ["Conv"],
    ),
    "double-precision weights": (
        "(double[1,3,8] x) => (double[1,4,8] y) { c = MatMul(w, x) y = Identity(c) }",
        {"w": np.ones((4, 3), f64)},
        ["MatMul"],
    ),
    "Relu, then Clip": (
        "(float[4] x) => (float[4] y) { a = Relu(x) y = Clip(a, , h) }",
        {"h": f32(6)},
        ["Clip"],
    ),
    "Relu, then Min": ("(float[4] x) => (float[4] y) { a = Relu(x) y = Min(h, a) }", {"h": f32(6)}, ["Clip"]),
    "Min, then Max": (
        "(float[4] x) => (float[4] y) { a = Min(x, h) y = Max(a, l) }",
        {"h": f32([6]), "l": f32(0)},
        ["Clip"],
    ),
    "Clip, then Relu": (
        "(float[4] x) => (float[4] y) { a = Clip(x, l, h) y = Relu(a) }",
        {"h": f32(6), "l": f32(-1)},
        ["Clip"],
    ),
    "Relu of a Clip that is bounded already": (
        "(float[4] x) => (float[4] y) { a = Clip(x, l, h) y = Relu(a) }",
        {"h": f32(6), "l": f32(1)},
        ["Clip"],
    ),
    "Clips that do not meet": (
        "(float[4] x) => (float[4] y) { a = Clip(x, l, h) y = Clip(a, p, q) }",
        {"l": f32(0), "h": f32(0.5), "p": f32(1), "q": f32(2)},
        ["Clip"],
    ),
    "Max of 0": ("(float[4] x) => (float[4] y) { y = Max(x, l) }", {"l": f32(0)}, ["Relu"]),
    "Relu of Relu": ("(float[4] x) => (float[4] y) { a = Relu(x) y = Relu(a) }", {}, ["Relu"]),
    "Clip with attributes": (
        "(float[4] x) => (float[4] y) { a = Relu(x) y = Clip<max=0.5>(a) }",
        {},
        ["Clip"],
        9,
    ),
    "Clip bounds behind CastLike": (
        "(float[4] x) => (float[4] y) { c = Constant<value_float=0.0>() d = CastLike(c, x)"
        " e = Constant<value_float=0.5>()"
        " f = CastLike(e, x) a = Clip(x, d, f) y = Identity(a) }",
        {},
        ["Clip"],
    ),
    "half-precision Clips": (
        "(float16[4] x) => (float16[4] y) { a = Relu(x) y = Clip(a, , h) }",
        {"h": f16(0.5)},
        ["Clip"],
    ),
    "Pad before Conv": (
        "(float[N,3,6,6] x) => (float[N,4,8,8] y) { a = Pad(x, p) y = Conv<pads=[1,1,1,1]>(a, w) }",
        W | {"p": i64([0, 0, 1, 0, 0, 0, 1, 2])},
        ["Conv"],
    ),
    "Pad with axes before Conv": (
        "(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = Pad(x, p, , ax) y = Conv(a, w) }",
        W | {"p": i64([1, 1, 1, 1]), "ax": i64([-1, 2])},
        ["Conv"],
    ),
    "Pad with attributes": (
        "(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = Pad<pads=[0,0,1,1,0,0,1,1]>(x) y = Conv(a, w) }",
        W,
        ["Conv"],
        9,
    ),
    "Pad before AveragePool": (
        "(float[N,3,6,6] x) => (float[N,3,6,6] y) { a = Pad(x, p) y = AveragePool<kernel_shape=[3,3]>(a) }",
        {"p": i64([0, 0, 1, 1, 0, 0, 1, 1])},
        ["AveragePool"],
    ),
    "Transposes that undo each other": (
        "(float[2,3,4] x) => (float[2,3,4] y)"
        "{ a = Transpose<perm=[2,0,1]>(x) b = Transpose<perm=[1,2,0]>(a) y = Relu(b) }",
        {},
        ["Relu"],
    ),
    "Transposes in a row": (
        "(float[2,3,4] x) => (float[3,2,4] y) { a = Transpose(x) y = Transpose<perm=[1,2,0]>(a) }",
        {},
        ["Transpose"],
    ),
    "views in a row": (
        "(float[N,3,4] x) => (float[N,12,1] y) { a = Flatten(x) b = Unsqueeze(a, two) c = Squeeze(b, two)"
        " y = Unsqueeze(c, two) }",
        {"two": i64([2])},
        ["Reshape"],
    ),
    "classifier with shape arithmetic": (
        "(float[N,3,4,4] x) => (float[N,5] y) { a = GlobalAveragePool(x) s = Shape(a) d = Gather(s, zero)"
        " u = Unsqueeze(d, zeros) t = Concat<axis=0>(u, minus) r = Reshape(a, t) y = Gemm(r, w) }",
        {"zero": i64(0), "zeros": i64([0]), "minus": i64([-1]), "w": (3, 5)},
        ["Gemm", "GlobalAveragePool", "Reshape"],
    ),
    "Slices that cut": (
        "(float[N,6,2] x) => (float[N,2,2] y, float[N,4,2] z) { y = Slice(x, s0, s2, one) z = Slice(x, s2, big, one) }",
        {"s0": i64([0]), "s2": i64([2]), "one": i64([1]), "big": i64([2**62])},
        ["Split"],
    ),
    "sequence of parts": (
        "(float[N,5,2] x) => (float[N,2,2] y, float[N,1,2] z)"
        "{ s = SplitToSequence<axis=1>(x, two) y = SequenceAt(s, zero) z = SequenceAt(s, minus) }",
        {"two": i64(2), "zero": i64(0), "minus": i64(-1)},
        ["Split"],
    ),
    "mean over H and W": (
        "(float[N,3,4,4] x) => (float[N,3,1,1] y) { y = ReduceMean(x, a) }",
        {"a": i64([-1, 2])},
        ["GlobalAveragePool"],
    ),
    "Relu before a quantiser": (
        "(float[4] x) => (uint8[4] y) { a = Relu(x) y = QuantizeLinear(a, s, z) }",
        {"s": f32(0.02), "z": np.uint8(0)},
        ["QuantizeLinear"],
    ),
    "Clip before a quantiser": (
        "(float[4] x) => (int8[4] y) { a = Clip(x, l, h) y = QuantizeLinear(a, s, z) }",
        {"l": f32(0), "h": f32(2), "s": f32(2 / 255), "z": np.int8(-128)},
        ["QuantizeLinear"],
    ),
    "HardSigmoid": (
        "(float[4] x) => (float[4] y) { a = Add(x, t) b = Clip(a, z, s) y = Div(b, s) }",
        {"t": f32(3), "z": f32(0), "s": f32(6)},
        ["HardSigmoid"],
    ),
    "HardSwish": (
        "(float[4] x) => (float[4] y) { a = Add(t, x) b = Clip(a, z, s) c = Mul(x, b) y = Div(c, s) }",
        {"t": f32(3), "z": f32(0), "s": f32(6)},
        ["HardSwish"],
    ),
    "HardSwish by HardSigmoid": (
        "(float[4] x) => (float[4] y) { a = Add(t, x) b = Relu(a) c = Min(b, s) d = Mul(c, r) y = Mul(d, x) }",
        {"t": f32(3), "s": f32(6), "r": f32(1 / 6)},
        ["HardSwish"],
    ),
    "HardSwish before opset 14": (
        "(float[4] x) => (float[4] y) { a = Add(t, x) b = Clip(a, z, s) c = Div(b, s) y = Mul(c, x) }",
        {"t": f32(3), "z": f32(0), "s": f32(6)},
        ["HardSigmoid", "Mul"],
        13,
    ),
    "Gelu": (
        "(float[4] x) => (float[4] y) { a = Div(x, q) b = Erf(a) c = Add(b, o) d = Mul(x, c) y = Mul(d, h) }",
        {"q": f32(2**0.5), "o": f32(1), "h": f32(0.5)},
        ["Gelu"],
        20,
    ),
    "Gelu, the other way round": (
        "(float[4] x) => (float[4] y) { a = Mul(x, q) b = Erf(a) c = Add(o, b) d = Mul(h, x) y = Mul(c, d) }",
        {"q": f32(0.5**0.5), "o": f32(1), "h": f32(0.5)},
        ["Gelu"],
        20,
    ),
    "common subexpressions": (
        "(float[4] x) => (float[4] y) { a = Sin(x) b = Sin(x) c = Cos(b) d = Cos(a) y = Add(c, d) }",
        {},
        ["Add", "Cos", "Sin"],
    ),
    "layers with equal weights": (
        "(float[N,3,8,8] x) => (float[N,4,4,4] y) { a = Conv<strides=[2,2]>(x, w) b = Conv<strides=[2,2]>(x, u)"
        " y = Add(a, b) }",
        {"w": np.full((4, 3, 1, 1), 0.5, f32), "u": np.full((4, 3, 1, 1), 0.5, f32)},
        ["Add", "Conv"],
    ),
    "nothing at all": (
        "(float[2,3] x) => (float[2,3] y) { a = Identity(x) b = Dropout(a) c = Cast<to=1>(b) d = Reshape(c, s)"
        " e = Mul(d, one) f = Add(zero, e) g = Concat<axis=0>(f) h = Transpose<perm=[0,1]>(g) y = Sin(h) }",
        {"s": i64([2, 3]), "one": f32(1), "zero": f32([0])},
        ["Sin"],
    ),
    "dead nodes": (
        "(float[4] x) => (float[4] y) { a = Sin(x) b = Cos(a) y = Relu(x) }",
        {"unused": (9,)},
        ["Relu"],
    ),
    "constants": (
        "(float[4] x) => (float[4] y) { a = Sin(w) b = Exp(a) c = ReduceSum<keepdims=1>(b) y = Add(x, c) }",
        {"w": (4,)},
        ["Add"],
    ),
}

KEPT = {
    "BN in training mode": (
        f"{X} => {Y} {{ {CONV} y, rm, rv = BatchNormalization<training_mode=1>(c, g, b, m, v) }}",
        W | BN,
        ["BatchNormalization", "Conv"],
    ),
    "BN after a Conv that is read twice": (
        f"{X} => {Y} {{ {CONV} d = BatchNormalization(c, g, b, m, v) y = Add(c, d) }}",
        W | BN,
        ["Add", "BatchNormalization", "Conv"],
    ),
    "BN after a Conv that is an output": (
        f"{X} => (float[N,4,8,8] y, float[N,4,8,8] c) {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}",
        W | BN,
        ["BatchNormalization", "Conv"],
    ),
    "BN with a variable mean": (
        f"(float[N,3,8,8] x, float[4] m) => {Y} {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}",
        W | {name: BN[name] for name in "gbv"},
        ["BatchNormalization", "Conv"],
    ),
    "weights that may be fed": (
        f"(float[N,3,8,8] x, float[4,3,3,3] w) => {Y} {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}",
        W | BN,
        ["BatchNormalization", "Conv"],
    ),
    "BN before a padded Conv": (
        "(float[N,4,8,8] x) => (float[N,2,8,8] y)"
        "{ c = BatchNormalization(x, g, b, m, v) y = Conv<pads=[1,1,1,1]>(c, w) }",
        {"w": (2, 4, 3, 3)} | BN,
        ["BatchNormalization", "Conv"],
    ),
    "BN before a Conv that pads by name": (
        "(float[N,4,8,8] x) => (float[N,2,8,8] y)"
        '{ c = BatchNormalization(x, g, b, m, v) y = Conv<auto_pad="SAME_UPPER">(c, w) }',
        {"w": (2, 4, 3, 3)} | BN,
        ["BatchNormalization", "Conv"],
    ),
    "BN before ConvTranspose": (
        "(float[N,4,4,4] x) => (float[N,2,6,6] y) { c = BatchNormalization(x, g, b, m, v) y = ConvTranspose(c, w) }",
        {"w": (4, 2, 3, 3)} | BN,
        ["BatchNormalization", "ConvTranspose"],
    ),
    "BN after a Concat that is half a Conv": (
        f"{X} => (float[N,7,8,8] y) {{ {CONV} e = Concat<axis=1>(c, x) y = BatchNormalization(e, g, b, m, v) }}",
        W | batchnorm(7),
        ["BatchNormalization", "Concat", "Conv"],
    ),
    "BN after a Concat of one Conv twice": (
        f"{X} => (float[N,8,8,8] y) {{ {CONV} e = Concat<axis=1>(c, c) y = BatchNormalization(e, g, b, m, v) }}",
        W | batchnorm(8),
        ["BatchNormalization", "Concat", "Conv"],
    ),
    "BN after a Concat of rows": (
        "(float[1,3,8,8] x) => (float[1,4,16,8] y)"
        f"{{ {CONV} d = Conv(x, u) e = Concat<axis=2>(c, d) y = BatchNormalization(e, g, b, m, v) }}",
        W | {"u": (4, 3, 1, 1)} | BN,
        ["BatchNormalization", "Concat", "Conv", "Conv"],
    ),
    "half-precision scale that overflows": (
        f"(float16[1,3,8,8] x) => (float16[1,4,8,8] y) {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}",
        halves(BN | {"w": np.full((4, 3, 3, 3), 100), "g": np.full(4, 1000), "m": np.zeros(4), "b": np.zeros(4)}),
        ["BatchNormalization", "Conv"],
    ),
    "statistics that give NaN": (
        f"{X} => {Y} {{ {CONV} y = BatchNormalization(c, g, b, m, v) }}",
        W | BN | {"v": f32([1, 1, -1, 1])},
        ["BatchNormalization", "Conv"],
    ),
    "Add per position": (
        f"(float[1,3,8,8] x) => {Y} {{ {CONV} y = Add(c, t) }}",
        W | {"t": (1, 4, 8, 8)},
        ["Add", "Conv"],
    ),
    "Add along the width": (f"{X} => {Y} {{ {CONV} y = Add(c, t) }}", W | {"t": (8,)}, ["Add", "Conv"]),
    "Add that grows the rank": (
        f"(float[1,3,8,8] x) => (float[2,1,4,8,8] y){{ {CONV} y = Add(c, t) }}",
        W | {"t": (2, 1, 4, 1, 1)},
        ["Add", "Conv"],
    ),
    "Div of a constant by the activation": (
        f"{X} => {Y} {{ {CONV} y = Div(t, c) }}",
        W | {"t": (4, 1, 1)},
        ["Conv", "Div"],
    ),
    "Div by zero": (f"{X} => {Y} {{ {CONV} y = Div(c, t) }}", W | {"t": f32([0.0])}, ["Conv", "Div"]),
    "MatMul of stacks": (
        "(float[2,5,3] x) => (float[2,5,4] y) { c = MatMul(x, w) y = Mul(c, t) }",
        {"w": (3, 4), "t": (4,)},
        ["MatMul", "Mul"],
    ),
    "Clip with a variable bound": (
        "(float[4] x, float h) => (float[4] y) { a = Relu(x) y = Clip(a, , h) }",
        {},
        ["Clip", "Relu"],
    ),
    "Relu that is read twice": (
        "(float[4] x) => (float[4] y) { a = Relu(x) b = Clip(a, , h) y = Add(a, b) }",
        {"h": f32(0.5)},
        ["Add", "Clip", "Relu"],
    ),
    "Relu that is an output": (
        "(float[4] x) => (float[4] y, float[4] a) { a = Relu(x) y = Clip(a, , h) }",
        {"h": f32(0.5)},
        ["Clip", "Relu"],
    ),
    "MatMul of integers": (
        "(int32[N,3] x) => (int32[N,4] y) { c = MatMul(x, w) y = Add(c, t) }",
        {"w": np.ones((3, 4), np.int32), "t": np.ones(4, np.int32)},
        ["Add", "MatMul"],
    ),
    "Resize that moves by half a pixel": (
        '(float[1,1,4,4] x) => (float[1,1,4,4] y) { y = Resize<mode="nearest", nearest_mode="ceil",'
        ' coordinate_transformation_mode="tf_half_pixel_for_nn">(x, , s) }',
        {"s": f32([1, 1, 1, 1])},
        ["Resize"],
    ),
    "HardSwish of another width": (
        "(float[4] x) => (float[4] y) { a = Add(t, x) b = Clip(a, z, s) c = Mul(x, b) y = Div(c, t) }",
        {"t": f32(3), "z": f32(0), "s": f32(6)},
        ["Add", "Clip", "Div", "Mul"],
    ),
    "HardSwish of another tensor": (
        "(float[4] x, float[4] u) => (float[4] y) { a = Add(t, x) b = Clip(a, z, s) c = Mul(u, b) y = Div(c, s) }",
        {"t": f32(3), "z": f32(0), "s": f32(6)},
        ["Add", "Clip", "Div", "Mul"],
    ),
    "Max per channel": ("(float[2,2] x) => (float[2,2] y) { y = Max(x, l) }", {"l": f32([0, 1])}, ["Max"]),
    "Max that grows the rank": ("(float[2] x) => (float[1,2] y) { y = Max(x, l) }", {"l": f32([[0]])}, ["Max"]),
    "Max of three": ("(float[2] x, float[2] z) => (float[2] y) { y = Max(x, l, z) }", {"l": f32(0)}, ["Max"]),
    "Pad with a value": (
        "(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = Pad(x, p, one) y = Conv(a, w) }",
        W | {"p": i64([0, 0, 1, 1, 0, 0, 1, 1]), "one": f32(1)},
        ["Conv", "Pad"],
    ),
    "Pad that crops": (
        "(float[N,3,8,8] x) => (float[N,4,5,6] y) { a = Pad(x, p) y = Conv(a, w) }",
        W | {"p": i64([0, 0, -1, 0, 0, 0, 0, 0])},
        ["Conv", "Pad"],
    ),
    "Pad by reflection": (
        '(float[N,3,6,6] x) => (float[N,4,6,6] y) { a = Pad<mode="reflect">(x, p) y = Conv(a, w) }',
        W | {"p": i64([0, 0, 1, 1, 0, 0, 1, 1])},
        ["Conv", "Pad"],
    ),
    "Pad of channels": (
        "(float[N,2,8,8] x) => (float[N,4,6,6] y) { a = Pad(x, p) y = Conv(a, w) }",
        W | {"p": i64([0, 1, 0, 0, 0, 0, 0, 0])},
        ["Conv", "Pad"],
    ),
    "Pad before MaxPool": (
        "(float[N,3,6,6] x) => (float[N,3,6,6] y) { a = Pad(x, p) y = MaxPool<kernel_shape=[3,3]>(a) }",
        {"p": i64([0, 0, 1, 1, 0, 0, 1, 1])},
        ["MaxPool", "Pad"],
    ),
    "Pad before an AveragePool that pads": (
        "(float[N,3,6,6] x) => (float[N,3,8,8] y)"
        "{ a = Pad(x, p) y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a) }",
        {"p": i64([0, 0, 1, 1, 0, 0, 1, 1])},
        ["AveragePool", "Pad"],
    ),
    "Slices that leave something out": (
        "(float[N,6,2] x) => (float[N,2,2] y, float[N,3,2] z) { y = Slice(x, s0, s2, one) z = Slice(x, s3, big, one) }",
        {"s0": i64([0]), "s2": i64([2]), "s3": i64([3]), "one": i64([1]), "big": i64([2**62])},
        ["Slice", "Slice"],
    ),
    "Slice backwards": (
        "(float[3] x) => (float[3] y) { y = Slice(x, a, b, c, d) }",
        {"a": i64([-1]), "b": i64([-(2**62)]), "c": i64([0]), "d": i64([-1])},
        ["Slice"],
    ),
    "Clip wider than the quantiser": (
        "(float[4] x) => (uint8[4] y) { a = Clip(x, l, h) y = QuantizeLinear(a, s, z) }",
        {"l": f32(0), "h": f32(1), "s": f32(2 / 255), "z": np.uint8(0)},
        ["Clip", "QuantizeLinear"],
    ),
    "Relu before a symmetric quantiser": (
        "(float[4] x) => (int8[4] y) { a = Relu(x) y = QuantizeLinear(a, s, z) }",
        {"s": f32(0.02), "z": np.int8(0)},
        ["QuantizeLinear", "Relu"],
    ),
    "Dropout whose mask is read": (
        "(float[4] x) => (float[4] y, bool[4] z) { y, z = Dropout(x) }",
        {},
        ["Dropout"],
    ),
    "Identity from input to output": ("(float[4] x) => (float[4] y) { y = Identity(x) }", {}, ["Identity"]),
    "Mul by one that broadcasts": (
        "(float[1,3] x) => (float[2,3] y) { y = Mul(x, o) }",
        {"o": np.ones((2, 1), f32)},
        ["Mul"],
    ),
    "a constant whose Expand is too large to write": (
        "(float[1] x) => (float[n,1000] y) { a = Expand(c, s) y = Add(a, x) }",
        {"c": (1, 1000), "s": i64([2000, 1])},
        ["Add", "Expand"],
    ),
    "a constant too large to write": (
        "(float[1] x) => (float[n,1000] y) { a = ConstantOfShape(s) y = Add(a, x) }",
        {"s": i64([2000, 1000])},
        ["Add", "ConstantOfShape"],
    ),
    "random numbers": (
        "(float[4] x) => (float[4] y) { a = RandomNormal<shape=[4], seed=1.0>() b = RandomNormal<shape=[4], seed=2.0>()"
        " c = Mul(a, zero) d = Mul(b, zero) e = Add(c, x) y = Add(d, e) }",
        {"zero": f32([0, 0, 0, 0])},
        ["Add", "Add", "Mul", "Mul", "RandomNormal", "RandomNormal"],
    ),
}


def run(case, tmp_path, **options):
    text, weights, expected, *rest = case
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    onnx.save(model(text, weights, *rest), source)
    return source, result, expected, optimize(source, result, **options, raise_opset=False)


@pytest.mark.parametrize("name", [*FUSED, *KEPT])
def test_a_tiny_graph(name, tmp_path):
    source, result, expected, _ = run((FUSED | KEPT)[name], tmp_path, verify=False)
    assert ops(result) == expected
    check = compare(source, result)
    assert check.verdict == "equal", check
    onnx.checker.check_model(onnx.load(result), full_check=True)
    again = optimize(result, tmp_path / "again.onnx", verify=False)
    assert again.rewrites == 0, again.passes


@pytest.mark.parametrize("name", KEPT)
def test_a_refusal_is_no_rollback(name, tmp_path):
    *_, report = run(KEPT[name], tmp_path)
    assert report.check.verdict == "equal"
    assert not any(entry.rolled_back for entry in report.passes)


@pytest.mark.parametrize("name", FUSED)
def test_the_interface_survives(name, tmp_path):
    source, result, *_ = run(FUSED[name], tmp_path)
    before, after = onnx.load(source), onnx.load(result)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert (after.opset_import, after.ir_version) == (before.opset_import, before.ir_version)
