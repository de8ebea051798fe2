"""The same network in the spelling of every opset: attributes or inputs, defaults, Constants in every form."""

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import pytest

from support.graphs import batchnorm, model
from support.sound import TARGETS, sound

f32, i64 = np.float32, np.int64
BN = batchnorm(4)
W = {"w": (4, 3, 3, 3)}


def line(opset, result, op, source, since, **settings):
    """Write a node whose settings are attributes before an opset and inputs from it on; return it and its constants."""
    if opset < since:
        given = ", ".join(f"{key}={list(value) if np.ndim(value) else value}" for key, value in settings.items())
        return f" {result} = {op}<{given}>({source})", {}
    names = {
        f"{result}_{key}": np.array(value, f32 if key in ("min", "max") else np.int64)
        for key, value in settings.items()
    }
    return f" {result} = {op}({', '.join([source, *names])})", names


def network(opset):
    """Pad, Conv, BN, Dropout, ReLU6, squeezed and unsqueezed, sliced into halves, joined, and a mean."""
    text, weights = "", dict(W | BN)
    for result, op, source, since, settings in (
        ("a", "Pad", "x", 11, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]}),
        ("c", "Conv", "a, w", 99, {"strides": [1, 1]}),
        ("d", "BatchNormalization", "c, g, b, m, v", 99, {"epsilon": 0.01}),
        ("e", "Dropout", "d", 99, {}),
        ("f", "Clip", "e", 11, {"min": 0.0, "max": 0.75}),
        ("h", "Unsqueeze", "f", 13, {"axes": [2]}),
        ("i", "Squeeze", "h", 13, {"axes": [2]}),
        ("j", "Slice", "i", 10, {"starts": [0], "ends": [2], "axes": [1]}),
        ("k", "Slice", "i", 10, {"starts": [2], "ends": [4], "axes": [1]}),
        ("l", "Concat", "k, j", 99, {"axis": 1}),
        ("n", "ReduceMean", "l", 18, {"axes": [2, 3]}),
        ("o", "Reshape", "n", 5, {"shape": [0, -1]}),
    ):
        if settings:
            more, constants = line(opset, result, op, source, since, **settings)
            text, weights = text + more, weights | constants
        else:
            text += f" {result} = {op}({source})"
    return model(f"(float[N,3,8,8] x) => (float[N,4] o) {{{text} }}", weights, opset, 8)


@pytest.mark.parametrize("opset", range(7, 25))
def test_a_network_in_every_opset(opset, tmp_path):
    made = network(opset)
    if opset < 9:  # before, BatchNormalization without its outputs of training was written the same way
        assert not made.graph.node[2].attribute[1:]
    sound(made, tmp_path, ["Clip", "Concat", "Conv", "GlobalAveragePool", "Reshape", "Split"])


TRAINING = {
    6 + 1: "y, m1, v1, sm, sv = BatchNormalization(c, g, b, m, v)",
    9: "y, m1, v1, sm, sv = BatchNormalization(c, g, b, m, v)",
    14: "y, m1, v1 = BatchNormalization<training_mode=1>(c, g, b, m, v)",
    15: "y, m1, v1 = BatchNormalization<training_mode=1>(c, g, b, m, v)",
}


@pytest.mark.parametrize("opset", TRAINING)
def test_training_mode_is_left_alone(opset, tmp_path):
    from edgesmith.optimize.optimizer import optimize

    text = f"(float[2,3,8,8] x) => (float[2,4,6,6] y) {{ c = Conv(x, w) {TRAINING[opset]} }}"
    onnx.save(model(text, W | BN, opset, 8), tmp_path / "source.onnx")
    report = optimize(tmp_path / "source.onnx", tmp_path / "result.onnx", verify=False)
    assert (report.after.nodes, report.rewrites) == (2, 0)
    refusals = next(entry.refusals for entry in report.passes if entry.name == "fuse_batchnorm")
    assert "training mode" in refusals[0][1]


CONSTANTS = {
    "value": ("Constant<value = float[1] {2.5}>()", 12),
    "value_float": ("Constant<value_float = 2.5>()", 12),
    "value_floats": ("Constant<value_floats = [2.5]>()", 12),
    "value_int": ("Constant<value_int = 2>()", 12),
    "value_ints": ("Constant<value_ints = [2]>()", 12),
}


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_in_every_form(name, tmp_path):
    text, opset = CONSTANTS[name]
    cast = "k = Cast<to=1>(k0)" if "int" in name else "k = Identity(k0)"
    graph = f"(float[1,3,8,8] x) => (float[1,4,6,6] y) {{ k0 = {text} {cast} c = Conv(x, w) y = Mul(c, k) }}"
    sound(model(graph, W, opset), tmp_path, ["Conv"])


def test_a_sparse_constant(tmp_path):
    """It is left as it is: GraphSurgeon knows no sparse tensors, and nothing may be lost."""
    made = model("(float[4] x) => (float[4] y) { a = Identity(x) y = Add(a, k) }", opset=13)
    values = onnx.numpy_helper.from_array(f32([3, 4]), "k_values")
    indices = onnx.numpy_helper.from_array(i64([1, 3]), "k_indices")
    sparse = onnx.helper.make_sparse_tensor(values, indices, [4])
    node = onnx.helper.make_node("Constant", [], ["k"], sparse_value=sparse)
    made.graph.node.insert(0, node)
    after = sound(made, tmp_path, ["Add", "Constant"])
    assert after.graph.node[0].attribute[0].sparse_tensor == sparse


def test_strings_survive(tmp_path):
    made = model("(float[1] x) => (float[1] y, string[2] s) { y = Relu(x) t = Constant<value_strings=[\"a\", \"b\"]>()"
                 " s = Identity(t) }", opset=13)  # fmt: skip
    sound(made, tmp_path)


# Inputs left out in the middle or at the end, by an empty name.
LEFT_OUT = {
    "Clip": ('y = Clip(c, , )', {}),
    "Clip without a lower bound": ('r = Relu(c) y = Clip(r, , h)', {"h": f32(0.5)}),
    "Resize": ('y = Resize<mode="nearest">(c, , , s)', {"s": i64([1, 4, 12, 12])}),
    "Resize by 1": ('r = Resize<mode="linear">(c, , one) y = Relu(r)', {"one": f32([1, 1, 1, 1])}),
    "Resize to its own size": ('r = Resize<mode="linear">(c, , , s) y = Relu(r)', {"s": i64([1, 4, 6, 6])}),
    "Resize by a little": ('y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(c, , s)',
                           {"s": f32([1, 1, 1.1, 1.1])}),
    "Dropout": ('y = Dropout(c, , )', {}),
    "Dropout of a variable ratio": ("y = Dropout(c, r, no)", {"r": f32(0.3), "no": np.array(False)}),
    "Pad": ('p = Pad(c, n, , hw) y = Conv(p, u, )', {"n": i64([1, 1, 1, 1]), "hw": i64([2, 3]), "u": (2, 4, 3, 3)}),
    "Slice": ('y = Slice(c, i, j, , k)', {"i": i64([0, 0]), "j": i64([1, 4]), "k": i64([1, 2])}),
    "Slice of the batch": ('y = Slice(c, i, j)', {"i": i64([0]), "j": i64([1])}),
    "Conv": ('d = Conv(c, u, ) e = BatchNormalization(d, g, b, m, v) y = Mul(e, h)', {"u": (4, 4, 1, 1), "h": f32(2)}),
    "Gemm": ('f = Flatten(c) y = Gemm(f, q, )', {"q": (144, 5)}),
    "Dropout's mask": ("y, mask = Dropout(c)", {}),
    "MaxPool's indices": ("y, at = MaxPool<kernel_shape=[1,1]>(c)", {}),
    "SplitToSequence": ("s = SplitToSequence<axis=1>(c, two) y = ConcatFromSequence<axis=1>(s)", {"two": i64(2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OUT)
def test_inputs_left_out(name, tmp_path):
    text, weights = LEFT_OUT[name]
    graph = f"(float[1,3,8,8] x) => (float[] y) {{ c = Conv(x, w) {text} }}"
    sound(model(graph, W | BN | weights), tmp_path, **TARGETS["ort-x86"])
