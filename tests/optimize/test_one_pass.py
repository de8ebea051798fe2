"""One pass at a time: what it makes of a tiny graph and what it says about it, rewritten or refused.

With every pass running, a later one can hide what an earlier one left behind. Here what is no longer read stays.
"""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from support.graphs import batchnorm, model, ops

f32, f64, i64 = np.float32, np.float64, np.int64
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}
X4, X38, CONV = "(float[4] x) => (float[4] y)", "(float[1,3,8,8] x)", "(float[1,3,8,8] x) => (float[1,4,6,6] y)"
HALF, SIX = {"h": f32(0.5)}, {"t": f32(3), "z": f32(0), "s": f32(6)}
NAMES_STAY = "it connects two tensors whose names must both be preserved"

# pass -> name of the case -> (graph, weights, node types left, what is said, opset)
REWRITTEN = {
    "eliminate_dead_nodes": {
        "one": (f"{X4} {{ a = Sin(x) y = Relu(x) }}", {}, ["Relu"], ""),
        "a chain": (f"{X4} {{ a = Sin(x) b = Cos(a) y = Relu(x) }}", {}, ["Relu"], "2 nodes"),
        "a fork": (f"{X4} {{ a = Sin(x) b = Cos(a) c = Add(a, b) y = Relu(x) }}", {}, ["Relu"], "3 nodes"),
    },
    "drop_dropout": {
        "by default": (f"{X4} {{ a = Dropout(x) y = Sin(a) }}", {}, ["Sin"], "inference form"),
        "told so": (f"{X4} {{ a = Dropout(x, r, t) y = Sin(a) }}", {"r": f32(0.5), "t": np.array(False)}, ["Sin"],
                    "inference form"),
    },
    "drop_identity": {
        kind: (f"(float[2,3,4,4] x) => (float[2,3,4,4] y) {{ {text} y = Sin(a) }}", weights, ["Sin"],
               text.split("= ")[1].split("<")[0].split("(")[0], *rest)
        for kind, text, weights, *rest in (
            ("Identity", "a = Identity(x)", {}),
            ("Cast", "a = Cast<to=1>(x)", {}),
            ("CastLike", "a = CastLike(x, k)", {"k": f32(1)}),
            ("Transpose", "a = Transpose<perm=[0,1,2,3]>(x)", {}),
            ("Reshape", "a = Reshape(x, k)", {"k": i64([2, 3, 4, 4])}),
            ("Flatten, Sum", "a = Sum(x)", {}),
            ("Mean", "a = Mean(x)", {}),
            ("Max", "a = Max(x)", {}),
            ("Concat", "a = Concat<axis=1>(x)", {}),
            ("Split", "a = Split<axis=1>(x)", {}, 11),
            ("Slice", "a = Slice(x, k, l, m, n)", {"k": i64([0]), "l": i64([9]), "m": i64([1]), "n": i64([1])}),
            ("Slice by steps of 2 over one", "a = Slice(x, k, l)", {"k": i64([0]), "l": i64([2])}),
            ("Pad", "a = Pad(x, k)", {"k": i64([0] * 8)}),
            ("Resize by 1", 'a = Resize<mode="linear">(x, , k)', {"k": f32([1, 1, 1, 1])}),
            ("Resize to the same", 'a = Resize<mode="nearest">(x, , , k)', {"k": i64([2, 3, 4, 4])}),
            ("Upsample", 'a = Upsample<mode="nearest">(x, k)', {"k": f32([1, 1, 1, 1])}, 9),
            ("Upsample by attribute", 'a = Upsample<mode="nearest", scales=[1.0,1.0,1.0,1.0]>(x)', {}, 8),
            ("MaxPool", "a = MaxPool<kernel_shape=[1,1], strides=[1,1]>(x)", {}),
            ("AveragePool", "a = AveragePool<kernel_shape=[1,1], pads=[0,0,0,0]>(x)", {}),
            ("Clip", "a = Clip(x)", {}),
            ("Mul", "a = Mul(x, k)", {"k": f32([1])}),
            ("Mul from the left", "a = Mul(k, x)", {"k": f32(1)}),
            ("Div", "a = Div(x, k)", {"k": f32(1)}),
            ("Add from the left", "a = Add(k, x)", {"k": f32(0)}),
            ("Sub", "a = Sub(x, k)", {"k": f32(0)}),
        )
    },
    "drop_redundant_clips": {
        "Relu after uint8": (
            "(uint8[4] x) => (float[4] y) { a = DequantizeLinear(x, s, z) b = Relu(a) y = Sin(b) }",
            {"s": f32(0.1), "z": np.uint8(0)}, ["DequantizeLinear", "Sin"],
            "'DequantizeLinear0' produces no value outside its bounds",
        ),
        "Clip just around int8": (
            "(int8[4] x) => (float[4] y) { a = DequantizeLinear(x, s) b = Clip(a, l, h) y = Sin(b) }",
            {"s": f32(0.5), "l": f32(-64), "h": f32(63.5)}, ["DequantizeLinear", "Sin"],
            "'DequantizeLinear0' produces no value outside its bounds",
        ),
        "Relu before uint8": (
            "(float[4] x) => (uint8[4] y) { a = Relu(x) y = QuantizeLinear(a, s) }", {"s": f32(0.02)},
            ["QuantizeLinear", "Relu"], "drops Relu 'Relu0'",
        ),
        "Clip before int16": (
            "(float[4] x) => (int16[4] y) { a = Clip(x, l, h) y = QuantizeLinear(a, s, z) }",
            {"l": f32(-32768), "h": f32(32767), "s": f32(1), "z": np.int16(0)}, ["Clip", "QuantizeLinear"],
            "drops Clip 'Clip0'", 21,
        ),
    },
    "fold_affine": {
        f"{op} {given}": (
            f"{CONV} {{ c = Conv(x, w) y = {op}({given}) }}", W | {"+s": (4, 1, 1)}, ["Conv"],
            f"{op} into Conv 'Conv0'",
        )
        for op, given in (("Mul", "c, s"), ("Mul", "s, c"), ("Add", "s, c"), ("Sub", "c, s"), ("Sub", "s, c"),
                          ("Div", "c, s"))
    },
    "fold_affine_forward": {
        "a scale before ConvTranspose": (
            "(float[1,3,5,5] x) => (float[1,4,7,7] y) { a = Mul(x, s) y = ConvTranspose(a, w) }",
            {"w": (3, 4, 3, 3), "s": (3, 1, 1)}, ["ConvTranspose"], "Mul into ConvTranspose 'ConvTranspose1'",
        ),
        "a shift before Gemm": (
            "(float[N,3] x) => (float[N,4] y) { a = Sub(s, x) y = Gemm<alpha=0.5, beta=2.0>(a, w, k) }",
            {"w": (3, 4), "s": (3,), "k": (4,)}, ["Gemm"], "Sub into Gemm 'Gemm1'",
        ),
        "a scale before Gemm keeps its beta": (
            "(float[N,3] x) => (float[N,4] y) { a = Div(x, s) y = Gemm<beta=2.0, transB=1>(a, w, k) }",
            {"w": (4, 3), "+s": (3,), "k": (4,)}, ["Gemm"], "Div into Gemm 'Gemm1'",
        ),
        "a map before Conv of groups": (
            "(float[1,4,5,5] x) => (float[1,6,3,3] y)"
            " { a = BatchNormalization(x, g, b, m, v) y = Conv<group=2>(a, w, k) }",
            {"w": (6, 2, 3, 3), "k": (6,)} | BN, ["Conv"], "BatchNormalization into Conv 'Conv1'",
        ),
    },
    "fold_constants": {
        "a chain": (f"{X4} {{ a = Sin(w) y = Add(x, a) }}", {"w": (4,)}, ["Add"], "Sin"),
        "CastLike": (f"{X4} {{ a = CastLike(w, x) y = Add(x, a) }}", {"w": i64([1, 2, 3, 4])}, ["Add"], "CastLike"),
        "Shape": ("(float[2,3] x) => (int64[2] y) { a = Shape(x) y = Add(a, one) }", {"one": i64([1, 1])}, ["Add"],
                  "Shape"),
    },
    "fold_pad": {
        "into Conv that pads": (
            f"{X38} => (float[1,4,9,10] y) {{ a = Pad(x, p) y = Conv<pads=[1,0,1,2]>(a, w) }}",
            W | {"p": i64([0, 0, 1, 0, 0, 0, 0, 2])}, ["Conv"], "into Conv 'Conv1'",
        ),
    },
    "fold_shapes": {
        "a first dimension that is kept": (
            "(float[N,4] x) => (float[N,1,4] y) { y = Reshape(x, s) }", {"s": i64([-1, 1, 4])}, ["Reshape"],
            "Reshape to [0, 1, 4]",
        ),
        "a shape made of a free dimension": (
            "(float[N,3,4] x) => (float[N,12] y)"
            " { s = Shape<start=0, end=1>(x) t = Concat<axis=0>(s, m) y = Reshape(x, t) }",
            {"m": i64([-1])}, ["Concat", "Reshape", "Shape"], "Reshape to [0, -1]",
        ),
        "a number": (
            "(float[N,3] x) => (int64[1] y) { s = Shape(x) d = Gather(s, one) e = Mul(d, two) y = Add(e, two) }",
            {"one": i64([1]), "two": i64([2])}, ["Add", "Shape"], "Gather is 3",
        ),
    },
    "fuse_batchnorm": {
        "into branches of two dimensions": (
            "(float[2,3] x) => (float[2,7] y) { c = Gemm(x, w) d = Gemm(x, u) e = Concat<axis=1>(c, d)"
            " y = BatchNormalization(e, g, b, m, v) }",
            {"w": (3, 3), "u": (3, 4)} | batchnorm(7), ["Concat", "Gemm", "Gemm"],
            "into 2 layers before Concat 'Concat2'",
        ),
        "into branches": (
            f"{X38} => (float[1,4,6,6] y) {{ c = Conv(x, w) d = Conv(x, u) e = Concat<axis=-3>(c, d)"
            " y = BatchNormalization(e, g, b, m, v) }",
            {"w": (1, 3, 3, 3), "u": (3, 3, 3, 3)} | BN, ["Concat", "Conv", "Conv"],
            "into 2 layers before Concat 'Concat2'",
        ),
    },
    "mean_to_pool": {
        "three axes": (
            "(float[1,3,2,3,4] x) => (float[1,3,1,1,1] y) { y = ReduceMean(x, a) }", {"a": i64([4, 2, -2])},
            ["GlobalAveragePool"], "over all spatial axes",
        ),
        "by default": (
            "(float[1,3,3,4] x) => (float[1,3,1,1] y) { y = ReduceMean<axes=[2,3], keepdims=1>(x) }", {},
            ["GlobalAveragePool"], "over all spatial axes", 13,
        ),
    },
    "mean_to_pool_flat": {
        "axes that are dropped": (
            "(float[N,3,3,4] x) => (float[N,3] y) { y = ReduceMean<keepdims=0>(x, a) }", {"a": i64([2, 3])},
            ["Flatten", "GlobalAveragePool"], "over all spatial axes",
        ),
    },
    "fuse_clips": {
        "Max of 0": (f"{X4} {{ y = Max(l, x) }}", {"l": f32(0)}, ["Relu"], "Max of 0 into Relu [0, inf]"),
        "Clip of 0": (f"{X4} {{ y = Clip(x, l) }}", {"l": f32(0)}, ["Relu"], "Clip of 0 into Relu [0, inf]"),
        "Relu and Min": (f"{X4} {{ a = Relu(x) y = Min(a, h) }}", HALF, ["Clip", "Relu"],
                         "with Relu 'Relu0' into Clip [0, 0.5]"),
        "Min and Clip": (
            f"{X4} {{ a = Min(x, h) y = Clip(a, l) }}", HALF | {"l": f32(-1)}, ["Clip", "Min"],
            "with Min 'Min0' into Clip [-1, 0.5]",
        ),
        "one upper bound is left": (
            f"{X4} {{ a = Min(x, h) y = Min(a, k) }}", HALF | {"k": f32(0.25)}, ["Clip", "Min"],
            "with Min 'Min0' into Clip [-inf, 0.25]",
        ),
        "bounded already": (
            f"{X4} {{ a = Clip(x, l, h) y = Relu(a) }}", HALF | {"l": f32(0.25)}, ["Clip"],
            "Clip 'Clip0' already bounds it",
        ),
        "doubles from opset 12 on": (
            "(double[4] x) => (double[4] y) { a = Relu(x) y = Min(a, h) }", {"h": f64(0.5)}, ["Clip", "Relu"],
            "with Relu 'Relu0' into Clip [0, 0.5]", 12,
        ),
        "by attributes": (
            f"{X4} {{ a = Relu(x) y = Clip<max=0.5>(a) }}", {}, ["Clip", "Relu"],
            "with Relu 'Relu0' into Clip [0, 0.5]", 10,
        ),
    },
    "eliminate_common_subexpressions": {
        "equal nodes": (f"{X4} {{ a = Sin(x) b = Sin(x) y = Sub(a, b) }}", {}, ["Sin", "Sub"], "the same as 'Sin0'"),
    },
    "merge_reshapes": {
        "a free first dimension": (
            "(float[N,3,4] x) => (float[N,12,1] y) { a = Flatten(x) y = Unsqueeze(a, k) }", {"k": i64([2])},
            ["Flatten", "Reshape"], "Reshape with Flatten 'Flatten0'",
        ),
        "a free last dimension": (
            "(float[3,4,N] x) => (float[12,N] y) { a = Unsqueeze(x, k) y = Reshape(a, s) }",
            {"k": i64([0]), "s": i64([12, -1])}, ["Reshape", "Unsqueeze"],
            "Reshape with Unsqueeze 'Unsqueeze0'",
        ),
    },
    "merge_transposes": {
        "undone": (
            "(float[2,3,4] x) => (float[2,3,4] y) { a = Transpose(x) b = Transpose<perm=[2,1,0]>(a) y = Sin(b) }", {},
            ["Sin", "Transpose"], "reverses 'Transpose0'",
        ),
        "in a row": (
            "(float[2,3,4] x) => (float[2,4,3] y) { a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[2,1,0]>(a) }",
            {}, ["Transpose", "Transpose"], "with 'Transpose0'",
        ),
    },
    "recognise_activations": {
        "HardSigmoid": (
            f"{X4} {{ a = Add(t, x) b = Clip(a, z, s) y = Div(b, s) }}", SIX,
            ["Add", "Clip", "HardSigmoid"], "HardSigmoid",
        ),
        "HardSigmoid of its own width": (
            f"{X4} {{ a = Add(x, k) b = Clip(a, z, k) y = Mul(b, h) }}", {"k": f32(2), "z": f32(0), "h": f32(0.5)},
            ["Add", "Clip", "HardSigmoid"], "HardSigmoid",
        ),
        "HardSwish by a chain of products": (
            f"{X4} {{ a = Add(x, t) b = Clip(a, z, s) c = Mul(x, q) d = Mul(c, b) e = Div(d, t) y = Mul(e, k) }}",
            SIX | {"q": f32(0.25), "k": f32(2)}, ["Add", "Clip", "Div", "HardSwish", "Mul", "Mul"], "HardSwish",
        ),
        "HardSwish by name": (
            f"{X4} {{ a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(a, x) }}", {},
            ["HardSigmoid", "HardSwish"], "HardSwish",
        ),
    },
    "sequence_to_split": {
        "equal parts and a rest, along the first axis": (
            "(float[5,2] x) => (float[1,2] y, float[2,2] z)"
            " { s = SplitToSequence(x, k) y = SequenceAt(s, l) z = SequenceAt(s, f) }",
            {"k": i64(2), "l": i64(2), "f": i64(-3)}, ["Split"], "3 parts",
        ),
        "parts of given sizes": (
            "(float[5,2] x) => (float[1,2] y, float[4,2] z)"
            " { s = SplitToSequence(x, k) y = SequenceAt(s, l) z = SequenceAt(s, f) }",
            {"k": i64([1, 4]), "l": i64(0), "f": i64(1)}, ["Split"], "2 parts",
        ),
    },
    "slices_to_split": {
        "the first axis by default": (
            "(float[5,2] x) => (float[2,2] y, float[3,2] z) { y = Slice(x, a, b) z = Slice(x, b, c) }",
            {"a": i64([0]), "b": i64([2]), "c": i64([5])}, ["Split"], "2 Slices of 'x'",
        ),
        "by attributes": (
            "(float[2,5] x) => (float[2,2] y, float[2,3] z)"
            " { y = Slice<axes=[1], starts=[0], ends=[2]>(x) z = Slice<axes=[1], starts=[-3], ends=[9]>(x) }",
            {}, ["Split"], "2 Slices of 'x'", 9,
        ),
    },
    "split_convs": {
        "a Conv, its bias and a Clip": (
            f"{X38} => (float[1,8,6,6] y, float[1,16,6,6] z)"
            " { c = Conv(x, u, k) d = Clip(c, l, h) y, z = Split<axis=1>(d, s) }",
            {"u": (24, 3, 3, 3), "k": (24,), "l": f32(0), "h": f32(1), "s": i64([8, 16])},
            ["Clip", "Clip", "Conv", "Conv"], "'Conv0' into 2 Convs",
        ),
        "a bare Conv": (
            f"{X38} => (float[1,8,6,6] y, float[1,8,6,6] z) {{ c = Conv(x, u) y, z = Split<axis=1>(c, s) }}",
            {"u": (16, 3, 3, 3), "s": i64([8, 8])}, ["Conv", "Conv"], "'Conv0' into 2 Convs",
        ),
    },
}  # fmt: skip

REFUSED = {
    "drop_dropout": {
        "a variable": ("(float[4] x, bool t) => (float[4] y) { a = Dropout(x, r, t) y = Sin(a) }", {"r": f32(0)},
                       "training_mode is not a constant false"),
        "its mask": ("(float[4] x) => (float[4] y, bool[4] z) { a, z = Dropout(x) y = Sin(a) }", {},
                     "its mask is read"),
        "names": (f"{X4} {{ y = Dropout(x) }}", {}, NAMES_STAY),
    },
    "drop_identity": {
        "names": (f"{X4} {{ y = Identity(x) }}", {}, NAMES_STAY),
        "a mask of where the largest is": (
            "(float[1,1,4,4] x) => (float[1,1,4,4] y, int64[1,1,4,4] z) { y, z = MaxPool<kernel_shape=[1,1]>(x) }", {},
            None,
        ),
        "Cast to another type": ("(float[4] x) => (double[4] y) { a = Cast<to=11>(x) y = Neg(a) }", {}, None),
        "Transpose": ("(float[4,4] x) => (float[4,4] y) { a = Transpose(x) y = Neg(a) }", {}, None),
        "Pad": ("(float[4] x) => (float[5] y) { a = Pad(x, k) y = Neg(a) }", {"k": i64([0, 1])}, None),
        "Resize to the same by more than 1": (
            '(float[1,1,4,4] x) => (float[1,1,4,4] y) { a = Resize<mode="linear">(x, , k) y = Neg(a) }',
            {"k": f32([1, 1, 1.2, 1.2])}, None,
        ),
        "cubic": (
            '(float[1,1,4,4] x) => (float[1,1,4,4] y) { a = Resize<mode="cubic">(x, , k) y = Neg(a) }',
            {"k": f32([1, 1, 1, 1])}, None,
        ),
        "Slice backwards": (
            "(float[4] x) => (float[4] y) { a = Slice(x, k, l, m, k) y = Neg(a) }",
            {"k": i64([-1]), "l": i64([-9]), "m": i64([0])}, None,
        ),
        "a window of 2": (
            '(float[1,1,4,4] x) => (float[1,1,4,4] y) { a = MaxPool<kernel_shape=[2,1], auto_pad="SAME_UPPER">(x)'
            " y = Neg(a) }", {}, None,
        ),
        "a window with pads": (
            "(float[1,1,4,4] x) => (float[1,1,4,4] y)"
            " { a = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x) y = Neg(a) }", {}, None,
        ),
        "one from the left": (f"{X4} {{ a = Div(k, x) y = Neg(a) }}", {"k": f32(1)}, None),
        "zero from the left": (f"{X4} {{ a = Sub(k, x) y = Neg(a) }}", {"k": f32(0)}, None),
        "zero times": (f"{X4} {{ a = Mul(x, k) y = Neg(a) }}", {"k": f32(0)}, None),
        "plus one": (f"{X4} {{ a = Add(x, k) y = Neg(a) }}", {"k": f32(1)}, None),
        "not all ones": (f"{X4} {{ a = Mul(x, k) y = Neg(a) }}", {"k": f32([1, 1, 1, 2])}, None),
        "Clip above": (f"{X4} {{ a = Clip(x, , h) y = Neg(a) }}", HALF, None),
        "Clip by attribute": (f"{X4} {{ a = Clip<max=0.5>(x) y = Neg(a) }}", {}, None, 9),
        "Clip below by attribute": (f"{X4} {{ a = Clip<min=0.5>(x) y = Neg(a) }}", {}, None, 9),
        "Max of two": ("(float[4] x, float[4] u) => (float[4] y) { a = Max(x, u) y = Neg(a) }", {}, None),
        "two parts": ("(float[4] x) => (float[2] y, float[2] z) { y, z = Split<num_outputs=2>(x) }", {}, None),
    },
    "drop_redundant_clips": {
        "integers that reach further": (
            "(int8[4] x) => (float[4] y) { a = DequantizeLinear(x, s) y = Clip(a, l, h) }",
            {"s": f32(0.5), "l": f32(-64), "h": f32(63)}, "its integers reach from -64 to 63.5",
        ),
        "a zero point in the middle": (
            "(uint8[4] x) => (float[4] y) { a = DequantizeLinear(x, s, z) y = Relu(a) }",
            {"s": f32(0.5), "z": np.uint8(100)}, "its integers reach from -50 to 77.5",
        ),
        "a scale of nothing": (
            "(float[4] x) => (uint8[4] y) { a = Relu(x) y = QuantizeLinear(a, s) }", {"s": f32(0)},
            "its scale or zero point is not one constant",
        ),
        "a variable bound": (
            "(float[4] x, float h) => (uint8[4] y) { a = Clip(x, , h) y = QuantizeLinear(a, s) }", {"s": f32(1)}, None,
        ),
        "a scale per channel": (
            "(int8[2,4] x) => (float[2,4] y) { a = DequantizeLinear<axis=0>(x, s) y = Relu(a) }",
            {"s": f32([0.5, 0.25])}, "the scale or zero point before it is not one constant",
        ),
        "a scale per channel after it": (
            "(float[2,4] x) => (uint8[2,4] y) { a = Relu(x) y = QuantizeLinear<axis=0>(a, s) }",
            {"s": f32([0.5, 0.25])}, "its scale or zero point is not one constant",
        ),
        "another end": (
            "(float[4] x) => (uint8[4] y) { a = Clip(x, l, h) y = QuantizeLinear(a, s) }",
            {"s": f32(1), "l": f32(0), "h": f32(254)}, r"it maps 0 and 254 to [0, 254], not to the ends of its range",
        ),
        "also read": (
            "(float[4] x) => (uint8[4] y, float[4] z) { a = Relu(x) y = QuantizeLinear(a, s) z = Sin(a) }",
            {"s": f32(1)}, "the output of 'Relu0' is also read elsewhere",
        ),
        "names": (
            "(uint8[4] x) => (float[4] a, float[4] y) { a = DequantizeLinear(x, s) y = Relu(a) }", {"s": f32(0.1)},
            NAMES_STAY,
        ),
    },
    "fold_affine_forward": {
        "a shift before ConvTranspose": (
            "(float[1,3,5,5] x) => (float[1,4,7,7] y) { a = Add(x, s) y = ConvTranspose(a, w) }",
            {"w": (3, 4, 3, 3), "s": (3, 1, 1)},
            "a shift before the ConvTranspose 'ConvTranspose1' is not a constant after it",
        ),
        "a shift before padding": (
            f"{X38} => (float[1,4,8,8] y) {{ a = Add(x, s) y = Conv<pads=[1,1,1,1]>(a, w) }}", W | {"s": (3, 1, 1)},
            "'Conv1' pads with zeros, which the shift would change",
        ),
        "transposed": (
            "(float[3,5] x) => (float[5,4] y) { a = BatchNormalization(x, g, b, m, v) y = Gemm<transA=1>(a, w) }",
            {"w": (3, 4)} | batchnorm(5), "its parameters do not match the channels that 'Gemm1' reads",
        ),
        "transposed and square": (
            "(float[5,5] x) => (float[5,4] y) { a = Mul(x, s) y = Gemm<transA=1>(a, w) }",
            {"w": (5, 4), "s": (5,)}, "'Gemm1' transposes its input",
        ),
        "a variable bias": (
            "(float[1,3,8,8] x, float[4] k) => (float[1,4,6,6] y) { a = Add(x, s) y = Conv(a, w, k) }",
            W | {"s": (3, 1, 1)}, "the bias of 'Conv1' is not constant",
        ),
        "one channel that becomes three": (
            "(float[1,1,8,8] x) => (float[1,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }", W | {"s": (3, 1, 1)},
            "its constant may give what it is combined with more dimensions or channels",
        ),
        "one channel that becomes two": (
            "(float[1,1,8,8] x) => (float[1,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }",
            {"w": (4, 2, 3, 3), "s": (2, 1, 1)},
            "its constant may give what it is combined with more dimensions or channels",
        ),
    },
    "fold_pad": {
        "a variable": (
            "(float[1,3,8,8] x, int64[8] p) => (float[a,b,c,d] y) { a = Pad(x, p) y = Conv(a, w) }", W,
            "its pads are not constant",
        ),
        "reflected": (
            f'{X38} => (float[1,4,7,7] y) {{ a = Pad<mode="reflect">(x, p) y = Conv(a, w) }}',
            W | {"p": i64([0, 0, 1, 1, 0, 0, 0, 0])}, "its mode is reflect",
        ),
        "an axis twice": (
            f"{X38} => (float[a,b,c,d] y) {{ a = Pad(x, p, , ax) y = Conv(a, w) }}",
            W | {"p": i64([1, 1, 0, 0]), "ax": i64([2, -2])}, "its pads do not match its axes",
        ),
        "negative": (
            f"{X38} => (float[1,4,5,6] y) {{ a = Pad(x, p) y = Conv(a, w) }}",
            W | {"p": i64([0, 0, 0, 0, 0, 0, -1, 0])}, "a pad is negative",
        ),
        "channels": (
            "(float[1,2,8,8] x) => (float[1,4,6,6] y) { a = Pad(x, p) y = Conv(a, w) }",
            W | {"p": i64([0, 0, 0, 0, 0, 1, 0, 0])}, "it pads the batch or the channels",
        ),
        "a value": (
            f"{X38} => (float[1,4,7,7] y) {{ a = Pad(x, p, k) y = Conv(a, w) }}",
            W | {"p": i64([0, 0, 1, 1, 0, 0, 0, 0]), "k": f32(2)}, "it pads with 2.0, Conv with 0.0",
        ),
        "a variable value": (
            "(float[1,3,8,8] x, float k) => (float[1,4,7,7] y) { a = Pad(x, p, k) y = Conv(a, w) }",
            W | {"p": i64([0, 0, 1, 1, 0, 0, 0, 0])}, "it pads with a variable, Conv with 0.0",
        ),
        "padding by name": (
            f'{X38} => (float[1,4,9,9] y) {{ a = Pad(x, p) y = Conv<auto_pad="SAME_UPPER">(a, w) }}',
            W | {"p": i64([0, 0, 1, 1, 0, 0, 0, 0])}, "'Conv1' pads by SAME_UPPER",
        ),
        "a kernel as wide": (
            f"{X38} => (float[1,3,8,8] y) {{ a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a) }}",
            {"p": i64([0, 0, 2, 0, 0, 0, -1, 1])}, "a pad is negative",
        ),
        "pads as wide as the kernel": (
            f"{X38} => (float[1,3,9,8] y) {{ a = Pad(x, p) y = AveragePool<kernel_shape=[2,2]>(a) }}",
            {"p": i64([0, 0, 2, 0, 0, 0, 0, 1])}, "the pads would reach the kernel of 'AveragePool1'",
        ),
    },
    "fold_affine": {
        "a layer that is read twice": (
            f"{X38} => (float[1,4,6,6] y, float[1,4,6,6] z) {{ c = Conv(x, w) y = Mul(c, s) z = Sin(c) }}",
            W | {"s": (4, 1, 1)}, "the output of 'Conv0' is also read elsewhere or is an output of the graph",
        ),
    },
    "fuse_batchnorm": {
        "an input": ("(float[1,4,8,8] x) => (float[1,4,8,8] y) { y = BatchNormalization(x, g, b, m, v) }", BN,
                     "it follows an input, not a layer"),
        "a Relu": ("(float[1,4,8,8] x) => (float[1,4,8,8] y) { r = Relu(x) y = BatchNormalization(r, g, b, m, v) }",
                   BN, "it follows Relu, not a layer"),
        "read twice": (
            f"{X38} => (float[1,4,6,6] y, float[1,4,6,6] c)"
            " { c = Conv(x, w) y = BatchNormalization(c, g, b, m, v) }",
            W | BN, "the output of 'Conv0' is also read elsewhere or is an output of the graph",
        ),
        "branches of other things": (
            f"{X38} => (float[1,7,8,8] y) {{ c = Conv<pads=[1,1,1,1]>(x, w) e = Concat<axis=1>(c, x)"
            " y = BatchNormalization(e, g, b, m, v) }", W | batchnorm(7),
            "it follows a Concat whose inputs are not all layers",
        ),
        "a Concat that is an output": (
            f"{X38} => (float[1,8,6,6] y, float[1,8,6,6] e) {{ c = Conv(x, w) d = Conv(x, u) e = Concat<axis=1>(c, d)"
            " y = BatchNormalization(e, g, b, m, v) }", W | {"u": (4, 3, 3, 3)} | batchnorm(8),
            "the output of 'Concat2' is also read elsewhere or is an output of the graph",
        ),
    },
    "mean_to_pool": {
        "one axis": ("(float[1,3,4,4] x) => (float[1,3,4,1] y) { y = ReduceMean(x, a) }", {"a": i64([3])}, None),
        "channels too": ("(float[1,3,4,4] x) => (float[1,1,1,1] y) { y = ReduceMean(x, a) }", {"a": i64([1, 2, 3])},
                         None),
        "dropped axes": ("(float[1,3,4,4] x) => (float[1,3] y) { y = ReduceMean<keepdims=0>(x, a) }",
                         {"a": i64([2, 3])}, None),
        "a row": ("(float[1,3,4] x) => (float[1,3,1] y) { y = ReduceMean(x, a) }", {"a": i64([2])}, None),
        "double": ("(double[1,3,4,4] x) => (double[1,3,1,1] y) { y = ReduceMean(x, a) }", {"a": i64([2, 3])}, None),
    },
    "mean_to_pool_flat": {
        "kept axes": ("(float[1,3,4,4] x) => (float[1,3,1,1] y) { y = ReduceMean(x, a) }", {"a": i64([2, 3])}, None),
    },
    "fuse_clips": {
        "a variable": ("(float[4] x, float h) => (float[4] y) { a = Relu(x) y = Clip(a, , h) }", {},
                       "its max is not constant"),
        "not a number": (f"{X4} {{ a = Relu(x) y = Clip(a, l) }}", {"l": f32(np.nan)}, "its min is NaN"),
        "infinity": (f"{X4} {{ a = Relu(x) y = Clip(a, l) }}", {"l": f32(np.inf)}, "it clips to infinity"),
        "read twice": (
            "(float[4] x) => (float[4] y, float[4] z) { a = Relu(x) y = Clip(a, , h) z = Sin(a) }", HALF,
            "the output of 'Relu0' is also read elsewhere or is an output of the graph",
        ),
        "doubles before opset 12": (
            "(double[4] x) => (double[4] y) { a = Relu(x) y = Min(a, h) }", {"h": f64(0.5)},
            "before opset 12 ONNX Runtime has no Clip of float64", 11,
        ),
        "one bound": (f"{X4} {{ y = Clip(x, , h) }}", HALF, None),
        "a lower bound that is not 0": (f"{X4} {{ y = Max(x, h) }}", HALF, None),
        "bounds per element": (f"{X4} {{ a = Relu(x) y = Min(a, h) }}", {"h": f32([1, 2, 3, 4])}, None),
    },
    "eliminate_common_subexpressions": {
        "texts": (
            "(float[4] x) => (float[4] y, string[2] s, string[2] t) { y = Sin(x) s = Identity(k) t = Identity(l) }",
            {"k": np.array(["a", "b"], object), "l": np.array(["a", "c"], object)}, None,
        ),
        "random numbers": (
            f"{X4} {{ a = RandomNormal<shape=[4]>() b = RandomNormal<shape=[4]>() c = Sub(a, b) y = Add(c, x) }}", {},
            None,
        ),
    },
    "fold_shapes": {
        "the only dimension": ("(float[N] x) => (float[N] y) { y = Reshape(x, s) }", {"s": i64([-1])}, None),
        "a variable shape": ("(float[N,4] x, int64[2] s) => (float[a,b] y) { y = Reshape(x, s) }", {}, None),
    },
    "merge_reshapes": {
        "the first is read too": (
            "(float[2,3,4] x) => (float[6,4] y, float[2,12] z) { a = Flatten(x) y = Reshape(a, s) z = Sin(a) }",
            {"s": i64([6, 4])}, None,
        ),
    },
    "merge_transposes": {
        "names": (
            "(float[2,3] x) => (float[3,2] a, float[2,3] y) { a = Transpose(x) y = Transpose(a) }", {}, NAMES_STAY,
        ),
        "the first is read too": (
            "(float[2,3,4] x) => (float[4,2,3] y, float[3,4,2] z)"
            " { a = Transpose<perm=[1,2,0]>(x) y = Transpose<perm=[1,2,0]>(a) z = Sin(a) }", {}, None,
        ),
    },
    "recognise_activations": {
        "a chain of products that is too long": (
            f"{X4} {{ a = Add(x, t) b = Clip(a, z, s) c = Mul(b, p) d = Mul(c, p) e = Mul(d, p) f = Mul(e, p)"
            " y = Div(f, s) }", SIX | {"p": f32(1)}, None,
        ),
        "another slope": (
            f"{X4} {{ a = HardSigmoid<alpha=0.2, beta=0.5>(x) y = Mul(a, x) }}", {}, None,
        ),
        "another width": (f"{X4} {{ a = Add(x, t) b = Clip(a, z, s) y = Div(b, t) }}", SIX, None),
        "a sum of two activations": (
            "(float[4] x, float[4] u) => (float[4] y) { a = Add(x, u) b = Clip(a, z, s) y = Div(b, s) }", SIX, None,
        ),
        "another foot": (f"{X4} {{ a = Add(x, t) b = Clip(a, t, s) y = Div(b, s) }}", SIX, None),
        "a constant divided": (f"{X4} {{ a = Add(x, t) b = Clip(a, t, s) y = Div(s, b) }}", SIX, None),
        "doubles": (
            "(double[4] x) => (double[4] y) { a = Add(x, t) b = Clip(a, z, s) y = Div(b, s) }",
            {name: f64(value) for name, value in SIX.items()}, None,
        ),
        "before opset 14": (
            f"{X4} {{ a = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(a, x) }}", {}, None, 13,
        ),
        "read twice": (
            "(float[4] x) => (float[4] y, float[4] v) { a = Add(x, t) b = Clip(a, z, s) y = Div(b, s) v = Sin(b) }",
            SIX, None,
        ),
    },
    "sequence_to_split": {
        "a variable": ("(float[5,2] x, int64 k) => (float[a,b] y) { s = SplitToSequence(x, k) y = SequenceAt(s, l) }",
                       {"l": i64(0)}, "its parts are not constant"),
        "a part of nothing": (
            "(float[5,2] x) => (float[5,2] y) { s = SplitToSequence(x, k) y = SequenceAt(s, l) }",
            {"k": i64([0, 5]), "l": i64(1)}, "its parts are not constant",
        ),
        "counted": (
            "(float[5,2] x) => (int64 y) { s = SplitToSequence(x, k) y = SequenceLength(s) }", {"k": i64(2)},
            "the sequence is not read only by SequenceAt at constant positions",
        ),
        "outside": (
            "(float[4,2] x) => (float[2,2] y) { s = SplitToSequence(x, k) y = SequenceAt(s, l) }",
            {"k": i64(2), "l": i64(2)}, "a position is outside the sequence",
        ),
        "twice": (
            "(float[4,2] x) => (float[2,2] y, float[2,2] z)"
            " { s = SplitToSequence(x, k) y = SequenceAt(s, l) z = SequenceAt(s, f) }",
            {"k": i64(2), "l": i64(1), "f": i64(-1)}, "one part is read twice",
        ),
    },
    "slices_to_split": {
        "a gap": (
            "(float[6] x) => (float[2] y, float[3] z) { y = Slice(x, a, b) z = Slice(x, c, d) }",
            {"a": i64([0]), "b": i64([2]), "c": i64([3]), "d": i64([6])}, None,
        ),
        "a variable": (
            "(float[6] x, int64[1] b) => (float[n] y, float[m] z) { y = Slice(x, a, b) z = Slice(x, b, c) }",
            {"a": i64([0]), "c": i64([6])}, None,
        ),
        "a rest": (
            "(float[6] x) => (float[2] y, float[3] z) { y = Slice(x, a, b) z = Slice(x, b, c) }",
            {"a": i64([0]), "b": i64([2]), "c": i64([5])}, None,
        ),
        "all in one": ("(float[6] x) => (float[6] y) { y = Slice(x, a, b) }", {"a": i64([0]), "b": i64([6])}, None),
        "steps": (
            "(float[6] x) => (float[1] y, float[4] z) { y = Slice(x, a, b, a, b) z = Slice(x, b, c, a) }",
            {"a": i64([0]), "b": i64([2]), "c": i64([6])}, None,
        ),
    },
    "split_convs": {
        "parts of half a block": (
            f"{X38} => (float[1,4,6,6] y, float[1,12,6,6] z) {{ c = Conv(x, u) y, z = Split<axis=1>(c, s) }}",
            {"u": (16, 3, 3, 3), "s": i64([4, 12])}, "its parts [4, 12] are not multiples of 8",
        ),
        "variable weights": (
            "(float[1,3,8,8] x, float[16,3,3,3] u) => (float[1,8,6,6] y, float[1,8,6,6] z)"
            " { c = Conv(x, u) y, z = Split<axis=1>(c, s) }",
            {"s": i64([8, 8])}, "the weights of 'Conv0' are not constant",
        ),
        "read twice": (
            f"{X38} => (float[1,8,6,6] y, float[1,8,6,6] z, float[1,16,6,6] c)"
            " { c = Conv(x, u) y, z = Split<axis=1>(c, s) }",
            {"u": (16, 3, 3, 3), "s": i64([8, 8])}, "the output of 'Conv0' is also read elsewhere",
        ),
        "rows": (
            f"{X38} => (float[1,8,8,8] y, float[1,8,8,8] z)"
            " { c = Conv<pads=[5,1,5,1]>(x, u) y, z = Split<axis=2>(c, s) }",
            {"u": (8, 3, 3, 3), "s": i64([8, 8])}, None,
        ),
        "groups": (
            "(float[1,4,8,8] x) => (float[1,8,6,6] y, float[1,8,6,6] z)"
            " { c = Conv<group=2>(x, u) y, z = Split<axis=1>(c, s) }",
            {"u": (16, 2, 3, 3), "s": i64([8, 8])}, None,
        ),
    },
}  # fmt: skip


SHAPES = {
    "fold_shapes": ("(float[N,4] x) => (float[N,1,4] y) { y = Reshape(x, s) }", {"s": i64([-1, 1, 4])}, [0, 1, 4]),
    "merge_reshapes": (
        "(float[N,3,4] x) => (float[N,12,1] y) { a = Flatten(x) y = Unsqueeze(a, k) }", {"k": i64([2])}, [0, 12, 1],
    ),
    "slices_to_split": (
        "(float[2,5] x) => (float[2,2] y, float[2,3] z) { y = Slice(x, a, b, o) z = Slice(x, b, e, o) }",
        {"a": i64([0]), "b": i64([2]), "e": i64([9]), "o": i64([1])}, [2, 3],
    ),
}  # fmt: skip


def alone(name, text, weights, folder, *opset):
    """Run one pass on a graph; return the node types before and after and what the pass reports."""
    source, result = folder / "source.onnx", folder / "result.onnx"
    made = model(text, weights, *opset)
    onnx.save(made, source)
    report = optimize(source, result, passes=(name,), verify=False, block=8, raise_opset=False)
    (entry,) = report.passes
    assert entry.rolled_back == ()
    return ops(made), ops(result), entry, (source, result)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in REWRITTEN.items() for case in cases])
def test_what_one_pass_rewrites(name, case, tmp_path):
    text, weights, left, said, *opset = REWRITTEN[name][case]
    _, after, entry, files = alone(name, text, weights, tmp_path, *opset)
    assert after == left
    assert said in [detail for _, detail in entry.rewrites]
    check = compare(*files)
    assert check.verdict == "equal", check
    onnx.checker.check_model(onnx.load(files[1]), full_check=True)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in REFUSED.items() for case in cases])
def test_what_one_pass_refuses_and_why(name, case, tmp_path):
    text, weights, why, *opset = REFUSED[name][case]
    before, after, entry, _ = alone(name, text, weights, tmp_path, *opset)
    assert (after, entry.rewrites) == (before, ())
    assert [said for _, said in entry.refusals] == ([why] if why else [])


@pytest.mark.parametrize("name", SHAPES)
def test_the_sizes_that_one_pass_writes(name, tmp_path):
    text, weights, sizes = SHAPES[name]
    *_, files = alone(name, text, weights, tmp_path)
    made = onnx.load(files[1]).graph
    last = next(node for node in made.node if "y" in node.output)
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.initializer}
    assert held[last.input[1]].tolist() == sizes


@pytest.mark.parametrize(("kind", "bounds", "named"), [("Min", "hk", [1, 0, 1]), ("Max", "kh", [1, 1])])
def test_a_bound_that_is_infinite_is_left_out(kind, bounds, named, tmp_path):
    text = f"{X4} {{ a = {kind}(x, {bounds[0]}) y = {kind}(a, {bounds[1]}) }}"
    *_, files = alone("fuse_clips", text, HALF | {"k": f32(0.25)}, tmp_path)
    clip = next(node for node in onnx.load(files[1]).graph.node if node.op_type == "Clip")
    assert [int(bool(name)) for name in clip.input] == named


def test_one_number_widens_no_channels_that_are_not_known(tmp_path):
    text = "(float[1,C,8,8] x) => (float[1,4,6,6] y) { a = Mul(x, s) y = Conv(a, w) }"
    _, after, entry, _ = alone("fold_affine_forward", text, W | {"s": (1,)}, tmp_path)
    assert (after, [said for _, said in entry.rewrites]) == (["Conv"], ["Mul into Conv 'Conv1'"])
