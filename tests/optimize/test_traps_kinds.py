"""More that could be fused wrongly: names that are taken, types that are no floats, spellings of every version."""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from edgesmith.optimize.optimizer import optimize
from edgesmith.runtime.errors import ModelError
from support.graphs import batchnorm, model, ops
from support.sound import TARGETS, sound

f32, f16, i64 = np.float32, np.float16, np.int64
RNG = np.random.default_rng(3)
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}
X = "(float[N,3,8,8] x)"
Y = "(float[N,4,6,6] y)"
BODY = "then_branch = t () => (float[N,4,6,6] o) {{ {yes} }}, else_branch = e () => (float[N,4,6,6] q) {{ {no} }}"

# name -> (graph, weights, node types expected or None, opset)
NAMES = {
    "generated names are taken by tensors": (
        f"{X} => {Y} {{ w_folded = Conv(x, w) Conv0_bias = BatchNormalization(w_folded, g, b, m, v)"
        " y_1 = Relu(Conv0_bias) y = Clip(y_1, , Clip3_max) }",
        W | BN | {"Clip3_max": f32(0.5)}, ["Clip", "Conv"], 18,
    ),
    "generated names are taken by nodes": (
        f"{X} => {Y} {{ [y] c = Conv(x, w) [c] d = BatchNormalization(c, g, b, m, v) [d] y = Relu(d) }}",
        W | BN, ["Conv", "Relu"], 18,
    ),
    "generated names are taken in a body": (
        f"(float[N,3,8,8] x, bool p) => {Y} {{ c = Conv(x, w) d = BatchNormalization(c, g, b, m, v) y = If(p)<"
        + BODY.format(yes="w_folded = Neg(d) o = Sin(w_folded)", no="c_bias = Neg(d) q = Cos(c_bias)") + "> }",
        W | BN, ["Conv", "If"], 18,
    ),
    "a body's own name is that of a dropped tensor": (
        f"(float[N,3,8,8] x, bool p) => {Y} {{ i = Conv(x, w) d = BatchNormalization(i, g, b, m, v) y = If(p)<"
        + BODY.format(yes="k = Neg(d) o = Identity(k)", no="k = Sin(d) q = Identity(k)") + "> }",
        W | BN, ["Conv", "If"], 18,
    ),
    "equal weights, one of them an output": (
        f"{X} => (float[N,4,6,6] y, float[4,3,3,3] w2) {{ a = Conv(x, w1) c = Conv(x, w2) y = Sub(a, c) }}",
        {"w1": np.ones((4, 3, 3, 3), f32), "w2": np.ones((4, 3, 3, 3), f32)}, None, 18,
    ),
    "minus zero is not zero, though equal": (
        "(float[4] x) => (float[4] y, float[4] z) { y = Div(x, a) z = Div(x, b) }",
        {"a": np.zeros(4, f32), "b": -np.zeros(4, f32)}, ["Div", "Div"], 18,
    ),
    "unequal in the middle only": (
        "(float[1000] x) => (float[1000] y, float[1000] z) { y = Add(x, a) z = Add(x, b) }",
        {"a": np.zeros(1000, f32), "b": np.eye(1, 1000, 500, dtype=f32)[0]}, ["Add", "Add"], 18,
    ),
    "constants of one value and two shapes": (
        "(float[2,3] x) => (float[2,3] y, float[2,3] z) { s = ConstantOfShape<value = float[1] {3}>(two)"
        " t = ConstantOfShape<value = float[1] {3}>(six) y = Add(x, s) z = Mul(x, t) }",
        {"two": i64([2, 3]), "six": i64([1, 3])}, ["Add", "Mul"], 18,
    ),
    "a Conv whose weights are all alike": (
        f"{X} => {Y} {{ k = ConstantOfShape<value = float[1] {{0.1}}>(s) c = Conv(x, k)"
        " d = BatchNormalization(c, g, b, m, v) e = Conv(x, k) y = Add(d, e) }",
        BN | {"s": i64([4, 3, 3, 3])}, ["Conv"], 18,
    ),
}  # fmt: skip

KINDS = {
    "strings": (
        "(string[2] x) => (string[1,2] y) { a = Identity(x) b = Reshape(a, s) y = Identity(b) }",
        {"s": i64([1, 2])}, ["Reshape"], 18,
    ),
    "truth values": (
        "(bool[4] x, float[4] u) => (float[4] y) { a = Not(x) b = Not(x) c = And(a, b) d = Identity(c) y ="
        " Where(d, u, k) }",
        {"k": (4,)}, ["And", "Not", "Where"], 18,
    ),
    "Relu of integers": ("(int32[4] x) => (int32[4] y) { a = Relu(x) y = Relu(a) }", {}, None, 14),
    "Clip of integers": (
        "(int32[4] x) => (int32[4] y) { a = Clip(x, z) y = Clip(a, , o) }", {"z": np.int32(0), "o": np.int32(1)}, None,
        18,
    ),
    "a pool of bytes": (
        "(uint8[1,1,4,4] x) => (uint8[1,1,4,4] y) { p = Pad(x, n) y = MaxPool<kernel_shape=[3,3]>(p) }",
        {"n": i64([0, 0, 1, 1, 0, 0, 1, 1])}, ["MaxPool", "Pad"], 18,
    ),
    "half precision between single-precision parameters": (
        "(float16[N,3,8,8] x) => (float16[N,4,6,6] y) { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }",
        {"w": RNG.normal(size=(4, 3, 3, 3)).astype(f16)} | BN, ["Conv"], 15,
    ),
    "sequences that are cut and joined": (
        "(float[4,6] x) => (float[4,6] y) { s = SplitToSequence<axis=1>(x, two) a = SequenceAt(s, one)"
        " t = SequenceInsert(s, a) u = SequenceErase(t, one) y = ConcatFromSequence<axis=1>(u) }",
        {"two": i64(2), "one": i64(1)}, None, 13,
    ),
    "parts of a sequence that nobody takes": (
        "(float[4,6] x) => (float[4,2] y) { s = SplitToSequence<axis=-1>(x, two) y = SequenceAt(s, last) }",
        {"two": i64(2), "last": i64(-1)}, ["Split"], 13,
    ),
    "three smallest": (
        "(float[4] x, float[4] u) => (float[4] y) { a = Min(x, u, h) y = Max(a, l, u) }",
        {"h": f32(0.5), "l": f32(-0.5)}, ["Max", "Min"], 18,
    ),
    "a product over nothing": (
        "(float[2,0] x) => (float[2,4] y) { a = MatMul(x, w) y = Add(a, t) }", {"w": np.zeros((0, 4), f32), "t": (4,)},
        None, 18,
    ),
    "a list and a volume": (
        "(float[N,3,8] x, float[N,2,4,4,4] u) => (float[N,4,6] y, float[N,4,2,2,2] z) { c = Conv(x, w)"
        " y = BatchNormalization(c, g, b, m, v) e = Conv(u, q) f = Mul(e, s) z = Add(f, t) }",
        {"w": (4, 3, 3), "q": (4, 2, 3, 3, 3), "s": (4, 1, 1, 1), "t": (1, 4, 1, 1, 1)} | BN, ["Conv", "Conv"], 18,
    ),
    "Clip without bounds": ("(float[4] x) => (float[4] y) { a = Clip(x) y = Sin(a) }", {}, ["Sin"], 18),
    "weights of half a byte": (
        "(float[2,4] x) => (float[2,4] y) { d = DequantizeLinear(q, s, z) a = MatMul(x, d) y = Mul(a, k) }",
        {"s": f32(0.1), "k": (4,)}, ["DequantizeLinear", "MatMul", "Mul"], 21,
    ),
    "weights with a scale per block": (
        "(float[2,4] x) => (float[2,4] y) { d = DequantizeLinear<axis=0, block_size=2>(q, s) a = MatMul(x, d)"
        " e = Relu(a) y = Relu(e) }",
        {"q": RNG.integers(-128, 128, (4, 4)).astype(np.int8), "s": (2, 4)}, ["DequantizeLinear", "MatMul", "Relu"], 21,
    ),
}  # fmt: skip

# How LayerNormalization was spelled before opset 17: what fuses it looks for ReduceMean, so that is left alone.
NORM = (
    "(float[2,5,8] x) => (float[2,5,8] y) { m = ReduceMean<axes=[-1]>(x) d = Sub(x, m) p = Pow(d, two)"
    " s = ReduceMean<axes=[-1]>(p) e = Add(s, eps) r = Sqrt(e) n = Div(d, r) a = Mul(n, g) y = Add(a, b) }"
)
KINDS["LayerNormalization in arithmetic"] = (
    NORM, {"two": f32(2), "eps": f32(1e-5), "g": (8,), "b": (8,)},
    ["Add", "Add", "Div", "Mul", "Pow", "ReduceMean", "ReduceMean", "Sqrt", "Sub"], 13,
)  # fmt: skip


def resized():
    """Return Resize and Upsample to the same size or by 1, in the spellings of each version."""
    one, same = {"s": f32([1, 1, 1, 1])}, {"t": i64([1, 2, 3, 3])}
    found = {}
    for mode in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric"):
        how = f'coordinate_transformation_mode="{mode}"'
        for kind in ("nearest", "linear", "cubic"):
            found[f"{mode}, {kind}"] = (f'Resize<mode="{kind}", {how}>(c, , s)', one, 19)
    for rounding in ("round_prefer_ceil", "floor", "ceil"):
        found[f"to its own size, {rounding}"] = (f'Resize<nearest_mode="{rounding}">(c, , , t)', same, 13)
    region = one | {"roi": f32([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9])}
    crop = 'Resize<mode="linear", coordinate_transformation_mode="tf_crop_and_resize">(c, roi, s)'
    found["cropped"] = (crop, region, 13)
    found["two of its axes"] = ("Resize<axes=[2,3]>(c, , s)", {"s": f32([1, 1])}, 18)
    found["by a little, so that the size stays"] = (
        'Resize<mode="linear", coordinate_transformation_mode="asymmetric">(c, , s)', {"s": f32([1, 1, 1.2, 1.2])}, 13,
    )  # fmt: skip
    found["opset 10"] = ("Resize(c, s)", one, 10)
    found["Upsample of opset 7"] = ("Upsample<scales=[1.0, 1.0, 1.0, 1.0]>(c)", {}, 7)
    found["Upsample of opset 9"] = ("Upsample(c, s)", one, 9)
    found["Upsample by a little"] = ("Upsample(c, s)", {"s": f32([1, 1, 1.3, 1.3])}, 9)
    graph = "(float[1,2,3,3] x) => (float[1,2,3,3] y) {{ c = Sin(x) d = {} y = Cos(d) }}"
    return {name: (graph.format(text), weights, None, opset) for name, (text, weights, opset) in found.items()}


TABLES = {"name": NAMES, "kind": KINDS, "Resize": resized()}
ALL = {f"{table}: {name}": entry for table, entries in TABLES.items() for name, entry in entries.items()}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ALL)
def test_a_trap_of_kinds(name, target, tmp_path):
    text, weights, expected, opset = ALL[name]
    made = model(text, weights, opset, ir=10 if opset > 20 else 8)
    if "half a byte" in name:
        nibbles = RNG.integers(-8, 8, (4, 4))
        made.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.INT4, (4, 4), nibbles.reshape(-1)))
        made.graph.initializer.append(onnx.helper.make_tensor("z", onnx.TensorProto.INT4, (), [1]))
    sound(made, tmp_path, expected, **TARGETS[target])


def test_sparse_weights_are_left_alone(tmp_path):
    made = model(f"{X} => {Y} {{ c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }}", BN)
    values = onnx.numpy_helper.from_array(f32([1, -2, 3]), "w")
    places = onnx.numpy_helper.from_array(i64([0, 50, 107]), "w_places")
    made.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, [4, 3, 3, 3]))
    onnx.save(made, tmp_path / "source.onnx")
    report = optimize(tmp_path / "source.onnx", tmp_path / "result.onnx")
    assert report.check.verdict == "equal"
    after = onnx.load(tmp_path / "result.onnx")
    assert ops(after) == ["BatchNormalization", "Conv"]
    assert after.graph.sparse_initializer == made.graph.sparse_initializer


def test_numbers_that_are_stored_one_by_one(tmp_path):
    """`float_data` and `int32_data` instead of raw bytes, small and large, touched and untouched."""
    made = model("(float[N,600] x) => (float[N,600] y, float16[600] z) { a = MatMul(x, w) y = Add(a, t) z = Abs(h) }")
    rows = {"w": RNG.normal(size=(600, 600)).astype(f32), "t": RNG.normal(size=600).astype(f32)}
    for key, array in rows.items():
        made.graph.initializer.append(onnx.helper.make_tensor(key, 1, array.shape, array.reshape(-1).tolist()))
    half = RNG.normal(size=600).astype(f16)
    made.graph.initializer.append(onnx.helper.make_tensor("h", 10, (600,), half.tolist()))
    assert not any(tensor.HasField("raw_data") for tensor in made.graph.initializer)
    after = sound(made, tmp_path, ["Abs", "Gemm"])
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in after.graph.initializer}
    assert np.array_equal(kept["w"], rows["w"])


def test_weights_of_another_length_than_their_shape(tmp_path):
    """What is damaged is refused, and nothing is written."""
    made = model(f"{X} => {Y} {{ y = Conv(x, w) }}", W)
    made.graph.initializer[0].raw_data = made.graph.initializer[0].raw_data[:-4]
    onnx.save(made, tmp_path / "source.onnx")
    with pytest.raises(ModelError):
        optimize(tmp_path / "source.onnx", tmp_path / "result.onnx", verify=False)
    assert not (tmp_path / "result.onnx").exists()


def test_a_function_of_a_standard_name_is_left_alone(tmp_path):
    made = model("(float[4] x) => (float[4] y) { a = Relu(x) y = Relu(a) }")
    body = [onnx.helper.make_node("Neg", ["i"], ["o"])]
    own = onnx.helper.make_function("", "Relu", ["i"], ["o"], body, made.opset_import)
    made.functions.append(own)
    onnx.save(made, tmp_path / "source.onnx")
    optimize(tmp_path / "source.onnx", tmp_path / "result.onnx", verify=False)
    assert ops(tmp_path / "result.onnx") == ["Relu", "Relu"]
