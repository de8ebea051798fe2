"""Valid small graphs, and ways to make nonsense of their structure: each takes (rng, model, folder) and changes it."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fuzz import tensors
from fuzz.pick import some, text
from support.graphs import batchnorm, model


def valid():
    """Return models of all kinds of operators that the passes look at."""
    conv = model(
        """(float[1, 3, 16, 16] x) => (float[1, 8, 1, 1] y) {
            a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
            b = BatchNormalization (a, g, b0, m, v)
            c = Clip (b, zero, six)
            d = Conv <group = 8, kernel_shape = [3, 3]> (c, dw)
            e = Relu (d)
            f = Add (e, e)
            y = GlobalAveragePool (f)
        }""",
        {"w": (8, 3, 3, 3), "dw": (8, 1, 3, 3), "zero": np.float32(0), "six": np.float32(6)}
        | dict(zip(("g", "b0", "m", "v"), batchnorm(8).values(), strict=True)),
    )
    shuffle = model(
        """(float[N, 4, 8, 8] x) => (float[N, 4, 8, 8] y) {
            s = Shape (x)
            r = Reshape (x, five)
            t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
            u = Reshape (t, four)
            p, q = Split <axis = 1, num_outputs = 2> (u)
            z = Concat <axis = 1> (q, p)
            n = Pad (z, pads)
            y = MaxPool <kernel_shape = [3, 3]> (n)
        }""",
        {"five": np.array([0, 2, 2, 8, 8]), "four": np.array([0, 4, 8, 8]), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1])},
    )
    dense = model(
        """(float[2, 4, 2, 2] x) => (float[2, 5] y) {
            f = Flatten (x)
            g = Gemm <transB = 1> (f, w, b)
            m = MatMul (g, k)
            h = HardSigmoid (m)
            i = Identity (h)
            d = Dropout (i)
            y = Softmax (d)
        }""",
        {"w": (6, 16), "b": (6,), "k": (6, 5)},
    )
    branches = model(
        """(float[2] x, bool c) => (float[2] y) {
            y = If (c) <then_branch = one () => (float[2] p) { p = Relu (x) },
                        else_branch = two () => (float[2] q) { q = Neg (x) }>
        }"""
    )
    quantised = model(
        """(float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) {
            q = QuantizeLinear (x, s, z)
            d = DequantizeLinear (q, s, z)
            w = DequantizeLinear (wq, s, z)
            y = Conv (d, w)
        }""",
        {"s": np.float32(0.1), "z": np.int8(0), "wq": np.ones((2, 2, 1, 1), np.int8)},
    )
    return [conv, shuffle, dense, branches, quantised]


def feeds(session):
    """Return ones for every input of a backend's session."""
    return {tensor.name: np.ones([dim or 1 for dim in tensor.shape], tensor.dtype) for tensor in session.inputs}


def spoiled(rng, source, folder):
    """Make one to three changes, and return their names."""
    done = []
    for _ in range(int(rng.choice([1, 1, 2, 3]))):
        if not source.graph.node:
            break
        way = WAYS[rng.integers(len(WAYS))]
        way(rng, source, folder)
        done.append(way.__name__)
    return ", ".join(done)


def cycle(rng, source, folder):
    node = some(rng, source.graph.node)
    last = source.graph.node[-1]
    if node is not None and node.input:
        node.input[0] = last.output[0]


def rename(rng, source, folder):
    node = some(rng, source.graph.node)
    names = node.input if rng.integers(2) else node.output
    if names:
        names[rng.integers(len(names))] = text(rng)


def duplicate_node(rng, source, folder):
    source.graph.node.add().CopyFrom(some(rng, source.graph.node))


def duplicate_weight(rng, source, folder):
    if tensor := some(rng, source.graph.initializer):
        source.graph.initializer.add().CopyFrom(tensor)


def drop_node(rng, source, folder):
    del source.graph.node[rng.integers(len(source.graph.node))]


def reverse(rng, source, folder):
    nodes = [copied(node) for node in source.graph.node][::-1]
    del source.graph.node[:]
    source.graph.node.extend(nodes)


def unknown_op(rng, source, folder):
    node = some(rng, source.graph.node)
    node.op_type = str(rng.choice(["Nonsense", "", "conv", "Loop", "Scan", "Einsum", "Conv", "If"]))


def unknown_domain(rng, source, folder):
    some(rng, source.graph.node).domain = str(rng.choice(["x.y", "com.microsoft", "ai.onnx.ml", "../.."]))


def opset(rng, source, folder):
    if rng.integers(4) == 0 or not source.opset_import:
        del source.opset_import[:]
    else:
        source.opset_import[0].version = int(rng.choice([0, -1, 1, 6, 7, 11, 25, 999, 2**62]))


def ir_version(rng, source, folder):
    source.ir_version = int(rng.choice([0, 1, 3, 99, 2**62]))


def no_outputs(rng, source, folder):
    del source.graph.output[:]


def no_inputs(rng, source, folder):
    del source.graph.input[:]


def more_inputs(rng, source, folder):
    some(rng, source.graph.node).input.extend([some(rng, source.graph.node).output[0]] * int(rng.choice([1, 20])))


def fewer_inputs(rng, source, folder):
    del some(rng, source.graph.node).input[int(rng.integers(0, 2)) :]


def empty_inputs(rng, source, folder):
    node = some(rng, source.graph.node)
    if node.input:
        node.input[rng.integers(len(node.input))] = ""


def long_chain(rng, source, folder):
    name = source.graph.output[0].name if source.graph.output else "x"
    count = int(rng.choice([300, 5000]))
    kind = str(rng.choice(["Relu", "Identity", "Neg"]))
    for at in range(count):
        source.graph.node.add(op_type=kind, input=[name], output=[f"{name[:20]} {at}"])
        name = f"{name[:20]} {at}"[-40:]
        source.graph.node[-1].output[0] = name


def deep_bodies(rng, source, folder):
    """If in If in If …: 5 to 90 levels (protobuf itself stops at 100)."""
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["deep"])], "g", [],
                             [helper.make_tensor_value_info("deep", 1, None)])  # fmt: skip
    for at in range(int(rng.choice([5, 15, 28]))):
        node = helper.make_node("If", ["c"], [f"deep{at}"], then_branch=body, else_branch=body if at < 3 else None)
        body = helper.make_graph([node], f"g{at}", [], [helper.make_tensor_value_info(f"deep{at}", 1, None)])
    source.graph.node.extend(body.node)
    source.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))


def endless_loop(rng, source, folder):
    """A Loop that runs for ever, or for a very long time, and collects what it makes."""
    body = onnx.parser.parse_graph(
        "b (int64 i, bool k) => (bool k2, float[4] out) "
        "{ k2 = Identity (k) out = Constant <value_floats = [1.,2.,3.,4.]> () }"
    )
    source.graph.node.append(helper.make_node("Loop", ["trips", "go"], ["looped"], body=body))
    trips = int(rng.choice([2**62, 10**7, 10**3, 1, 0, -1]))
    source.graph.initializer.extend(
        [numpy_helper.from_array(np.array(trips), "trips"), numpy_helper.from_array(np.array(True), "go")]
    )
    source.graph.output.append(helper.make_tensor_value_info("looped", 1, None))


def functions(rng, source, folder):
    """A local function that calls itself, or is called and has other inputs."""
    calls = "f" if rng.integers(2) else "g"
    function = helper.make_function(
        "local", "f", ["a"], ["b"], [helper.make_node(calls, ["a"], ["b"], domain="local")],
        [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)],
    )  # fmt: skip
    source.functions.append(function)
    source.opset_import.append(helper.make_opsetid("local", 1))
    node = some(rng, source.graph.node)
    node.op_type, node.domain = "f", "local"


def copied(message):
    made = type(message)()
    made.CopyFrom(message)
    return made


STRUCTURE = (
    cycle, rename, rename, duplicate_node, duplicate_weight, drop_node, reverse, unknown_op, unknown_domain, opset,
    ir_version, no_outputs, no_inputs, more_inputs, fewer_inputs, empty_inputs, long_chain, deep_bodies, endless_loop,
    functions,
)  # fmt: skip
WAYS = (*STRUCTURE, *tensors.WAYS)
