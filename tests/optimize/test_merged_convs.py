"""Convolutions that are one convolution: parallel ones that are added, and a 1x1 before or after another one."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.equivalence import compare
from edgesmith.optimize.optimizer import optimize
from support.graphs import batchnorm, model, ops

BN = batchnorm(4)
X, WIDE = "(float[N,4,H,W] x) => (float[N,4,h,w] y)", "(float[1,4,9,9] x) => (float[1,4,h,w] y)"
THREE, ONE, DEEP = {"u": (4, 4, 3, 3)}, {"v": (4, 4, 1, 1)}, {"d": (4, 1, 3, 3)}
BIASES = {"b": (4,), "c": (4,)}
K3, NORM = "Conv<pads=[1,1,1,1]>", "BatchNormalization(x, g, b, m, v0)"
NORMED = {"g": BN["g"], "b": BN["b"], "m": BN["m"], "v0": BN["v"]}

# name -> (graph, weights, node types left)
PARALLEL = {
    "3x3 and 1x1": (f"{X} {{ s = {K3}(x, u, b) t = Conv(x, v, c) y = Add(s, t) }}", THREE | ONE | BIASES, ["Conv"]),
    "the smaller one first": (
        f"{X} {{ s = {K3}(x, u) t = Conv(x, v, c) y = Add(t, s) }}",
        THREE | ONE | BIASES,
        ["Conv"],
    ),
    "BatchNormalization": (f"{X} {{ s = {K3}(x, u) t = {NORM} y = Add(t, s) }}", THREE | NORMED, ["Conv"]),
    "BatchNormalization and depthwise": (
        f"{X} {{ s = Conv<group=4, pads=[1,1,1,1]>(x, d) t = {NORM} y = Add(t, s) }}",
        DEEP | NORMED,
        ["Conv"],
    ),
    "BatchNormalization and groups": (
        f"{X} {{ s = Conv<group=2, pads=[1,1,1,1]>(x, d) t = {NORM} y = Add(t, s) }}",
        {"d": (4, 2, 3, 3)} | NORMED,
        ["Conv"],
    ),
    "depthwise in a dense one": (
        f"{X} {{ s = {K3}(x, u) t = Conv<group=4, pads=[1,1,1,1]>(x, d) y = Add(t, s) }}",
        THREE | DEEP,
        ["Conv"],
    ),
    "two groups in a dense one": (
        f"{X} {{ s = {K3}(x, u) t = Conv<group=2>(x, v) y = Add(t, s) }}",
        THREE | {"v": (4, 2, 1, 1)},
        ["Conv"],
    ),
    "strides": (
        f"{X} {{ s = Conv<pads=[1,1,1,1], strides=[2,2]>(x, u) t = Conv<strides=[2,2]>(x, v) y = Add(s, t) }}",
        THREE | ONE,
        ["Conv"],
    ),
    "dilations": (
        f"{X} {{ s = Conv<pads=[2,2,2,2], dilations=[2,2]>(x, u) t = Conv<dilations=[3,3]>(x, v) y = Add(s, t) }}",
        THREE | ONE,
        ["Conv"],
    ),
    "rows and columns": (
        f"{X} {{ s = {K3}(x, u) a = Conv<pads=[1,0,1,0]>(x, p) c = Conv<pads=[0,1,0,1]>(x, q) t = Add(a, c)"
        " y = Add(t, s) }",
        THREE | {"p": (4, 4, 3, 1), "q": (4, 4, 1, 3)},
        ["Conv"],
    ),
    "a corner": (
        f"{WIDE} {{ s = Conv<pads=[1,1,1,1]>(x, u) t = Conv<pads=[1,1,0,0]>(x, r) e = Conv<pads=[0,0,1,1]>(x, r)"
        " a = Add(t, e) y = Add(a, s) }",
        THREE | {"r": (4, 4, 2, 2)},
        ["Conv"],
    ),
    "through another addition": (
        f"{X} {{ s = {K3}(x, u) r = Add(s, x) t = Conv(x, v) y = Add(t, r) }}",
        THREE | ONE,
        ["Add", "Conv"],
    ),
    "Sum": (
        f"{X} {{ s = {K3}(x, u) t = Conv(x, v) e = {NORM} o = Sin(x) y = Sum(o, t, s, e) }}",
        THREE | ONE | NORMED,
        ["Conv", "Sin", "Sum"],
    ),
    "an output of the graph": (f"{X} {{ s = {K3}(x, u) t = Conv(x, v) y = Add(s, t) }}", THREE | ONE, ["Conv"]),
    "one dimension": (
        "(float[N,4,L] x) => (float[N,4,l] y) { s = Conv<pads=[1,1]>(x, u) t = Conv(x, v) y = Add(s, t) }",
        {"u": (4, 4, 3), "v": (4, 4, 1)},
        ["Conv"],
    ),
}

# name -> (graph, weights, why not)
APART = {
    "other inputs": (f"{X} {{ a = Sin(x) s = {K3}(x, u) t = Conv(a, v) y = Add(s, t) }}", THREE | ONE, ""),
    "other strides": (
        "(float[1,4,5,5] x) => (float[1,4,5,5] y) { s = Conv<pads=[1,1,1,1]>(x, u)"
        " t = Conv<strides=[2,2], pads=[2,2,2,2]>(x, v) y = Add(s, t) }",
        THREE | ONE,
        "their strides differ",
    ),
    "read elsewhere": (
        "(float[N,4,H,W] x) => (float[N,4,h,w] y, float[N,4,h,w] z)"
        f" {{ s = {K3}(x, u) t = Conv(x, v) y = Add(s, t) z = Sin(t) }}",
        THREE | ONE,
        "",
    ),
    "dense 1x1 and depthwise 3x3": (
        f"{X} {{ s = Conv<group=4, pads=[1,1,1,1]>(x, d) t = Conv(x, v) y = Add(s, t) }}",
        DEEP | ONE,
        "each of them reads channels that the other one does not read",
    ),
    "other pixels": (
        "(float[1,4,9,9] x) => (float[1,4,9,9] y) { s = Conv<pads=[2,2,0,0]>(x, u) t = Conv<pads=[0,0,2,2]>(x, w)"
        " y = Add(s, t) }",
        THREE | {"w": (4, 4, 3, 3)},
        "neither of them reads all pixels that the other one reads",
    ),
    "sizes that broadcast": (
        "(float[1,4,1,9] x) => (float[1,4,h,w] y) { s = Conv<pads=[1,1,3,1]>(x, u) t = Conv(x, v) y = Add(s, t) }",
        THREE | ONE,
        "their outputs may have different sizes",
    ),
    "padding by name": (
        f'{X} {{ s = Conv<auto_pad="SAME_UPPER">(x, u) t = Conv(x, v) y = Add(s, t) }}',
        THREE | ONE,
        "'Conv0' pads by SAME_UPPER",
    ),
    "one bias for two channel counts": (
        "(float[1,4,9,9] x) => (float[1,4,9,9] y) { s = Conv<pads=[1,1,1,1]>(x, u) t = Conv(x, v) y = Add(s, t) }",
        THREE | {"v": (1, 4, 1, 1)},
        "they have different numbers of channels",
    ),
    "computed weights": (
        "(float[1,4,9,9] x, float[4,4,1,1] v) => (float[1,4,9,9] y) { s = Conv<pads=[1,1,1,1]>(x, u) t = Conv(x, v)"
        " y = Add(s, t) }",
        THREE,
        "the weights of 'Conv1' are not constant",
    ),
    "two BatchNormalizations": (
        f"{X} {{ s = {NORM} t = {NORM} y = Add(s, t) }}",
        NORMED,
        "BatchNormalizations are added, and no convolution",
    ),
}

IN_TURN = {
    "1x1 that widens, then 3x3": (
        f"{X} {{ s = Conv(x, p) y = Conv(s, q, c) }}",
        {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)},
    ),
    "with its bias": (f"{X} {{ s = Conv(x, p, b) y = Conv(s, q, c) }}", {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)}),
    "padding without its bias": (
        f"{X} {{ s = Conv(x, p) y = {K3}(s, q, c) }}",
        {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)},
    ),
    "3x3, then 1x1, with padding": (
        f"{X} {{ s = {K3}(x, p, b) y = Conv(s, q, c) }}",
        {"p": (16, 4, 3, 3), "q": (4, 16, 1, 1)},
    ),
    "a stride and a dilation": (
        f"{X} {{ s = Conv<strides=[2,1], dilations=[1,2]>(x, p, b) y = Conv(s, q) }}",
        {"p": (16, 4, 3, 3), "q": (4, 16, 1, 1)},
    ),
    "1x1 twice": (f"{X} {{ s = Conv(x, p, b) y = Conv(s, q) }}", {"p": (16, 4, 1, 1), "q": (4, 16, 1, 1)}),
}

SEPARATE = {
    "more multiply-adds": (
        f"{X} {{ s = Conv(x, p) y = Conv(s, q) }}",
        {"p": (1, 4, 1, 1), "q": (4, 1, 3, 3)},
        "with 'Conv0' it would have 144 instead of 40 weights to multiply",
    ),
    "padding with the bias": (
        f"{X} {{ s = Conv(x, p, b) y = {K3}(s, q) }}",
        {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)},
        "'Conv0' has a bias, and 'Conv1' pads with 0",
    ),
    "padding of the 1x1": (
        f"{X} {{ s = {K3}(x, p) y = {K3}(s, q) }}",
        {"p": (16, 4, 3, 3), "q": (4, 16, 1, 1)},
        "neither of the two convolutions is 1x1 with stride 1",
    ),
    "groups": (
        f"{X} {{ s = Conv(x, p) y = Conv<group=4>(s, q) }}",
        {"p": (16, 4, 1, 1), "q": (4, 4, 3, 3)},
        "one of the two convolutions has groups",
    ),
    "an activation between": (
        f"{X} {{ s = Conv(x, p) r = Relu(s) y = Conv(r, q) }}",
        {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)},
        "",
    ),
    "read elsewhere": (
        "(float[N,4,H,W] x) => (float[N,4,h,w] y, float[N,16,H,W] s) { s = Conv(x, p) y = Conv(s, q) }",
        {"p": (16, 4, 1, 1), "q": (4, 16, 3, 3)},
        "the output of 'Conv0' is also read elsewhere or is an output of the graph",
    ),
}


def run(name, text, weights, folder):
    """Run one pass; return its report and both files, which compute the same."""
    source, result = folder / "source.onnx", folder / "result.onnx"
    onnx.save(model(text, weights), source)
    report = optimize(source, result, passes=(name,), verify=False)
    onnx.checker.check_model(onnx.load(result), full_check=True)
    check = compare(source, result)
    assert check.verdict == "equal", check
    return report.passes[0], source, result


@pytest.mark.parametrize("case", PARALLEL)
def test_convolutions_that_are_added_become_one(case, tmp_path):
    text, weights, left = PARALLEL[case]
    entry, _, result = run("merge_parallel_convs", text, weights, tmp_path)
    assert entry.rewrites
    assert ops(result) == left


@pytest.mark.parametrize("case", APART)
def test_convolutions_that_stay_apart_and_why(case, tmp_path):
    text, weights, why = APART[case]
    entry, source, result = run("merge_parallel_convs", text, weights, tmp_path)
    assert (ops(result), entry.rewrites) == (ops(source), ())
    assert [said for _, said in entry.refusals] == ([why] if why else [])


@pytest.mark.parametrize("case", IN_TURN)
def test_a_1x1_beside_another_convolution_becomes_part_of_it(case, tmp_path):
    text, weights = IN_TURN[case]
    weights = weights | {"b": (16,), "c": (4,)}
    entry, _, result = run("merge_consecutive_convs", text, weights, tmp_path)
    assert (len(entry.rewrites), ops(result)) == (1, ["Conv"])


@pytest.mark.parametrize("case", SEPARATE)
def test_convolutions_in_turn_that_stay_and_why(case, tmp_path):
    text, weights, why = SEPARATE[case]
    entry, source, result = run("merge_consecutive_convs", text, weights | {"b": (16,)}, tmp_path)
    assert (ops(result), entry.rewrites) == (ops(source), ())
    assert [said for _, said in entry.refusals] == ([why] if why else [])


def branch(random, number, strides, groups):
    """Return kernel, groups, text and weights of a convolution of 8 channels, padded to the size of its input."""
    size, own = int(random.choice([1, 3])), groups * int(random.choice([1, 2]))
    attributes = f"group={own}, strides=[{strides},{strides}], pads={[size // 2] * 4}"
    weights = {f"w{number}": (8, 8 // own, size, size), f"c{number}": (8,)}
    return size, own, f"t{number} = Conv<{attributes}>(x, w{number}, c{number})", weights


@pytest.mark.parametrize("seed", range(30))
def test_random_sums_of_convolutions_compute_the_same_with_fewer_nodes(seed, tmp_path):
    random = np.random.default_rng(seed)
    strides, groups, count = int(random.choice([1, 2])), int(random.choice([1, 2, 4])), int(random.integers(2, 5))
    sizes, counts, lines, parts = zip(
        *(branch(random, number, strides, groups) for number in range(count)), strict=True
    )
    lines, weights = list(lines), {key: value for each in parts for key, value in each.items()}
    terms = [f"t{number}" for number in random.permutation(count)]
    if strides == 1 and random.random() < 0.5:
        lines.append("n = BatchNormalization(x, g, b, m, v)")
        weights |= batchnorm(8)
        terms.insert(int(random.integers(count)), "n")
    if random.random() < 0.3:
        lines.append(f"y = Sum({', '.join(terms)})")
    else:
        names = [*(f"a{number}" for number in range(len(terms) - 2)), "y"]
        for name, left, right in zip(names, [terms[0], *names], terms[1:], strict=False):
            lines.append(f"{name} = Add({left}, {right})")
    source, result = tmp_path / "source.onnx", tmp_path / "result.onnx"
    text = f"(float[N,8,H,W] x) => (float[N,8,h,w] y) {{ {' '.join(lines)} }}"
    onnx.save(model(text, weights), source)
    report = optimize(source, result)
    assert (report.check.verdict, [entry for entry in report.passes if entry.rolled_back]) == ("equal", [])
    assert (max(sizes), min(counts)) not in zip(sizes, counts, strict=True) or ops(result) == ["Conv"]
    assert report.after.macs <= report.before.macs
