"""Where the weights and what was seen rule out NaN, nobody searches for it; where they do not, it is found."""

import numpy as np
import pytest

from edgesmith.optimize.calibration import finite_check, statistics
from edgesmith.runtime.errors import DataError
from support.quant_graphs import Graph, batches, images, run, small_cnn

SHAPE = ("N", 3, 8, 8)


class Walked(list):
    """Batches that count how often they are walked."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def one(*nodes, **arrays):
    """A graph of nodes (operator, inputs, attributes); each reads the one before as "x"."""
    graph, last = Graph(), "input"
    for name, value in arrays.items():
        graph.array(name, value, np.asarray(value).dtype if np.asarray(value).dtype.kind == "i" else np.float32)
    for number, (op, inputs, attributes) in enumerate(nodes):
        output = "output" if number == len(nodes) - 1 else f"t{number}"
        last = graph.node(op, [last if name == "x" else name for name in inputs], output, **attributes)
    flat = any(op == "Flatten" for op, _, _ in nodes)
    return graph.model({"output": ["N", "c"] if flat else ["N", "c", "h", "w"]}, SHAPE)


DRAW = np.random.default_rng(3)
WEIGHT, MATRIX = DRAW.standard_normal((6, 3, 3, 3)), DRAW.standard_normal((5, 192))
CASES = {
    "Conv": one(("Conv", ["x", "w", "b"], {}), w=WEIGHT, b=np.full(6, 3.0)),
    "grouped Conv": one(("Conv", ["x", "w"], {"group": 3}), w=WEIGHT[:, :1]),
    "Gemm": one(
        ("Flatten", ["x"], {}), ("Gemm", ["x", "w", "b"], {"transB": 1, "alpha": 2.5, "beta": 3.0}),
        w=MATRIX, b=np.full(5, 40.0),
    ),
    "Gemm, not transposed": one(("Flatten", ["x"], {}), ("Gemm", ["x", "w"], {}), w=MATRIX.T),
    "MatMul": one(("Flatten", ["x"], {}), ("MatMul", ["x", "w"], {}), w=MATRIX.T),
    "Add": one(("Add", ["x", "c"], {}), c=np.full((1, 3, 1, 1), -7.0)),
    "Sub": one(("Sub", ["c", "x"], {}), c=np.float32(9)),
    "Mul": one(("Mul", ["x", "c"], {}), c=np.float32(-30)),
    "Clip": one(("Clip", ["x", "low"], {}), low=np.float32(50)),
    "Pad": one(("Pad", ["x", "pads", "fill"], {}), pads=np.array([0, 0, 1, 1, 0, 0, 1, 1]), fill=np.float32(99)),
    "Sigmoid": one(("Mul", ["x", "c"], {}), ("Sigmoid", ["x"], {}), c=np.float32(100)),
    "HardSwish": one(("HardSwish", ["x"], {})),
    "AveragePool": one(("AveragePool", ["x"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})),
    "all together": small_cnn(),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_larger_than_the_bound(name, monkeypatch):
    model, given = CASES[name], images(32, size=16 if name == "all together" else 8)
    most, seen = float(np.abs(run(model, given)).max()), {"input": float(np.abs(given).max())}
    assert finite_check.is_known(model)
    assert finite_check.finite(model, seen)
    monkeypatch.setattr(finite_check, "LARGEST", most * (1 - 1e-6))
    assert not finite_check.finite(model, seen)
    monkeypatch.setattr(finite_check, "LARGEST", 1e9 * most)  # the bound is not without end either
    assert finite_check.finite(model, seen)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["Conv", "Add"])
def test_a_constant_that_is_not_finite_is_no_bound(wrong, name):
    spoilt = {
        "Conv": np.where(np.arange(WEIGHT.size).reshape(WEIGHT.shape) == 7, wrong, WEIGHT),
        "Add": np.array([[[wrong]], [[1.0]], [[1.0]]]),
    }
    model = one((name, ["x", "w"], {}), ("Relu", ["x"], {}), w=spoilt[name])
    assert finite_check.is_known(model)
    assert not finite_check.finite(model, {"input": 1.0})
    with pytest.raises(DataError, match="tensor 't0' holds NaN or infinity"):
        finite_check.collect(model, ["t0", "output"], batches(size=8))


def test_what_is_made_of_something_unknown_has_no_bound():
    model = one(("Relu", ["x"], {}))
    assert not finite_check.finite(model, {"output": 1.0})
    assert finite_check.finite(model, {"input": 1.0})


@pytest.mark.parametrize(("factor", "walks"), [(1.0, 1), (1e30, 2)])
def test_only_what_may_overflow_is_walked_twice(factor, walks):
    model, given = one(("Mul", ["x", "c"], {}), ("Relu", ["x"], {}), c=np.float32(factor)), Walked(batches(size=8))
    found = finite_check.collect(model, ["t0", "output"], given)
    assert given.times == walks
    whole = statistics.collect(model, ["t0", "output"], batches(size=8))
    assert {name: seen.highs().tolist() for name, seen in found.items()} == {
        name: seen.highs().tolist() for name, seen in whole.items()
    }


def test_an_operator_without_a_bound_is_searched_at_once():
    model, given = one(("Exp", ["x"], {}), ("Relu", ["x"], {})), Walked(batches(size=8))
    assert not finite_check.is_known(model)
    finite_check.collect(model, ["t0"], given)
    assert given.times == 1


def test_nan_inside_is_found_whatever_the_maximum_makes_of_it():
    # Beyond float32 in one channel and in the other, one minus the other: NaN in many pixels, not in all.
    large = np.zeros((2, 3, 1, 1), np.float32)
    large[:, 0] = 3e38
    layers = ("Conv", ["x", "w"], {}), ("Conv", ["x", "v"], {})
    difference = np.tile(np.array([1, -1], np.float32).reshape(1, 2, 1, 1), (4, 1, 1, 1))
    wrong = np.isnan(run(one(*layers, w=large, v=difference), images(8, size=8)))
    assert wrong.any()
    assert not wrong.all()
    model = one(*layers, ("Relu", ["x"], {}), w=large, v=difference)
    with pytest.raises(DataError, match="holds NaN or infinity"):
        finite_check.collect(model, ["output"], batches(size=8))
