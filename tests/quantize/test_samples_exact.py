"""Calibration images as a stream, what is refused of them at which edge, and what is kept of them."""

from itertools import pairwise

import numpy as np
import pytest

from edgesmith.optimize.calibration import data_checks, statistics_cache
from edgesmith.optimize.calibration.data_checks import bounds, class_warnings, inspect
from edgesmith.optimize.calibration.histogram import Histogram
from edgesmith.optimize.calibration.samples import AugmentedSamples, Samples, repeatable
from edgesmith.optimize.calibration.statistics import Stats
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.spec import ModelSpec, Preprocess
from support.graphs import model
from support.quant_graphs import images

f32 = np.float32


def cut(sizes, side=8):
    """Batches of these sizes; each image holds its number."""
    ends = np.cumsum([0, *sizes])
    numbers = np.arange(ends[-1], dtype=f32).reshape(-1, 1, 1, 1) * np.ones((1, 1, side, side), f32)
    return [numbers[low:high] for low, high in pairwise(ends)]


# sizes given, the model's batch, the side of an image -> sizes yielded
STREAMS = {
    "fixed, joined": ([3, 3, 3], 4, 8, [4, 4]),
    "fixed, cut": ([9], 4, 8, [4, 4]),
    "fixed, exact": ([4], 4, 8, [4]),
    "fixed, exact from two": ([1, 3, 4], 4, 8, [4, 4]),
    "fixed to one": ([2, 1], 1, 8, [1, 1, 1]),
    "free, small images": ([10, 10], None, 8, [16, 4]),
    "free, exactly one batch": ([16], None, 8, [16]),
    "free, few": ([3], None, 8, [3]),
    "free, images of 64": ([20], None, 64, [16, 4]),
    "free, images of 66": ([20], None, 66, [15, 5]),
    "free, images of 256": ([2], None, 256, [1, 1]),
    "free, images of 260": ([2], None, 260, [1, 1]),
    "nothing": ([], None, 8, []),
    "nothing for a batch": ([], 4, 8, []),
}


@pytest.mark.parametrize("case", STREAMS)
def test_images_are_yielded_in_batches_of_the_models_size(case):
    sizes, size, side, expected = STREAMS[case]
    made = Samples(cut(sizes, side), (size, 1, side, side))
    for _ in range(2):
        seen = list(made)
        assert [len(batch) for batch in seen] == expected
        if seen:
            assert np.concatenate(seen)[:, 0, 0, 0].tolist() == list(range(sum(expected)))
    assert made.count() == sum(expected)


@pytest.mark.parametrize(("sizes", "count"), [([3], 3), ([1, 2], 3), ([0], 0)])
def test_too_few_images_for_one_batch_are_refused(sizes, count):
    with pytest.raises(DataError) as caught:
        list(Samples(cut(sizes), (4, 1, 8, 8)))
    assert caught.value.what == "the calibration images do not fill one batch"
    assert (caught.value.got, caught.value.do) == (f"{count} images for a batch of 4", "give more images")


WRONG = {
    "another dtype": (np.zeros((2, 1, 8, 8)), "got float64 (2, 1, 8, 8); expected float32 ?x1x8x8"),
    "another rank": (np.zeros((2, 8, 8), f32), "got float32 (2, 8, 8)"),
    "other channels": (np.zeros((2, 3, 8, 8), f32), "got float32 (2, 3, 8, 8)"),
    "a list": ([1.0], "got list"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_does_not_fit_is_named(case):
    batch, text = WRONG[case]
    with pytest.raises(DataError) as caught:
        list(Samples([*cut([2]), batch], (None, 1, 8, 8)))
    assert str(caught.value).startswith("calibration batch 1 does not fit the model; ")
    assert text in str(caught.value)
    assert caught.value.do == "use the model's own preprocessing"


def test_images_of_a_free_size_are_of_one():
    free = (None, 1, None, None)
    assert [len(batch) for batch in Samples(cut([2, 3]), free)] == [5]
    with pytest.raises(DataError) as caught:
        list(Samples([*cut([2]), *cut([1], 9)], free))
    assert caught.value.got == "(1, 9, 9) in batch 1"
    assert caught.value.expected == "(1, 8, 8) as in the first"
    spoilt = cut([2])
    spoilt[0][1, 0, 0, 0] = np.inf
    with pytest.raises(DataError, match="calibration batch 0 holds NaN or infinity; do: check the preprocessing"):
        list(Samples(spoilt, free))


def picture(seed=0, high=8, wide=12):
    return np.random.default_rng(seed).uniform(-1, 1, (2, high, wide)).astype(f32)


def test_the_noise_is_a_share_of_the_images_own_spread():
    image = np.concatenate([picture(0, 64, 64), 3 * picture(1, 64, 64)])
    made = AugmentedSamples(Samples([image[None]], (None, 4, 64, 64)), 0.05)
    (noisy,) = list(made)[1]
    drawn = (noisy - image)[(noisy < image.max((1, 2), keepdims=True)) & (noisy > image.min((1, 2), keepdims=True))]
    assert drawn.std() == pytest.approx(0.05 * image.std(), rel=0.05)
    assert noisy.dtype == f32
    assert (noisy.max((1, 2)) <= image.max((1, 2))).all()
    assert (noisy.min((1, 2)) >= image.min((1, 2))).all()


def test_an_even_rectangle_covers_half_of_them_anywhere():
    batch = np.stack([picture(seed) for seed in range(300)])
    made = AugmentedSamples(Samples([batch], (None, 2, 8, 12)), 1e-7, 0.5)
    noisy = np.concatenate(list(made)[1::2])
    tops, lefts, count = set(), set(), 0
    for image, seen in zip(batch, noisy, strict=True):
        rows, columns = np.nonzero((np.abs(seen - image) > 1e-4).any(axis=0))
        if not len(rows):
            continue
        count += 1
        assert np.ptp(rows) <= 3
        assert np.ptp(columns) <= 5
        if (np.ptp(rows), np.ptp(columns)) == (3, 5):
            inside = seen[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert np.ptp(inside, axis=(1, 2)).max() < 1e-4
            tops.add(int(rows.min()))
            lefts.add(int(columns.min()))
            assert image.min() - 1e-5 <= inside.min() <= inside.max() <= image.max() + 1e-5
    assert 120 <= count <= 180
    assert (tops, lefts) == (set(range(5)), set(range(7)))


def test_values_without_sides_are_not_covered():
    batch = np.random.default_rng(0).normal(0, 1, (40, 6)).astype(f32)
    clean, noisy = AugmentedSamples(Samples([batch], (40, 6)), 1e-6, 0.5)
    assert clean is not noisy
    assert noisy == pytest.approx(batch, abs=1e-4)


@pytest.mark.parametrize("sizes", [[10], [3, 7], [4, 4, 2]])
def test_a_pick_is_even_clean_ones_first_the_same_for_any_batches(sizes):
    whole = cut(sizes)
    for batch in whole:
        batch += np.linspace(0, 1, 8, dtype=f32)
    made = AugmentedSamples(Samples(whole, (None, 1, 8, 8)), 0.1)
    every = list(made)
    clean, noisy = np.concatenate(every[::2]), np.concatenate(every[1::2])
    assert made.pick(20).tolist() == np.concatenate([clean, noisy]).tolist()
    assert made.pick(100).tolist() == made.pick(20).tolist()
    assert made.pick(2).tolist() == np.stack([clean[0], noisy[9]]).tolist()
    assert made.pick(5).tolist() == np.stack([clean[0], clean[4], clean[9], noisy[4], noisy[9]]).tolist()
    alone = AugmentedSamples(Samples(whole, (None, 1, 8, 8)), 0.0)
    assert np.concatenate(list(alone)).tolist() == clean.tolist()
    assert alone.pick(3).tolist() == clean[[0, 4, 9]].tolist()
    assert made.size is None


def test_a_list_is_walked_as_it_is_and_a_generator_from_a_file():
    given = cut([2, 3])
    with repeatable(given) as same:
        assert same is given
    with repeatable(iter(given)) as spool:
        assert not isinstance(spool, list)
        for _ in range(2):
            assert [batch.tolist() for batch in spool] == [batch.tolist() for batch in given]
    with repeatable(iter([])) as spool:
        assert list(spool) == []


def smooth(count, even=0):
    return [np.concatenate([images(count), np.ones((even, 3, 16, 16), f32)])]


def looked_at(batches, spec=None, **options):
    return inspect(Samples(batches, (None, 3, 16, 16)), spec, **options)


def test_as_many_images_as_are_asked_for_are_enough():
    assert looked_at(smooth(32)).images == 32
    assert looked_at(smooth(5), min_images=5).images == 5
    for count, options in ((31, {}), (4, {"min_images": 5})):
        with pytest.raises(DataError, match=f"too few calibration images; got {count}; expected at least"):
            looked_at(smooth(count), **options)


def test_images_of_one_colour_do_not_count_as_different():
    assert looked_at(smooth(32, even=1)).images == 33
    found = looked_at(smooth(33, even=4))
    assert found.warnings == ("3 of 37 images are copies of others", "4 of 37 images are of one colour")
    with pytest.raises(DataError, match="too few different calibration images; got 32 among 33, 1 of 33 of one colour"):
        looked_at([smooth(31, even=1)[0], images(1)])
    with pytest.raises(DataError, match="got 31 among 32, 0 of 32 of one colour; expected at least 32; do: give diff"):
        looked_at([images(31), images(1)])


def correlated(share, count=64, side=64):
    """Images whose neighbours hang together with about r = share."""
    draw = np.random.default_rng(0).standard_normal((count, 1, side, side + 1))
    return draw[..., 1:] + np.tan(0.5 * np.arcsin(2 * share)) * draw[..., :-1]


@pytest.mark.parametrize("sign", [1, -1])
def test_neighbours_hardly_alike_look_random(sign):
    flip = sign ** np.arange(64)
    assert data_checks._looks_random(correlated(0.08) * flip)
    assert not data_checks._looks_random(correlated(0.12) * flip)
    noise = np.random.default_rng(0).standard_normal((32, 3, 16, 16)).astype(f32)
    with pytest.raises(DataError) as caught:
        looked_at([noise])
    assert caught.value.what == "the calibration images look like random noise"
    assert looked_at([noise], allow_random=True).images == 32
    assert looked_at([*smooth(16), noise[:16]]).images == 32  # only the first batch is looked at


def test_only_images_can_look_random():
    draw = np.random.default_rng(0)
    assert data_checks._looks_random(draw.standard_normal((64, 1, 64, 8)))
    assert not data_checks._looks_random(draw.standard_normal((64, 1, 64, 7)))
    assert not data_checks._looks_random(draw.standard_normal((64, 64, 8)))
    column = np.zeros((2, 1, 4, 9))
    column[..., 0] = draw.standard_normal((2, 1, 4))
    assert not data_checks._looks_random(column)
    assert not data_checks._looks_random(column[..., ::-1])


GREY = ModelSpec("grey", (3, 16, 16), 10, preprocess=Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3))
FROM_ZERO = ModelSpec("zero", (3, 16, 16), 10, preprocess=Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3))
# spec, lowest and highest value -> whether preprocessing can give them, and whether they are warned of as narrow
ENDS = {
    "all of it": (GREY, -1, 1, True, False),
    "within 2 %": (GREY, -1.039, 1.039, True, False),
    "too low": (GREY, -1.041, 1, False, False),
    "too high": (GREY, -1, 1.041, False, False),
    "raw": (GREY, 0, 1, False, False),
    "nearly raw": (GREY, -0.0009, 1, False, False),
    "not raw": (GREY, -0.0011, 1, True, False),
    "from zero": (FROM_ZERO, 0, 1, True, False),
    "exactly a quarter": (GREY, -0.25, 0.25, True, False),
    "a quarter": (GREY, -0.5, 0.001, True, False),
    "less than a quarter": (GREY, -0.5, -0.001, True, True),
}


@pytest.mark.parametrize("case", ENDS)
def test_values_are_those_that_preprocessing_gives(case):
    spec, low, high, fits, narrow = ENDS[case]
    field = images(32)
    field = ((field - field.min()) / np.ptp(field) * (high - low) + low).astype(f32)
    if fits:
        share = 100 * (high - low) / 2
        text = f"the images use {share:.0f} % of the range of values: dark, flat or badly scaled"
        assert looked_at([field], spec).warnings == ((text,) if narrow else ())
        return
    with pytest.raises(DataError) as caught:
        looked_at([field], spec)
    assert caught.value.what == f"the calibration images are not preprocessed as {spec.name} wants them"
    assert caught.value.got == f"values from {low:.2f} to {high:.2f}"
    assert caught.value.expected == "values from -1.00 to 1.00, (pixel / 255 - mean) / std"
    assert looked_at([field], spec, allow_random=True).images == 32
    assert looked_at([field], None).warnings == ()


def test_each_channel_has_its_own_bounds():
    low, high = bounds(Preprocess(mean=(0.5, 0.25), std=(0.5, 0.25)), 3)
    assert low.tolist() == [-1, -1, -1]
    assert high.tolist() == [1, 3, 1]
    spec = ModelSpec("two", (3, 16, 16), 10, preprocess=Preprocess(mean=(0.5, 0.25, 0.5), std=(0.5, 0.25, 0.5)))
    field = images(32)
    field = (2 * (field - field.min()) / np.ptp(field) - 1).astype(f32)
    assert looked_at([field], spec).images == 32
    with pytest.raises(DataError, match="values from -1.00 to 3.00"):
        looked_at(
            [field * np.array([2, 1, 1], f32).reshape(-1, 1, 1) + np.array([1, 0, 0], f32).reshape(-1, 1, 1)], spec
        )


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


NAMES = tuple("abcdefgh")
MIXES = {
    "half is not most": (labels(4, 2, 2), NAMES[:3], (), []),
    "more than half is": (labels(5, 2, 2), NAMES[:3], (), ["5 of 9 images are of class a"]),
    "the second": (labels(1, 5, 2), NAMES[:3], (), ["5 of 8 images are of class b"]),
    "of two classes one may be most": (labels(5, 1), NAMES[:2], (), []),
    "five are missing": (labels(1, 1, 1), NAMES, (), ["no calibration image of class d, e, f, g, h"]),
    "six are missing": (labels(1, 1), NAMES, (), ["no calibration image of class c, d, e, f, g and 1 more"]),
    "the model's own": (labels(1, 1), NAMES[:2], ("b", "x"), ["no calibration image of class x"]),
}


@pytest.mark.parametrize("case", MIXES)
def test_the_mix_of_classes_is_judged_by_shares(case):
    given, classes, expected, warnings = MIXES[case]
    assert class_warnings(given, classes, expected) == warnings


def test_classes_of_other_data_are_named():
    with pytest.raises(DataError) as caught:
        class_warnings(labels(*[1] * 6), NAMES[:6], tuple("uvwxyz"))
    assert (caught.value.got, caught.value.expected) == ("a, b, c, d, e", "u, v, w, x, y")
    assert class_warnings(labels(0, 1), NAMES[:2], ("b",)) == []


def counted(**options):
    made = Stats(-1.5, 2.5, np.array([-1.5, 0.0]), np.array([1.0, 2.5]), average=(-1.25, 2.25))
    if options.get("histogram", True):
        made.histogram = Histogram()
        made.histogram.add(np.array([-1.5, 0.3, 2.5]))
    return made


def test_what_was_counted_is_read_back(tmp_path):
    path = tmp_path / "deep" / "a.npz"
    path.parent.mkdir()
    statistics_cache.write(path, {"t/1": counted(), "u": counted(histogram=False)})
    found = statistics_cache.read(path, ["t/1", "u"])
    for name in ("t/1", "u"):
        read = found[name]
        assert (read.low, read.high, read.average) == (-1.5, 2.5, (-1.25, 2.25))
        assert (read.lows().tolist(), read.highs().tolist()) == ([-1.5, 0], [1, 2.5])
    assert found["u"].histogram is None
    assert found["t/1"].histogram.exponent == counted().histogram.exponent
    assert found["t/1"].histogram.counts.tolist() == counted().histogram.counts.tolist()
    assert list(statistics_cache.read(path, ["u"])) == ["u"]
    assert statistics_cache.read(path, ["nowhere"]) is None
    assert statistics_cache.read(tmp_path / "nowhere", ["u"]) is None


def test_the_key_names_the_graph_the_tensors_the_images_and_the_noise():
    text = "(float[N,1,8,8] x) => (float[N,1,8,8] y) { y = Mul(x, k) }"

    def key(weight=1, names=("x",), digest="d", noise=0.1, cover=0.2, histograms=True):
        seen = AugmentedSamples(Samples([], (None, 1, 8, 8), digest=digest), noise, cover)
        return statistics_cache.key(model(text, {"k": f32(weight)}), names, seen, histograms)

    changes = [{}, {"weight": 2}, {"names": ("x", "y")}, {"digest": "e"}, {"noise": 0.2}, {"cover": 0.3},
               {"histograms": False}, {"names": ()}]  # fmt: skip
    assert len({key(**change) for change in changes}) == len(changes)
    assert key() == key()
    assert len(key()) == 64


def test_statistics_are_computed_once_where_there_is_a_folder(tmp_path, monkeypatch):
    made = model("(float[N,3,16,16] x) => (float[N,3,16,16] y) { a = Relu(x) y = Sin(a) }")
    for folder, files in ((None, 0), (tmp_path / "kept", 1)):
        seen = AugmentedSamples(Samples([images(4)], (None, 3, 16, 16), folder, "digest"), 0.0)
        plain = statistics_cache.collected(made, ["a"], seen)
        assert plain["a"].histogram is None
        assert plain["a"].highs() == pytest.approx(images(4).clip(0).max((0, 2, 3)))
        assert len(list(tmp_path.rglob("*.npz"))) == files
    counted_too = statistics_cache.collected(made, ["a"], seen, histograms=True)["a"]
    assert counted_too.histogram.counts.sum() == images(4).size
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    monkeypatch.setattr(statistics_cache, "collect", None)
    assert statistics_cache.collected(made, ["a"], seen)["a"].histogram is None
    assert statistics_cache.collected(made, ["a"], seen, histograms=True)["a"].histogram is not None
