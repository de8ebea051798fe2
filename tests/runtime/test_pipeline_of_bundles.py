"""A pipeline of bundles: a detector of squares, and a classifier of colours on what it detected."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import suite
from edgesmith.bench.measure.workload import open_workload
from edgesmith.bench.metrics import accuracy, size
from edgesmith.cli import main
from edgesmith.runtime import bundle, load
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError, EdgesmithError, UsageError
from edgesmith.runtime.pipeline import Stage, is_pipeline, load_pipeline, read_stages
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.verify import replay
from support.bundles import SIDE, SPEC, colour_bundle
from support.detector import NAMES, write_detector
from support.detector import SIDE as SCENE

# Class, x1, y1, x2, y2: squares of a colour, of the size of their class.
SQUARES = [(0, 5, 5, 13, 13), (1, 24, 6, 36, 18), (2, 8, 26, 24, 42)]


def scene():
    image = np.full((SCENE, SCENE, 3), 40, np.uint8)
    for label, x1, y1, x2, y2 in SQUARES:
        image[y1:y2, x1:x2, label] = 220
    return image


def detector_bundle(folder):
    path = write_detector(folder.parent / "detector.onnx", metadata=False)
    plain = Preprocess((SCENE, SCENE), 0, mean=(0.0,) * 3, std=(1.0,) * 3)
    one = ModelSpec("squares", (3, SCENE, SCENE), 3, "detect", input_name="images", output_names=("output0",),
                    labels=NAMES, preprocess=plain, decoder={"head": "yolo"}, weights="mine")  # fmt: skip
    return written(folder, one, path, (1, 3, SCENE, SCENE))


def written(folder, spec, path, shape):
    golden = {spec.input_name: np.random.default_rng(0).random(shape, dtype=np.float32)}
    with ort.open(path, threads=1) as session:
        item = bundle.Item(path, golden=replay(session, golden))
    return bundle.write(folder, spec, [item], golden_inputs=golden)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline")
    detector_bundle(folder / "squares")
    colour_bundle(folder / "colours")
    describe(folder, {"bundle": "squares"}, {"bundle": "colours", "margin": 0.0})
    Image.fromarray(scene()).save(folder / "scene.png")
    return folder


def describe(folder, *stages):
    (folder / "pipeline.json").write_text(json.dumps({"stages": stages, "sample": "scene.png"}))
    return folder


def answered(place, *stages):
    describe(place, *stages)
    with load_pipeline(place, "ort") as pipeline:
        return pipeline(place / "scene.png")


def test_each_square_is_named_by_the_second_bundle(place):
    """The classifier alone calls the whole scene blue, the largest square; on the crops it is right."""
    answer = answered(place, {"bundle": "squares"}, {"bundle": "colours"})
    with load(place / "colours", device="ort") as model:
        assert model(scene()).top(1)[0].label == "blue"
    assert len(answer.parts) == 3
    for part in answer.parts:
        label = NAMES.index(part.region.label)
        np.testing.assert_allclose(part.region.box, SQUARES[label][1:], atol=1)
        assert part.answer.answer.top(1)[0].label == NAMES[label]
    row = answer.show(1)
    json.dumps(row, allow_nan=False)
    assert {one["text"].split()[0] for one in row["parts"]} == set(NAMES)
    assert [one["category"] for one in row["objects"]] == [part.region.label for part in answer.parts]
    picture = answer.draw(scene())
    assert picture.shape == scene().shape
    assert not np.array_equal(picture, scene())


LIMITS = {
    "a label": ({"labels": ["green"]}, ["green"]), "no such label": ({"labels": ["pink"]}, []),
    "the best one": ({"most": 1}, None), "a high score": ({"least": 1.0}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", LIMITS)
def test_a_stage_takes_what_it_is_told_to(case, place):
    limit, labels = LIMITS[case]
    every, some = (answered(place, {"bundle": "squares"}, {"bundle": "colours", **one}).parts for one in ({}, limit))
    best = max(every, key=lambda part: part.region.score).region.label
    assert [part.region.label for part in some] == ([best] if labels is None else labels)


def test_a_margin_makes_the_crop_larger(place):
    """With a margin of 1 the crop has three times the side, and the colour fades."""
    chances = []
    for margin in (0.0, 1.0):
        parts = answered(place, {"bundle": "squares"}, {"bundle": "colours", "margin": margin}).parts
        chances.append(np.mean([part.answer.answer.top(1)[0].probability for part in parts]))
    assert chances[1] < chances[0]


def centre_bundle(folder):
    """A localiser that answers the middle half of any image."""
    text = f"""<ir_version: 8, opset_import: ["" : 17]>
        middle (float[N, 3, {SIDE}, {SIDE}] input) => (float[N, 4] output)
        <float zero = {{0.0}}, float half = {{0.5}}, int64[4] four = {{0, 0, 0, 0}}> {{
            pooled = GlobalAveragePool(input)  flat = Flatten(pooled)  wide = Gather<axis = 1>(flat, four)
            none = Mul(wide, zero)  output = Add(none, half) }}"""
    onnx.save(onnx.parser.parse_model(text), folder.parent / "middle.onnx")
    one = ModelSpec("middle", (3, SIDE, SIDE), 4, "localise", preprocess=SPEC.preprocess, weights="mine")
    return written(folder, one, folder.parent / "middle.onnx", (2, 3, SIDE, SIDE))


def test_three_stages(tmp_path):
    """The middle half of the middle half, and its colour."""
    centre_bundle(tmp_path / "middle")
    colour_bundle(tmp_path / "colours")
    describe(tmp_path, {"bundle": "middle"}, {"bundle": "middle"}, {"bundle": "colours"})
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[16:48, 16:48] = 200, (0, 200, 0)
    image[24:40, 24:40] = (0, 0, 200)
    with load_pipeline(tmp_path, "ort") as pipeline:
        (outer,) = pipeline(image).parts
        (inner,) = outer.answer.parts
        assert inner.answer.answer.top(1)[0].label == "blue"
        np.testing.assert_allclose(inner.region.box, [8, 8, 24, 24])  # in pixels of the outer crop
        assert pipeline.why().count("chosen") == 3
    assert all(model.session.closed for model in pipeline.models)


def test_run_answers_for_images(place):
    describe(place, {"bundle": "squares"}, {"bundle": "colours"})
    words = ["run", str(place), str(place / "scene.png"), "--device", "ort"]
    done = CliRunner().invoke(main, [*words, "--out", str(place / "drawn"), "--overwrite"])
    assert done.exit_code == 0, done.output
    assert "3 objects" in done.output
    row = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)["images"][0]
    assert len(row["parts"]) == 3
    assert list((place / "drawn").iterdir())
    refused = CliRunner().invoke(main, ["run", str(place), "--source", str(place), "--device", "ort"])
    assert refused.exit_code == 2
    assert "a pipeline runs on images" in refused.stderr


def test_bench_measures_the_whole(place):
    """The call answers the sample with both stages."""
    describe(place, {"bundle": "squares"}, {"bundle": "colours"})
    (context,) = suite.contexts(place)
    assert (context.subject.model, context.subject.form, context.subject.backend) == (place.name, "pipeline", "bundles")
    work = open_workload(context.target)
    assert len(work.call().parts) == 3
    assert set(work.stages) == {"import_s", "load_s", "first_call_s"}
    assert "measure each bundle" in accuracy.measure(context).missing
    assert size.measure(context).missing


@pytest.mark.parametrize("sample", [None, "gone.png", "../scene.png", 3])
def test_bench_needs_a_sample(sample, place):
    stages = [{"bundle": "squares"}, {"bundle": "colours"}]
    (place / "pipeline.json").write_text(json.dumps({"stages": stages, "sample": sample}))
    with pytest.raises(UsageError, match="names no sample"):
        suite.contexts(place)


BAD = {
    "one stage": ([{"bundle": "a"}], "got 1 stages"), "nine": ([{"bundle": "a"}] * 9, "got 9 stages"),
    "no bundle": ([{}, {}], "cannot read"), "a word": (["a", "b"], "cannot read"), "a number": (3, "cannot read"),
    "unknown": ([{"bundle": "a", "size": 3}] * 2, "cannot read"),
    "outside": ([{"bundle": "../a"}] * 2, "not a path below the folder"),
    "absolute": ([{"bundle": "/a"}] * 2, "not a path below the folder"),
    "a margin": ([{"bundle": "a", "margin": 2}] * 2, "margin 2, not a number from 0 to 1"),
    "a score": ([{"bundle": "a", "least": "0.5"}] * 2, "least '0.5', not a number"),
    "none": ([{"bundle": "a", "most": 0}] * 2, "most 0, not 1 to 1000"),
    "labels": ([{"bundle": "a", "labels": [1]}] * 2, "labels"),
    "a label": ([{"bundle": "a", "labels": 7}] * 2, "cannot read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_description_is_refused_in_one_line(case, tmp_path):
    stages, message = BAD[case]
    (tmp_path / "pipeline.json").write_text(json.dumps({"stages": stages}))
    with pytest.raises(UsageError, match=message) as error:
        read_stages(tmp_path / "pipeline.json")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\0", "[" * 100_000])
def test_what_is_no_description_is_refused(text, tmp_path):
    (tmp_path / "pipeline.json").write_text(text)
    with pytest.raises(UsageError, match="cannot read"):
        read_stages(tmp_path / "pipeline.json")


def test_a_stage_that_cannot_follow_is_refused(place):
    describe(place, {"bundle": "colours"}, {"bundle": "squares"})
    with pytest.raises(DataError, match="nothing can follow colours; got task classify, which gives no boxes"):
        load_pipeline(place, "ort")
    describe(place, {"bundle": "squares"}, {"bundle": "gone"})
    with pytest.raises(EdgesmithError, match="gone"):
        load_pipeline(place, "ort")
    assert is_pipeline(place)
    assert not is_pipeline(place / "squares")
    assert Stage("a").most == 20
