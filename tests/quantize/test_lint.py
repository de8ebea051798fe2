"""Calibration images are looked at first, and what was counted is kept for exactly these images."""

import numpy as np
import onnx
import pytest

from edgesmith.optimize.calibration.data_checks import bounds, class_warnings, inspect
from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples
from edgesmith.optimize.calibration.statistics_cache import collected
from edgesmith.optimize.quantize import quantize
from edgesmith.runtime import datasets
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.quant_graphs import batches, images, small_cnn

SPEC = ModelSpec("small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=0))


def samples(given):
    return Samples(given, (None, 3, 16, 16))


def digits(count=64, spec=SPEC):
    return list(datasets.load("digits", "calibration", calibration=count).batches(spec, 16))


def test_good_images_have_no_warnings():
    found = inspect(samples(digits()), SPEC)
    assert (found.images, found.warnings) == (64, ())


@pytest.mark.parametrize("change", ["one value", "order", "preprocessing"])
def test_the_digest_is_of_the_preprocessed_images_in_their_order(change):
    plain = digits()
    assert inspect(samples(plain), None).digest == inspect(samples([np.concatenate(plain)]), None).digest
    other = [batch.copy() for batch in plain]
    if change == "one value":
        other[2][0, 0, 0, 0] += 0.01
    elif change == "order":
        other.reverse()
    else:
        other = digits(spec=ModelSpec("small", (3, 16, 16), 10, preprocess=Preprocess(crop=(16, 16), resize=17)))
    assert inspect(samples(other), None).digest != inspect(samples(plain), None).digest


WARNED = {
    "copies": (lambda: [*digits(), digits()[0]], "16 of 80 images are copies of others"),
    "one colour": (lambda: [*digits(), np.ones((16, 3, 16, 16), np.float32)], "16 of 80 images are of one colour"),
    "narrow": (lambda: [0.05 * batch for batch in digits()], "of the range of values"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_may_be_wrong_is_warned_of(case):
    make, text = WARNED[case]
    assert any(text in warning for warning in inspect(samples(make()), SPEC).warnings)


def pixels():
    mean, std = (np.reshape(value, (1, 3, 1, 1)) for value in (SPEC.preprocess.mean, SPEC.preprocess.std))
    return [(batch * std + mean).astype(np.float32) for batch in digits()]


WRONG = {
    "pixels from 0 to 1": (pixels, "values from -?0.00 to 1.00;"),
    "pixels from 0 to 255": (lambda: [255 * batch for batch in pixels()], "values from -?0.00 to 255.00;"),
    "another mean": (lambda: [batch + 1 for batch in digits()], "expected values from -2.12 to 2.64"),
}


@pytest.mark.parametrize("case", WRONG)
def test_values_that_the_preprocessing_cannot_give_are_refused(case):
    make, text = WRONG[case]
    with pytest.raises(DataError, match=f"not preprocessed as small wants them; got .*{text}"):
        inspect(samples(make()), SPEC)
    assert inspect(samples(make()), SPEC, allow_random=True).images == 64


def test_the_bounds_are_those_of_black_and_white():
    low, high = bounds(SPEC.preprocess, 3)
    black, white = (np.full((20, 20, 3), value, np.uint8) for value in (0, 255))
    from edgesmith.runtime.images.preprocess import apply

    assert np.allclose(apply([black], SPEC)[0, :, 0, 0], low, atol=1e-6)
    assert np.allclose(apply([white], SPEC)[0, :, 0, 0], high, atol=1e-6)


CLASSES = ("cat", "dog", "hen")
MIXES = {
    "even": ([0, 1, 2] * 20, CLASSES, []),
    "one missing": ([0, 1] * 20, CLASSES, ["no calibration image of class hen"]),
    "one in most": ([0] * 40 + [1, 2] * 5, CLASSES, ["40 of 50 images are of class cat"]),
    "the model knows more": ([0, 1, 2] * 20, (*CLASSES, "cow"), ["no calibration image of class cow"]),
    "the model has no labels": ([0, 1, 2] * 20, (), []),
}


@pytest.mark.parametrize("case", MIXES)
def test_the_mix_of_classes(case):
    labels, expected, warnings = MIXES[case]
    assert class_warnings(np.array(labels), CLASSES, expected) == warnings


def test_other_classes_than_the_models_are_refused():
    with pytest.raises(DataError, match="show none of the model's classes; got cat, dog; expected 0, 1"):
        class_warnings(np.array([0, 1]), CLASSES, ("0", "1"))


def test_imagenets_folders_are_named_by_wordnets_numbers():
    labels = np.array([0, 1])
    assert class_warnings(labels, ("n01440764", "n01443537"), ("tench", "goldfish")) == []
    with pytest.raises(DataError, match="show none of"):
        class_warnings(labels, ("n01440764", "cat"), ("tench", "goldfish"))


@pytest.fixture
def kept(tmp_path):
    def statistics(given=None, histograms=True, names=("r1", "r2")):
        held = Samples(given or batches(), (None, 3, 16, 16), tmp_path / "cache")
        held.digest = inspect(held, None).digest
        return collected(small_cnn(), list(names), AugmentedSamples(held, 0.25), histograms=histograms)

    return statistics, tmp_path / "cache"


def same(one, two):
    ends = all((one[name].low, one[name].high) == (two[name].low, two[name].high) for name in one)
    counts = all(np.array_equal(one[name].histogram.counts, two[name].histogram.counts) for name in one)
    return ends and counts and all(np.array_equal(one[name].highs(), two[name].highs()) for name in one)


def test_a_second_run_reads_what_the_first_counted(kept, monkeypatch):
    statistics, folder = kept
    first = statistics()
    monkeypatch.setattr("edgesmith.optimize.calibration.statistics_cache.collect", None)
    assert same(first, statistics())
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("change", [{"given": [images(64, seed=1)]}, {"names": ("r1", "r4")}, {"histograms": False}])
def test_other_images_or_tensors_are_counted_anew(kept, change):
    statistics, folder = kept
    statistics()
    statistics(**change)
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 no archive", None])
def test_a_damaged_file_is_computed_again(kept, damage):
    statistics, folder = kept
    first = statistics()
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert same(first, statistics())


def test_a_cached_quantisation_is_the_same_file(tmp_path):
    onnx.save(small_cnn(), tmp_path / "m.onnx")
    made = []
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        quantize(tmp_path / "m.onnx", tmp_path / "q.onnx", batches(), target="ort-x86", cache=cache)
        made.append((tmp_path / "q.onnx").read_bytes())
    assert made[0] == made[1] == made[2]
    assert len(list((tmp_path / "cache").iterdir())) >= 1
