"""Accuracy against counting by hand, and wrong outputs that it must not let pass."""

import math

import numpy as np
import pytest

from edgesmith.bench.measure.context import MetricContext
from edgesmith.bench.measure.evaluation import Evaluated
from edgesmith.bench.measure.workload import BenchTarget
from edgesmith.bench.metrics import accuracy
from edgesmith.bench.result import Subject
from edgesmith.runtime import tasks
from edgesmith.runtime.errors import DataError

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((200, 10)).astype(np.float32)
LABELS = RNG.integers(0, 10, 200)


def scored(logits, labels):
    return tasks.find("classify").score({"y": logits}, labels, tasks.DecodeContext())


def test_top_k_is_what_counting_says():
    score = scored(LOGITS, LABELS)
    values, intervals = score.values, score.intervals
    by_hand = {k: sum(label in sorted(range(10), key=lambda c: -row[c])[:k] for row, label in
                      zip(LOGITS, LABELS, strict=True)) / 200 for k in (1, 5)}  # fmt: skip
    assert values == {"top1_ratio": by_hand[1], "top5_ratio": by_hand[5], "images_count": 200}
    assert intervals["top1_ratio"][0] < by_hand[1] < intervals["top1_ratio"][1]


@pytest.mark.parametrize("gain", [0.1, 0.01])
def test_sqnr_of_known_noise(gain):
    assert accuracy.sqnr_db(LOGITS, LOGITS * (1 + gain)) == pytest.approx(-20 * math.log10(gain), abs=0.01)


def measured(output):
    one, two = (Evaluated(len(side), {"y": side}, {"y": side}) for side in (output, LOGITS))
    evaluations = {"test": lambda: (one, LABELS, two)}
    return accuracy.measure(MetricContext(Subject("n", "n"), BenchTarget("n"), "n", evaluations=evaluations))


def test_equal_outputs_agree_fully_and_have_no_finite_sqnr():
    values = measured(LOGITS).values
    assert values["agreement_ratio"] == 1
    assert "sqnr_db" not in values


WRONG = {"doubled": 2 * LOGITS, "negated": -LOGITS, "zeros": 0 * LOGITS, "rolled": np.roll(LOGITS, 1, axis=1)}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_output_shows(case):
    assert measured(WRONG[case]).values["sqnr_db"] <= 0.01


BROKEN = {
    "NaN": np.where(LOGITS[3, 3] == LOGITS, np.nan, LOGITS),
    "too few": LOGITS[:-1],
    "none": LOGITS[:0],
    "flat": LOGITS.ravel(),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_output_has_no_accuracy(case):
    with pytest.raises(DataError, match="accuracy cannot be computed"):
        scored(BROKEN[case], LABELS[:0] if case == "none" else LABELS)
    assert "accuracy cannot be computed" in measured(BROKEN["NaN"]).missing


def test_each_class_by_counting():
    reading = measured(LOGITS)
    rows = [row for row in reading.rows if row["split"] == "test"]
    assert sum(row["images_count"] for row in rows) == 200
    for row in rows:
        mine = [at for at in range(200) if LABELS[at] == row["class"]]
        right = sum(max(range(10), key=lambda c: LOGITS[at][c]) == row["class"] for at in mine)
        assert row["top1_ratio"] == pytest.approx(right / len(mine))
    assert reading.values["worst_class_top1_ratio"] == min(row["top1_ratio"] for row in rows)


def test_a_class_that_is_never_found_shows():
    blind = LOGITS.copy()
    blind[:, 4] = -100
    assert measured(blind).values["worst_class_top1_ratio"] == 0
