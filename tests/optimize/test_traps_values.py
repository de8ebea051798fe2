"""Constants made to be folded wrongly: infinite, tiny, huge, double; pads, bounds, empty tensors, quantised nets."""

import numpy as np
import pytest

from support.graphs import batchnorm, model
from support.sound import TARGETS, sound

f32, f16, f64, i64 = np.float32, np.float16, np.float64, np.int64
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}
X, Y = "(float[N,3,8,8] x)", "(float[N,4,6,6] y)"
RNG = np.random.default_rng(3)


def half(tensors):
    return {name: array.astype(f16) for name, array in tensors.items()}


def with_one(shape, value):
    """Return normal numbers with one odd one among them."""
    made = RNG.normal(size=shape).astype(f32)
    made.flat[1] = value
    return made


ODD_NUMBERS = {
    "infinite weights": (
        f"{X} => {Y} {{ c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }}",
        {"w": with_one((4, 3, 3, 3), np.inf)} | BN, ["BatchNormalization", "Conv"],
    ),
    "NaN in the bias": (
        f"{X} => {Y} {{ c = Conv(x, w, k) y = BatchNormalization(c, g, b, m, v) }}",
        W | {"k": with_one(4, np.nan)} | BN, ["BatchNormalization", "Conv"],
    ),
    "an infinite gain": (
        f"{X} => {Y} {{ c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }}",
        W | BN | {"g": with_one(4, np.inf)}, ["BatchNormalization", "Conv"],
    ),
    "an infinite addend": (f"{X} => {Y} {{ c = Conv(x, w) y = Add(c, t) }}", W | {"t": f32(np.inf)}, ["Add", "Conv"]),
    "a NaN factor": (f"{X} => {Y} {{ c = Conv(x, w) y = Mul(c, t) }}", W | {"t": f32(np.nan)}, ["Conv", "Mul"]),
    "a variance of zero and a tiny epsilon in half precision": (
        "(float16[1,3,8,8] x) => (float16[1,4,6,6] y)"
        " { c = Conv(x, w) y = BatchNormalization<epsilon=0.00000001>(c, g, b, m, v) }",
        half({"w": RNG.normal(0, 1e-3, (4, 3, 3, 3)), "v": np.zeros(4), "m": np.zeros(4), "b": np.zeros(4),
              "g": np.full(4, 1e-2)}), ["Conv"],
    ),
    "half-precision weights that become too small": (
        "(float16[1,3,8,8] x) => (float16[1,4,6,6] y) { c = Conv(x, w) d = Mul(c, s) e = Relu(d) y = Mul(e, t) }",
        half({"w": RNG.normal(0, 1e-2, (4, 3, 3, 3)), "s": f32([1e-5, 1, 1, 1]).reshape(4, 1, 1),
              "t": f32([1e4, 1, 1, 1]).reshape(4, 1, 1)}), ["Conv", "Mul", "Mul", "Relu"],
    ),
    "single-precision weights that become too small": (
        f"{X} => {Y} {{ c = Conv(x, w) d = Mul(c, s) e = Relu(d) y = Mul(e, t) }}",
        W | {"s": f32([1e-41, 1, 1, 1]).reshape(4, 1, 1), "t": f32([1e38, 1, 1, 1]).reshape(4, 1, 1)},
        ["Conv", "Mul", "Mul", "Relu"],
    ),
    "a scale of zero": (f"{X} => {Y} {{ c = Conv(x, w, k) y = Mul(c, z) }}", W | {"k": (4,), "z": f32(0)}, ["Conv"]),
    "a shift that overflows half precision before Conv": (
        "(float16[1,3,8,8] x) => (float16[1,4,6,6] y) { a = Add(x, t) y = Conv(a, w) }",
        half({"w": np.full((4, 3, 3, 3), 100), "t": np.full((3, 1, 1), 100)}), ["Add", "Conv"],
    ),
    "bounds that are infinite": (
        "(float[4] x) => (float[4] y) { a = Max(x, i) b = Clip(a, z) c = Min(b, n) y = Clip(c, , h) }",
        {"i": f32(np.inf), "n": f32(-np.inf), "z": f32(0), "h": f32(6)}, None,
    ),
    "Clip to one side of infinity": (
        "(float[4] x) => (float[4] y) { a = Clip(x, n, h) b = Relu(a) y = Clip(b, l, i) }",
        {"i": f32(np.inf), "n": f32(-np.inf), "l": f32(0.1), "h": f32(6)}, ["Clip"],
    ),
    "a NaN bound": (
        "(float[4] x) => (float[4] y) { a = Relu(x) b = Min(a, n) y = Clip(b, z, h) }",
        {"n": f32(np.nan), "z": f32(0), "h": f32(6)}, ["Clip", "Min", "Relu"],
    ),
    "Clip whose bounds are exchanged": (
        "(float[9] x) => (float[9] y) { a = Clip(x, h, l) y = Relu(a) }", {"l": f32(-1), "h": f32(2)}, ["Clip"],
    ),
    "exchanged bounds after Relu": (
        "(float[9] x) => (float[9] y) { a = Relu(x) y = Clip(a, h, l) }", {"l": f32(1), "h": f32(2)}, ["Clip"],
    ),
    "minus zero": ("(float[4] x) => (float[4] y) { a = Add(x, z) y = Sub(a, z) }", {"z": f32(-0.0)}, None),
    "integers divided": (
        "(int64[2] x) => (int64[2] y) { d = Div(a, b) y = Add(x, d) }",
        {"a": i64([-(2**63), -7]), "b": i64([2, 2])}, ["Add"],
    ),
}  # fmt: skip

DOUBLES = {
    name: (f"(double[{shape}] x) => (double[{result}] y) {{ {text} }}", weights, expected, *rest)
    for name, shape, result, text, weights, expected, *rest in (
        ("Conv and BN", "1,3,8,8", "1,4,6,6", "c = Conv(x, w) y = BatchNormalization(c, g, b, m, v)",
         {"w": RNG.normal(size=(4, 3, 3, 3))} | batchnorm(4, dtype=f64), ["Conv"]),
        ("MatMul and Add", "5,3", "5,4", "c = MatMul(x, w) y = Add(c, t)",
         {"w": RNG.normal(size=(3, 4)), "t": RNG.normal(size=4)}, ["Gemm"]),
        ("a mean", "1,3,4,4", "1,3,1,1", "y = ReduceMean(x, a)", {"a": i64([2, 3])}, ["ReduceMean"]),
        ("Min, then Max, opset 11", "4", "4", "a = Min(x, h) y = Max(a, l)", {"h": f64(0.1), "l": f64(-0.1)},
         ["Max", "Min"], 11),
        ("Min, then Max, opset 8", "4", "4", "a = Min(x, h) y = Max(a, l)", {"h": f64([0.1]), "l": f64([-0.1])},
         ["Max", "Min"], 8),
        ("Min, then Max", "4", "4", "a = Min(x, h) y = Max(a, l)", {"h": f64(0.1), "l": f64(-0.1)}, ["Clip"]),
        ("HardSwish", "4", "4", "a = Add(t, x) b = Clip(a, z, s) c = Mul(x, b) y = Div(c, s)",
         {"t": f64(3), "z": f64(0), "s": f64(6)}, ["Add", "Clip", "Div", "Mul"]),
        ("Max of 0", "4", "4", "y = Max(x, z)", {"z": f64(0)}, None),
    )
}  # fmt: skip

ONE, LOW = [0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 1, 0, 0, 0, 1, 0]
K, HALVE = "kernel_shape=[3,3]", "strides=[2,2]"
# What Pad is given besides x, its pads, the layer after it, and whether it disappears into that.
PADDED = {
    "asymmetric, into asymmetric pads": ("p", [0, 0, 2, 0, 0, 0, 1, 3], "Conv<pads=[0,1,2,0]>(a, w)", True),
    "before SAME_UPPER": ("p", ONE, f'Conv<auto_pad="SAME_UPPER", {HALVE}>(a, w)', False),
    "before SAME_LOWER": ("p", LOW, f'Conv<auto_pad="SAME_LOWER", {HALVE}>(a, w)', False),
    "before VALID": ("p", ONE, 'Conv<auto_pad="VALID">(a, w)', True),
    "into a dilated Conv": ("p", [0, 0, 2, 1, 0, 0, 1, 2], "Conv<dilations=[2,2], strides=[2,1]>(a, w)", True),
    "negative on one side": ("p", [0, 0, 2, 1, 0, 0, -1, 1], "Conv(a, w)", False),
    "by the edge": ("p", ONE, "Conv(a, w)", False, '<mode="edge">'),
    "by an explicit zero": ("p, zero", ONE, "Conv(a, w)", True),
    "by one": ("p, one", ONE, "Conv(a, w)", False),
    "of two axes": ("p, , hw", [1, 0, 0, 2], "Conv(a, w)", True),
    "zero before MaxPool": ("p, zero", ONE, f"MaxPool<{K}>(a)", False),
    "minus infinity before MaxPool": ("p, low", [0, 0, 2, 1, 0, 0, 1, 0], f"MaxPool<{K}>(a)", True),
    "wider than the kernel": ("p, low", [0, 0, 2, 2, 0, 0, 2, 2], "MaxPool<kernel_shape=[2,2]>(a)", False),
    "before a MaxPool that rounds up": ("p, low", ONE, f"MaxPool<{K}, {HALVE}, ceil_mode=1>(a)", False),
    "before AveragePool": ("p", LOW, f"AveragePool<{K}>(a)", True),
    "before a counting pool": ("p", LOW, f"AveragePool<{K}, pads=[1,1,1,1], count_include_pad=1>(a)", True),
    "before a pool that does not count": ("p", LOW, f"AveragePool<{K}, pads=[1,1,1,1]>(a)", False),
    "before a pool that rounds up": ("p", LOW, f"AveragePool<{K}, {HALVE}, ceil_mode=1>(a)", False),
    "before GlobalAveragePool": ("p", LOW, "GlobalAveragePool(a)", False),
    "by nothing": ("p", [0] * 8, "Conv(a, w)", True),
    "of the batch": ("p", [1, 0, 1, 1, 0, 0, 1, 1], "Conv(a, w)", False),
}
PADS = {
    name: (
        f"(float[N,3,8,8] x) => (float[] y) {{ a = Pad{''.join(mode)}(x, {given}) y = {layer} }}",
        {"p": i64(pads), "one": f32(1), "low": f32(-np.inf), "zero": f32(0), "hw": i64([2, 3])} | W,
        sorted([layer.split("<")[0].split("(")[0], *["Pad"] * (not folds)]),
    )
    for name, (given, pads, layer, folds, *mode) in PADDED.items()
}

EMPTY = {
    "a batch of none": (
        "(float[0,3,8,8] x) => (float[0,4,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }",
        W | BN, None,
    ),
    "no channels to join": (
        "(float[N,3,4,4] x, float[N,0,4,4] u) => (float[N,3,4,4] y) { a = Concat<axis=1>(x, u) y = Relu(a) }", {}, None
    ),
    "a part of nothing": (
        "(float[N,4] x) => (float[N,4] y, float[N,0] z) { y, z = Split<axis=1>(x, s) }", {"s": i64([4, 0])}, None
    ),
    "a Slice of nothing": (
        "(float[N,4] x) => (float[N,4] y, float[N,0] z) { y = Slice(x, a, b, c) z = Slice(x, b, b, c) }",
        {"a": i64([0]), "b": i64([4]), "c": i64([1])}, None,
    ),
    "Reshape to nothing": (
        "(float[0,4] x) => (float[0,2,2] y) { a = Reshape(x, s) b = Flatten(a) y = Reshape<allowzero=1>(b, t) }",
        {"s": i64([0, 2, 2]), "t": i64([0, 2, 2])}, None,
    ),
    "a mean of nothing": ("(float[N,3,4] x) => (float[N,1,1] y) { y = ReduceMean(x, a) }", {"a": i64([1, 2])}, None),
    "no axes": (
        "(float[2,3] x) => (float[2,3] y) { y = ReduceMean<noop_with_empty_axes=1>(x, a) }", {"a": i64([])}, None
    ),
    "an empty constant": (
        "(float[2,0] x) => (float[2,0] y) { y = Mul(x, k) }", {"k": np.ones((2, 0), f32)}, None
    ),
    "Expand by an empty shape": ("(float[N,3] x) => (float[N,3] y) { y = Expand(x, s) }", {"s": i64([])}, None),
}  # fmt: skip

INTEGERS = {"s": f32(0.02), "z": np.uint8(0), "t": f32([0.02, 0.05, 0.1, 0.03])}
QUANTISED = {
    "Relu before int8 by attribute": (
        "(float[4] x) => (int8[4] y) { a = Relu(x) y = QuantizeLinear<output_dtype=3>(a, s) }",
        INTEGERS, ["QuantizeLinear", "Relu"], 21,
    ),
    "Relu before uint8 without a zero point": (
        "(float[4] x) => (uint8[4] y) { a = Relu(x) y = QuantizeLinear(a, s) }", INTEGERS, ["QuantizeLinear"],
    ),
    "Relu before a scale per channel": (
        "(float[2,4] x) => (uint8[2,4] y) { a = Relu(x) y = QuantizeLinear<axis=1>(a, t) }",
        INTEGERS, ["QuantizeLinear", "Relu"],
    ),
    "Relu after unsigned integers": (
        "(uint8[4] q) => (float[4] y) { a = DequantizeLinear(q, s, z) b = Relu(a) y = Sin(b) }",
        INTEGERS, ["DequantizeLinear", "Sin"],
    ),
    "Clip just within the integers": (
        "(uint8[4] q) => (float[4] y) { a = DequantizeLinear(q, s, z) y = Clip(a, n, h) }",
        INTEGERS | {"n": f32(0), "h": f32(5.09)}, ["Clip", "DequantizeLinear"],
    ),
    "Clip around the integers": (
        "(uint8[4] q) => (float[4] y) { a = DequantizeLinear(q, s, z) y = Clip(a, n, h) }",
        INTEGERS | {"n": f32(0), "h": f32(5.2)}, ["DequantizeLinear"],
    ),
    "Relu after signed integers": (
        "(int8[4] q) => (float[4] y) { a = DequantizeLinear(q, s) y = Relu(a) }",
        INTEGERS, ["DequantizeLinear", "Relu"],
    ),
    "weights in integers": (
        f"{X} => {Y} {{ d = DequantizeLinear<axis=0>(wq, t) c = Conv(x, d) y = BatchNormalization(c, g, b, m, v) }}",
        INTEGERS | BN | {"wq": RNG.integers(-128, 128, (4, 3, 3, 3)).astype(np.int8)},
        ["BatchNormalization", "Conv", "DequantizeLinear"],
    ),
    "a layer between integers": (
        "(float[N,4,4,4] x) => (float[N,4,4,4] y) { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z)"
        " d = DequantizeLinear<axis=0>(wq, t) c = Conv(a, d, k) r = Relu(c) e = QuantizeLinear(r, s, z)"
        " y = DequantizeLinear(e, s, z) }",
        INTEGERS | {"wq": RNG.integers(-128, 128, (4, 4, 1, 1)).astype(np.int8), "k": (4,)},
        ["Conv", "DequantizeLinear", "DequantizeLinear", "DequantizeLinear", "QuantizeLinear", "QuantizeLinear"],
    ),
    "layers of integers": (
        "(uint8[N,4,4,4] x) => (uint8[N,4,4,4] y) { i = Identity(x)"
        " c = QLinearConv(i, s, z, wq, s, n, s, z) y = MaxPool<kernel_shape=[1,1]>(c) }",
        INTEGERS | {"n": np.int8(0), "wq": RNG.integers(-128, 128, (4, 4, 1, 1)).astype(np.int8)}, ["QLinearConv"],
    ),
    "bounds of integers": (
        "(int8[4] x) => (int8[4] y) { a = Max(x, n) y = Clip(a, n, h) }",
        {"n": np.int8(0), "h": np.int8(1)}, ["Clip", "Max"],
    ),
}  # fmt: skip

TABLES = {"numbers": ODD_NUMBERS, "double": DOUBLES, "Pad": PADS, "empty": EMPTY, "quantised": QUANTISED}
CASES = {f"{table}: {name}": case for table, cases in TABLES.items() for name, case in cases.items()}


@pytest.mark.parametrize("name", CASES)
def test_a_trap_of_values(name, tmp_path):
    text, weights, expected, *rest = CASES[name]
    sound(model(text, weights, *rest), tmp_path, expected, **TARGETS["ort-x86"])
