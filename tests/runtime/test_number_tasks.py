"""Tasks whose answer is a row of numbers: embedding, several labels, regression; each against an independent figure."""

import dataclasses

import numpy as np
import pytest

from edgesmith.runtime import tasks
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.tasks import DecodeContext

EMBED, LABELS, REGRESS = (tasks.find(name) for name in ("embed", "multi_label", "regress"))
ANOMALY = tasks.find("anomaly")
CONTEXT = DecodeContext(labels=("cat", "dog", "owl"), scores="logits")


@dataclasses.dataclass
class Truth:
    name: str = ""
    label: int = -1
    same: tuple = ()
    labels: object = None
    values: tuple = ()


def reduced(task, rows, context=CONTEXT):
    parts = [task.reduce({"o": np.asarray(row, np.float32)}, context) for row in rows]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def test_an_embedding_has_length_one_whatever_its_shape():
    flat = np.arange(1, 7, dtype=np.float32)
    for output in (flat, flat[:, None, None]):
        assert EMBED.fits({"o": output}, CONTEXT)
        assert np.linalg.norm(EMBED.decode({"o": output}, CONTEXT)) == pytest.approx(1.0)
    assert not EMBED.fits({"o": np.zeros((3, 4))}, CONTEXT)
    assert EMBED.line(EMBED.show({"o": flat}, CONTEXT)).endswith("(6 numbers)")


def test_recall_of_class_folders():
    rng = np.random.default_rng(0)
    centres, labels = rng.standard_normal((4, 16)), np.repeat(np.arange(4), 5)
    vectors = centres[labels] + 0.05 * rng.standard_normal((20, 16))
    truths = [Truth(str(at), int(label)) for at, label in enumerate(labels)]
    assert EMBED.score(reduced(EMBED, vectors), truths, CONTEXT).values["match_ratio"] == 1.0
    wrong = [Truth(str(at), at % 4) for at in range(20)]  # labels that have nothing to do with the vectors
    assert EMBED.score(reduced(EMBED, vectors), wrong, CONTEXT).values["match_ratio"] < 0.5


def test_verification_of_pairs():
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [-1, 0.2]])
    truths = [Truth("a", same=(("b", True), ("c", False))), Truth("b", same=(("d", False), ("gone", True))),
              Truth("c"), Truth("d")]  # fmt: skip
    values = EMBED.score(reduced(EMBED, vectors), truths, CONTEXT).values
    assert (values["match_ratio"], values["verification_ratio"], values["pairs_count"]) == (1.0, 1.0, 3.0)
    assert 0.1 < values["threshold"] <= 1.0
    swapped = [dataclasses.replace(one, same=tuple((name, not same) for name, same in one.same)) for one in truths]
    assert EMBED.score(reduced(EMBED, vectors), swapped, CONTEXT).values["match_ratio"] < 1.0


@pytest.mark.parametrize("truths", [[Truth("a", 0), Truth("b", 1)], [Truth("a", same=(("x", True),)), Truth("b")]])
def test_nothing_to_compare_with_is_refused(truths):
    with pytest.raises(DataError, match="cannot be computed"):
        EMBED.score(reduced(EMBED, np.eye(2)), truths, CONTEXT)


def test_labels_above_the_threshold():
    output = {"o": np.array([2.0, -1.0, 0.5], np.float32)}
    answer = LABELS.decode(output, CONTEXT)
    assert [(one.label, one.index) for one in answer] == [("cat", 0), ("owl", 2)]
    assert answer[0].probability == pytest.approx(1 / (1 + np.exp(-2.0)))
    strict = dataclasses.replace(CONTEXT, decoder={"threshold": 0.7})
    assert [one.label for one in LABELS.decode(output, strict)] == ["cat"]
    shares = {"o": np.array([0.2, 0.9, 0.6], np.float32)}
    for scores in ("", "probabilities"):
        assert [one.label for one in LABELS.decode(shares, dataclasses.replace(CONTEXT, scores=scores))] == [
            "dog",
            "owl",
        ]
    assert LABELS.line(LABELS.show({"o": np.full(3, -9, np.float32)}, CONTEXT)) == "no label"


def test_map_is_the_mean_over_the_labels_that_occur():
    """By a loop over the ranks: the mean, over an image with the label, of the precision down to its rank."""
    rng = np.random.default_rng(4)
    scores, given = rng.standard_normal((30, 3)).astype(np.float32), rng.random((30, 3)) < 0.4
    given[:, 1] = False
    expected = []
    for at in (0, 2):
        order = sorted(range(30), key=lambda image: -scores[image, at])
        ranks = [rank for rank, image in enumerate(order, 1) if given[image, at]]
        expected.append(np.mean([count / rank for count, rank in enumerate(ranks, 1)]))
    truths = [Truth(labels=np.flatnonzero(row)) for row in given]
    score = LABELS.score({"o": scores}, truths, CONTEXT)
    assert score.values["map_ratio"] == pytest.approx(np.mean(expected))
    assert [row["class"] for row in score.by_class] == [0, 2]
    right = LABELS.score({"o": given.astype(np.float32)}, truths, CONTEXT)
    assert right.values["map_ratio"] == 1.0
    assert LABELS.score({"o": -given.astype(np.float32)}, truths, CONTEXT).values["map_ratio"] < 0.6


@pytest.mark.parametrize(
    ("scores", "labels"), [(np.zeros((1, 3)), [3]), (np.zeros((1, 3)), []), (np.full((1, 3), np.nan), [0])]
)
def test_labels_that_cannot_be_judged_are_refused(scores, labels):
    with pytest.raises(DataError, match="mAP cannot be computed"):
        LABELS.score({"o": scores}, [Truth(labels=np.array(labels, np.int64))], CONTEXT)


def test_agreement_of_labels():
    one, two = np.array([[1.0, -1, 2]], np.float32), np.array([[0.5, -3, -2]], np.float32)
    assert LABELS.agreement({"o": one}, {"o": two}, CONTEXT) == pytest.approx(2 / 3)


def test_numbers_have_the_labels_names():
    assert REGRESS.decode({"o": np.array([1.5, 2.0], np.float32)}, CONTEXT) == {"cat": 1.5, "dog": 2.0}
    assert REGRESS.line(REGRESS.show({"o": np.array([31.25], np.float32)}, DecodeContext())) == "31.25"
    assert REGRESS.line({"values": {"age": 31.25}}) == "age 31.25"


def test_r2_and_the_mean_absolute_error():
    """By loops: 1 - residual / total, column by column, and the mean of the distances."""
    rng = np.random.default_rng(5)
    values, noise = rng.standard_normal((12, 2)), 0.3 * rng.standard_normal((12, 2))
    answers = (values + noise).astype(np.float32)
    score = REGRESS.score({"o": answers}, [Truth(values=tuple(row)) for row in values], CONTEXT).values
    shares = []
    for at in range(2):
        mean = sum(values[:, at]) / 12
        residual = sum((value - answer) ** 2 for value, answer in zip(values[:, at], answers[:, at], strict=True))
        shares.append(1 - residual / sum((value - mean) ** 2 for value in values[:, at]))
    assert score["r2"] == pytest.approx(np.mean(shares))
    assert score["mae"] == pytest.approx(np.abs(answers - values).mean())
    wrong = REGRESS.score({"o": answers[::-1]}, [Truth(values=tuple(row)) for row in values], CONTEXT).values
    assert wrong["r2"] < score["r2"] - 0.5


@pytest.mark.parametrize(
    ("answers", "values"), [(np.zeros((2, 2)), [(1.0,), (2.0,)]), (np.zeros((2, 1)), [(1.0,), (1.0,)])]
)
def test_numbers_that_cannot_be_judged_are_refused(answers, values):
    with pytest.raises(DataError, match="R2 cannot be computed"):
        REGRESS.score({"o": answers}, [Truth(values=one) for one in values], CONTEXT)


def test_agreement_of_numbers():
    reference = np.linspace(0, 100, 11, dtype=np.float32)[:, None]
    other = reference.copy()
    other[0] += 5
    assert REGRESS.agreement({"o": reference}, {"o": reference}, CONTEXT) == 1.0
    assert REGRESS.agreement({"o": other}, {"o": reference}, CONTEXT) == pytest.approx(10 / 11)


@dataclasses.dataclass
class Part:
    anomalous: bool
    vectors: np.ndarray

    def bank(self):
        return self.vectors


def test_what_is_far_from_the_bank_is_anomalous():
    rng = np.random.default_rng(6)
    bank = np.eye(8)[:3]
    normal = bank[rng.integers(0, 3, 20)] * rng.uniform(0.5, 3, (20, 1)) + 0.05 * rng.standard_normal((20, 8))
    vectors = np.vstack([normal, rng.standard_normal((10, 8)) + np.eye(8)[7]])
    truths = [Part(at >= 20, bank) for at in range(30)]
    batch = reduced(ANOMALY, vectors)
    share = ANOMALY.score(batch, truths, CONTEXT).values["auroc_ratio"]
    nearest = [1 - max(float(vector @ one / np.linalg.norm(vector)) for one in bank) for vector in vectors]
    pairs = [(bad > good) + 0.5 * (bad == good) for bad in nearest[20:] for good in nearest[:20]]
    assert share == pytest.approx(np.mean(pairs))
    assert share > 0.95
    turned = [Part(not one.anomalous, bank) for one in truths]
    assert ANOMALY.score(batch, turned, CONTEXT).values["auroc_ratio"] == pytest.approx(1 - share)


@pytest.mark.parametrize(
    ("truths", "message"),
    [([Part(True, np.eye(2))] * 2, "got 2 images, 2 of them anomalous"),
     ([Part(True, np.eye(3)), Part(False, np.eye(3))], r"got a bank \(3, 3\); expected \(M, 2\)")],
)  # fmt: skip
def test_anomalies_that_cannot_be_judged_are_refused(truths, message):
    with pytest.raises(DataError, match=message):
        ANOMALY.score(reduced(ANOMALY, np.eye(2)), truths, CONTEXT)
