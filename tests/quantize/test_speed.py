"""INT8's speed beside FP32's: what is said of given samples, and what both files are run on."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.quantize import quantize, speed
from edgesmith.optimize.quantize.speed import Speed, from_pairs, race
from support.quant_graphs import batches, small_cnn

# pairs of (FP32, INT8) seconds -> the end of what is said
SAID = {
    "half as fast": ([(1.0, 2.0 + 0.01 * at) for at in range(20)], "ship FP32 on this kind of machine"),
    "twice as fast": ([(2.0, 1.0 + 0.01 * at) for at in range(20)], "faster than FP32"),
    "within the noise": ([(1.0, 1.0 + 0.05 * (-1) ** at) for at in range(20)], "as far as can be told"),
    "one outlier does not count": ([(1.0, 2.0)] * 20 + [(9.0, 1.0)], "ship FP32 on this kind of machine"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_what_is_said_follows_from_the_interval(case):
    pairs, end = SAID[case]
    found = from_pairs(pairs)
    assert found.low <= found.ratio <= found.high
    assert str(found).endswith(end)
    assert found.to_dict()["said"] == str(found)


def test_the_sentence_to_the_letter():
    assert str(Speed(0.49, 0.47, 0.51)) == (
        "INT8 0.49 [0.47, 0.51] of FP32's speed here: slower than FP32; ship FP32 on this kind of machine"
    )


def test_the_interval_holds_the_median_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        found = from_pairs([(ratio, 1.0) for ratio in np.exp(rng.laplace(0, 0.1, 41))])
        held += found.low <= 1.0 <= found.high
    assert 0.92 <= held / 400 <= 1.0


@pytest.fixture(scope="module")
def float_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "m.onnx"
    onnx.save(small_cnn(), path)
    return path


def test_both_are_run_where_the_target_is_this_kind_of_machine(float_file, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "BUDGET_S", 0.0)
    monkeypatch.setattr(speed, "TURN_S", 0.0)
    monkeypatch.setattr(speed, "is_here", lambda target: target == "ort-arm")
    reports = {
        target: quantize(float_file, tmp_path / target, batches(), target=target, timed=True)
        for target in ("ort-arm", "ort-x86", "trt")
    }
    found = reports["ort-arm"].speed
    assert (found.backend, found.float_s > 0, found.int8_s > 0) == ("ort", True, True)
    assert reports["ort-arm"].to_dict()["speed"]["ratio"] == found.ratio
    for target in ("ort-x86", "trt"):
        assert reports[target].speed is None
        assert reports[target].not_timed == f"{target} is not this kind of machine"


def test_what_does_not_run_is_a_reason(float_file, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "is_here", lambda target: True)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    found, why = race(float_file, tmp_path / "broken.onnx", "ort-x86", batches()[0][:1])
    assert found is None
    assert why


def test_judges_are_other_images(float_file, tmp_path):
    """Images that were fitted to are not what judges, and the file does not depend on the judges."""
    plain = quantize(float_file, tmp_path / "plain.onnx", batches(), target="ort-x86")
    judged = quantize(float_file, tmp_path / "judged.onnx", batches(), target="ort-x86", judges=[9 * batches(32)[0]])
    assert (plain.held_out, judged.held_out, plain.judged, judged.judged) == (False, True, 64, 16)
    assert plain.sqnr_db != judged.sqnr_db
    assert (tmp_path / "plain.onnx").read_bytes() == (tmp_path / "judged.onnx").read_bytes()
