"""Likeness of two classifiers' answers: each figure against a hand-computed one, and against what is wrong."""

import math

import numpy as np
import onnx
import pytest

from edgesmith.optimize.quantize.class_likeness import ClassLikeness
from edgesmith.optimize.quantize.report import judge

SURE, TIE = (0.7, 0.2, 0.1), (0.4, 0.36, 0.24)  # margins 0.5 and 0.04
SURE_FLIPPED, TIE_FLIPPED = (0.2, 0.7, 0.1), (0.36, 0.4, 0.24)
# KL of SURE from SURE_FLIPPED: 0.7 ln 3.5 + 0.2 ln(2/7); of TIE: 0.4 ln(10/9) + 0.36 ln 0.9
KL_SURE, KL_TIE = 0.7 * math.log(3.5) - 0.2 * math.log(3.5), 0.04 * math.log(10 / 9)

CASES = {
    # (FP32's, the other's): agreed, clear, clear and agreed, flips, near ties, KL of the sum
    "equal": ([SURE, TIE], [SURE, TIE], (2, 1, 1, 0, 0, 0.0)),
    "the tie flips": ([SURE, TIE], [SURE, TIE_FLIPPED], (1, 1, 1, 1, 1, KL_TIE)),
    "the sure one flips": ([SURE, TIE], [SURE_FLIPPED, TIE], (1, 1, 0, 1, 0, KL_SURE)),
    "both flip": ([SURE, TIE], [SURE_FLIPPED, TIE_FLIPPED], (0, 1, 0, 2, 1, KL_SURE + KL_TIE)),
}  # fmt: skip


@pytest.mark.parametrize("shift", [0.0, 5.0])
@pytest.mark.parametrize("scores", ["logits", "probabilities"])
@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_computed_by_hand(case, scores, shift):
    one, two, expected = CASES[case]
    one, two = np.array(one), np.array(two)
    if scores == "logits":  # a shift that all logits share changes nothing
        one, two = np.log(one), np.log(two) + shift
    likeness = ClassLikeness.of(one, two)
    counts = (likeness.agreed, likeness.clear, likeness.clear_agreed, likeness.flips, likeness.near_ties)
    assert counts == expected[:5]
    assert likeness.kl == pytest.approx(expected[5] / 2, abs=2e-6)
    assert likeness.in_best is None
    assert likeness.images == 2


def test_the_five_best():
    one = np.zeros((3, 8))
    one[:, 0] = 1
    two = np.tile(np.arange(8.0, 0, -1), (3, 1))
    two[0, 0], two[1, 0], two[2, 0] = 9, 3.5, 2.5  # the first, the fifth behind 7 6 5 4, and the sixth
    assert ClassLikeness.of(one, two).in_best == 2


def test_a_probability_that_became_zero_is_dear_but_finite():
    likeness = ClassLikeness.of(np.array([[0.5, 0.5, 0.0]]), np.array([[1.0, 0.0, 0.0]]))
    assert 5 < likeness.kl < 10
    broken = ClassLikeness.of(np.array([[1.0, 2.0]]), np.array([[np.nan, 2.0]]))
    assert broken.to_dict()["kl_nats"] is None


def test_sums_are_those_of_all_images_at_once():
    rng = np.random.default_rng(0)
    one, two = rng.normal(0, 2, (2, 40, 9))
    whole, parts = ClassLikeness.of(one, two), ClassLikeness.of(one[:7], two[:7]) + ClassLikeness.of(one[7:], two[7:])
    assert whole.to_dict() == pytest.approx(parts.to_dict())
    assert 0 < whole.near_ties < whole.flips


def linear(weight):
    """Return a graph that multiplies (N, 4) by a matrix: logits (N, classes)."""
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = [
        onnx.helper.make_tensor_value_info(name, 1, ["N", size]) for name, size in (("x", 4), ("y", weight.shape[1]))
    ]
    given = onnx.numpy_helper.from_array(weight.astype(np.float32), "w")
    graph = onnx.helper.make_graph([node], "linear", shapes[:1], shapes[1:], [given])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def test_the_judge_finds_wrong_answers_in_all_batches():
    """A network with two classes exchanged: every figure says so."""
    weight = np.random.default_rng(1).normal(0, 2, (4, 7))
    wrong = weight[:, [1, 0, 2, 3, 4, 5, 6]]
    batches = [np.random.default_rng(at).normal(0, 1, (5, 4)).astype(np.float32) for at in range(4)]
    same = judge(linear(weight), linear(weight), batches).classes
    assert (same.images, same.flips, same.in_best, same.kl) == (20, 0, 20, 0)
    quality = judge(linear(weight), linear(wrong), batches)
    logits = np.concatenate(batches) @ weight
    flips = int(np.isin(logits.argmax(1), [0, 1]).sum())
    assert 0 < flips == quality.classes.flips
    assert quality.classes.kl > 0.1
    assert quality.agreed == {"y": 20 - flips}


def test_what_a_person_is_shown():
    text = str(ClassLikeness(64, 60, 50, 49, 63, 64 * 0.0123))
    assert text == (
        "same class: 49 of 50 with a margin above 0.1, 63 of 64 among the five best, 3 of 4 flips near ties; "
        "KL divergence 0.012 nats"
    )
    assert str(ClassLikeness(2, 2, 0, 0, None, 0.0)) == "same class: no clear image, no flips; KL divergence 0 nats"
