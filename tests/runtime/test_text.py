"""Text: the best path of CTC with the blank and the characters in the orders in use; character error rate."""

from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from edgesmith.runtime import batch_axes, tasks
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.spec import ModelSpec
from edgesmith.runtime.tasks import DecodeContext

TEXT = tasks.find("text")
ABC = ("a", "b", "c")


@dataclass
class Truth:
    text: str


def steps(path, characters=4, sure=8.0):
    """Scores, float32 (time, characters), whose best path is known."""
    return np.eye(characters, dtype=np.float32)[list(path)] * np.float32(sure)


PATHS = {
    "blank first": ([1, 1, 0, 1, 2, 2, 0, 0, 3], ABC, {}, "aabc"),
    "blank first, in the labels": ([1, 1, 0, 1, 2, 2, 0, 0, 3], ("-", *ABC), {}, "aabc"),
    "blank last": ([0, 0, 3, 0, 1, 3, 2, 2], ABC, {"blank": 3}, "aabc"),
    "blank last, in the labels": ([0, 0, 3, 0, 1, 3, 2, 2], (*ABC, "-"), {"blank": 3}, "aabc"),
    "a space at the end": ([1, 0, 3, 0, 2], ("a", "b"), {}, "a b"),
    "a space at the end, blank last": ([0, 2, 3, 1], ("a", "b"), {"blank": 3}, "a b"),
    "a space by name": ([1, 2, 3], ("a", "<space>", "b"), {}, "a b"),
    "nothing": ([0, 0, 0], ABC, {}, ""),
    "without labels": ([3, 3, 0, 3, 1], (), {}, "3 3 1"),
}


@pytest.mark.parametrize("case", PATHS)
def test_the_best_path_is_read(case):
    path, labels, decoder, text = PATHS[case]
    context = DecodeContext(labels=labels, decoder=decoder)
    outputs = {"scores": steps(path)}
    assert TEXT.fits(outputs, context)
    assert TEXT.decode(outputs, context).text == text
    for axis in (0, 1):  # a batch of one that was not told from the time
        assert TEXT.decode({"scores": np.expand_dims(steps(path), axis)}, context).text == text
    assert TEXT.show(outputs, context)["text"] == text


def test_the_confidence_is_the_mean_of_the_characters_probabilities():
    scores = np.log(np.array([[0.1, 0.7, 0.2], [0.9, 0.05, 0.05], [0.3, 0.2, 0.5]], np.float32))
    answer = TEXT.decode({"o": scores}, DecodeContext(labels=("a", "b"), scores="logits"))
    assert (answer.text, answer.confidence) == ("ab", pytest.approx((0.7 + 0.5) / 2))
    assert TEXT.line({"text": "a\nb", "confidence": 0.5}) == "'a\\nb' 50.0 %"


@pytest.mark.parametrize("labels", [("a",), tuple("abcdefg")])
def test_labels_that_are_not_the_networks_do_not_fit(labels):
    assert not TEXT.fits({"o": steps([0, 1])}, DecodeContext(labels=labels))


@pytest.mark.parametrize("decoder", [{"blank": -1}, {"blank": "0"}, {"blank": True}, {"space": 1}])
def test_settings_that_cannot_be_are_refused(decoder):
    with pytest.raises(TypeError, match="expected blank"):
        TEXT.check_decoder(decoder)


def batch(*paths):
    context = DecodeContext(labels=ABC)
    rows = [TEXT.reduce({"o": steps(path)}, context) for path in paths]
    return {name: [row[name] for row in rows] for name in rows[0]}, context


def test_cer_counts_all_characters_together():
    """«aabc» for «abc» is one too many, «» for «cb» two too few, of eight characters in all; lines differ in length."""
    answers, context = batch([1, 0, 1, 2, 3], [0, 0], [3, 2, 1])
    score = TEXT.score(answers, [Truth("abc"), Truth("cb"), Truth("cba")], context)
    assert score.values == {"cer_ratio": 3 / 8, "exact_ratio": 1 / 3, "images_count": 3.0}
    low, high = score.intervals["exact_ratio"]
    assert low < 1 / 3 < high
    assert not TEXT.higher_is_better
    assert TEXT.lost(0.1, 0.125) == pytest.approx(2.5)  # points of error more are points lost


def test_a_wrong_text_is_wrong():
    answers, context = batch([1, 2, 3])
    assert TEXT.score(answers, [Truth("abc")], context).values["cer_ratio"] == 0.0
    assert TEXT.score(answers, [Truth("xyz")], context).values["cer_ratio"] == 1.0
    with pytest.raises(DataError, match="no labels"):
        TEXT.score(answers, [Truth("abc")], DecodeContext())


def test_agreement_is_the_share_of_equal_texts():
    one, context = batch([1, 2], [3, 3])
    other, _ = batch([1, 1, 2], [3, 2])
    assert TEXT.agreement(one, one, context) == 1.0
    assert TEXT.agreement(one, other, context) == 0.5


@pytest.mark.parametrize("order", ["N, time, characters", "time, N, characters"])
def test_a_network_reads_its_path(order, tmp_path):
    """Each column of the image names a character by its brightness; the batch stands first or in the middle."""
    permutation = "[0, 2, 1]" if order.startswith("N") else "[2, 0, 1]"
    shape = "N, 6, 4" if order.startswith("N") else "6, N, 4"
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        reader (float[N, 1, 1, 6] line) => (float[{shape}] scores)
        <float[1, 4, 1, 1] centres = {{0.0, 1.0, 2.0, 3.0}}, float four = {{-4.0}}, int64[1] rows = {{2}}> {{
            away = Sub(line, centres)  far = Abs(away)  near = Mul(far, four)
            flat = Squeeze(near, rows)  scores = Transpose<perm = {permutation}>(flat) }}"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "r.onnx")
    spec = ModelSpec("reader", (1, 1, 6), 4, "text", input_name="line", output_names=("scores",), labels=ABC)
    lines = np.array([[1, 1, 0, 2, 2, 3], [3, 0, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]], np.float32)[:, None, None]
    with ort.open(tmp_path / "r.onnx", threads=1) as session:
        parts = batch_axes.answers(session, {"line": lines}, batch_axes.axes(session, spec))
    assert [TEXT.decode(part, spec.context()).text for part in parts] == ["abc", "caa", ""]
