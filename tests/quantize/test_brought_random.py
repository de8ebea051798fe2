"""Random graphs in which the batch, the channels and the inputs stand anywhere: INT8 and FP16 answer as float does."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.ort_runs import answers, session
from edgesmith.optimize.calibration.sqnr import sqnr_db
from edgesmith.optimize.fp16.convert import to_fp16
from edgesmith.optimize.graph.proto_graph import with_names
from edgesmith.optimize.quantize import quantize
from support.graphs import model
from support.quant_graphs import images

f32, COUNT = np.float32, 34
TARGETS = ("ort-x86", "trt", "openvino")


def i64(*values):
    return np.array(values, np.int64)


class Drawn:
    """One graph: its text, weights and samples, drawn from a seed."""

    def __init__(self, seed):
        self.rng, self.weights, self.lines = np.random.default_rng(seed), {}, []
        self.batch = str(self.rng.choice(["1", "n", "2"]))
        self.inputs, self.heads, self.fed = [], [], {}
        field = self._front(images(COUNT, seed=seed, size=16))
        self.node("Conv", ["<pads=[1,1,1,1], strides=[2,2]>"], [field, self.weight(8, 3, 3, 3), self.weight(8)], "c0")
        self.node("Relu", [], ["c0"], "r0")
        middle = getattr(self, f"_{self.rng.choice(['windows', 'tokens', 'maps', 'up'])}")("r0")
        self._head(middle)

    def weight(self, *shape):
        name = f"w{len(self.weights)}"
        self.weights[name] = (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(f32)
        return name

    def ints(self, *values):
        name = f"k{len(self.weights)}"
        self.weights[name] = i64(*values)
        return name

    def node(self, op, attributes, reads, name):
        self.lines.append(f"{name} = {op}{''.join(attributes)}({', '.join(reads)})")
        return name

    def _front(self, fields):
        """An image of floats or bytes, channels first or last; maybe a second input."""
        if self.rng.random() < 0.5:
            value, kind = (40 * fields + 128).clip(0, 255).astype(np.uint8), "uint8"
        else:
            value, kind = fields, "float"
        last = self.rng.random() < 0.5
        self.fed["x"] = np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if last else value
        self.inputs.append(f"{kind}[{self.batch},{'16,16,3' if last else '3,16,16'}] x")
        name = self.node("Transpose", ["<perm=[0,3,1,2]>"], ["x"], "x_first") if last else "x"
        if kind == "uint8":
            self.weights["most"] = f32(64)
            name = self.node("Div", [], [self.node("Cast", ["<to=1>"], [name], "x_float"), "most"], "x_small")
        self.scaled = self.rng.random() < 0.5
        if self.scaled:
            self.inputs.append(f"float[{self.batch},1] scale")
            self.fed["scale"] = self.rng.uniform(0.5, 2, (COUNT, 1)).astype(f32)
        return name

    def _windows(self, name):
        """Four windows of each image in the first axis, a product of matrices, and back."""
        name = self.node("Reshape", [], [name, self.ints(-1, 8, 2, 4, 2, 4)], "cut")
        name = self.node("Transpose", ["<perm=[0,2,4,3,5,1]>"], [name], "cut_t")
        name = self.node("Reshape", [], [name, self.ints(-1, 16, 8)], "tokens")
        name = self.node("MatMul", [], [name, self.weight(8, 8)], "mixed")
        name = self.node("Reshape", [], [name, self.ints(-1, 2, 2, 4, 4, 8)], "grid")
        name = self.node("Transpose", ["<perm=[0,5,1,3,2,4]>"], [name], "grid_t")
        return self.node("Reshape", [], [name, self.ints(-1, 8, 8, 8)], "whole")

    def _tokens(self, name):
        """Places as rows, time first or batch first, two products of matrices and a sum, and back."""
        name = self.node("Reshape", [], [name, self.ints(0, 8, 64)], "flat")
        perm, back = ((2, 0, 1), (1, 2, 0)) if self.rng.random() < 0.5 else ((0, 2, 1), (0, 2, 1))
        name = self.node("Transpose", [f"<perm={list(perm)}>"], [name], "rows")
        inner = self.node("Relu", [], [self.node("MatMul", [], [name, self.weight(8, 12)], "wide")], "wide_r")
        name = self.node("Add", [], [self.node("MatMul", [], [inner, self.weight(12, 8)], "narrow"), name], "summed")
        name = self.node("Transpose", [f"<perm={list(back)}>"], [name], "columns")
        return self.node("Reshape", [], [name, self.ints(0, 8, 8, 8)], "square")

    def _maps(self, name):
        name = self.node("Conv", ["<group=2, pads=[1,1,1,1]>"], [name, self.weight(8, 4, 3, 3)], "c1")
        return self.node("Add", [], [name, "r0"], "a1")

    def _up(self, name):
        group = int(self.rng.choice([1, 2]))
        attributes = [f"<strides=[2,2], group={group}>"]
        name = self.node("ConvTranspose", attributes, [name, self.weight(8, 8 // group, 2, 2)], "u1")
        return self.node("AveragePool", ["<kernel_shape=[2,2], strides=[2,2]>"], [name], "u2")

    def _head(self, name):
        name = self.node("Conv", [], [name, self.weight(6, 8, 1, 1), self.weight(6)], "last")
        if self.scaled:
            self.node("Reshape", [], ["scale", self.ints(0, 1, 1, 1)], "scale_4")
            name = self.node("Mul", [], [name, "scale_4"], "scaled")
        kind = self.rng.choice(["rows", "classes", "best"])
        if kind == "rows":
            self.heads.append(f"float[{self.batch},6,8,8] y")
            self.node("Identity", [], [name], "y")
            return
        name = self.node("Flatten", [], [self.node("GlobalAveragePool", [], [name], "pool")], "vector")
        shape, turned = ((5, 6), "<transB=1>") if self.rng.random() < 0.5 else ((6, 5), "")
        self.node("Gemm", [turned], [name, self.weight(*shape), self.weight(1, 5)], "y")
        self.heads.append(f"float[{self.batch},5] y")
        if kind == "best":
            self.heads.append(f"int64[{self.batch}] best")
            self.node("ArgMax", ["<axis=1, keepdims=0>"], ["y"], "best")

    def build(self):
        text = f"({', '.join(self.inputs)}) => ({', '.join(self.heads)}) {{ {' '.join(self.lines)} }}"
        graph = model(text, self.weights, opset=20)
        for index, node in enumerate(graph.graph.node):
            if self.rng.random() < 0.3:
                node.name = "" if index % 2 else "same"
        return graph

    def samples(self):
        size = int(self.batch) if self.batch != "n" else 1
        parts = [{name: value[at : at + size] for name, value in self.fed.items()} for at in range(0, COUNT, size)]
        return parts if len(self.fed) > 1 else [part["x"] for part in parts]


def first_outputs(graph, samples):
    run = session(with_names(graph))
    feeds = [one if isinstance(one, dict) else {"x": one} for one in samples]
    return np.concatenate([answers(run, feed, ["y"])[0].ravel() for feed in feeds])


# Drawn so that each situation is shown at least once.
SEEDS = (0, 3, 4, 6, 8, 11, 23, 25, 28)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_drawn_graph_answers_as_before(seed, tmp_path):
    drawn = Drawn(seed)
    graph, samples = drawn.build(), drawn.samples()
    onnx.save(graph, tmp_path / "m.onnx")
    target = TARGETS[seed % len(TARGETS)]
    report = quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", samples, target=target)
    assert not [text for text in report.warnings if "could not" in text], drawn.lines
    assert not [why for why in report.floats.values() if "cannot" in why], drawn.lines
    expected = first_outputs(graph, samples[:8])
    assert sqnr_db(expected, first_outputs(onnx.load(tmp_path / "q.onnx"), samples[:8])) > 24, drawn.lines
    half = to_fp16(tmp_path / "m.onnx", tmp_path / "h.onnx", samples[:4])
    assert max(half.relative_error.values()) < 5e-3


def test_the_draws_show_each_situation():
    every = [Drawn(seed) for seed in SEEDS]
    assert {one.batch for one in every} == {"1", "2", "n"}
    assert {one.scaled for one in every} == {True, False}
    shown = " ".join(f"{' '.join(one.inputs)} {' '.join(one.lines)}" for one in every)
    for part in (
        "uint8[",
        "float[1,",
        "16,16,3]",
        "cut",
        "rows",
        "ConvTranspose",
        "ArgMax",
        "perm=[2, 0, 1]",
        "MatMul",
    ):
        assert part in shown, part
