"""Images without labels and arrays: likeness to FP32 is measured, top-1 is left out with its reason or refused."""

import dataclasses
import json
import math

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import suite
from edgesmith.bench.measure.evaluation import Evaluated
from edgesmith.bench.measure.interleave import SamplingPlan
from edgesmith.bench.metrics import accuracy
from edgesmith.bench.report.view import page_data
from edgesmith.bench.result import write_run
from edgesmith.cli import main
from edgesmith.cli.gate import _common, _limits
from edgesmith.cli.models import _before as before_training
from edgesmith.runtime import bundle
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError
from edgesmith.runtime.spec import SPEC_KEY, ModelSpec, Preprocess
from edgesmith.runtime.tasks import DecodeContext
from edgesmith.runtime.verify import replay
from support.bundles import LABELS, SPEC, colour_net, golden_inputs, picture
from support.quant_graphs import small_cnn
from support.several_inputs import COUNT, head, spec_of, write_net

GAINS = {"fp32": 4.0, "int8": 4.1}
SQNR = -20 * math.log10(0.1 / 4)


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def colours(folder, weights="mine"):
    """Write a bundle whose second form has logits that are 2.5 % larger: SQNR 32.04 dB, every answer the same."""
    items = []
    for precision, gain in GAINS.items():
        path = colour_net(folder / f"{precision}.onnx", gain=gain)
        with ort.open(path, threads=1) as session:
            golden = replay(session, golden_inputs())
        items.append(bundle.Item(path, precision=precision, target="ort-x86" if gain > 4 else "generic", golden=golden))
    spec = dataclasses.replace(SPEC, weights=weights)
    return bundle.write(folder / "colours", spec, items, golden_inputs=golden_inputs())


def pairs(folder):
    """Write a bundle of two inputs whose second form says half of a likeness: SQNR 6.02 dB; and arrays for it."""
    items = []
    for precision in ("fp32", "int8"):
        path = write_net(folder / f"pair-{precision}.onnx", "pair", "N")
        if precision == "int8":
            model = onnx.load(path)
            model.graph.node[-1].output[0] = "whole"
            model.graph.node.add(op_type="Mul", input=["whole", "half"], output=["alike"], name="halved")
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(0.5), "half"))
            onnx.save(model, path)
        with ort.open(path, threads=1) as session:
            golden = replay(session, head("pair", 2))
        items.append(bundle.Item(path, precision=precision, target="ort-x86" if precision == "int8" else "generic",
                                 golden=golden))  # fmt: skip
    np.savez(folder / "pairs.npz", **{name: np.repeat(array, 4, 0) for name, array in head("pair", COUNT).items()})
    return bundle.write(folder / "pair", spec_of("pair"), items, golden_inputs=head("pair", 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("unlabelled")
    colours(place)
    pairs(place)
    for kind, name in (("plain", ""), ("labelled", "val/{}")):
        for colour in LABELS:
            images = place / kind / name.format(colour)
            images.mkdir(parents=True, exist_ok=True)
            for number in range(4):
                Image.fromarray(np.roll(picture(colour), number, axis=0)).save(images / f"{colour}{number}.png")
    return place


def read(path, form):
    results = json.loads(path.read_text())["results"]
    return next(one["readings"]["accuracy"] for one in results if one["subject"]["precision"] == form)


# data, bundle -> of the INT8 form: SQNR, agreement
CASES = {"images": ("plain", "colours", SQNR, 1.0), "arrays": ("pairs.npz", "pair", 20 * math.log10(2), None)}


@pytest.mark.parametrize("case", CASES)
def test_bench_gives_likeness_and_says_why_there_is_no_top1(case, folder, tmp_path):
    data, name, db, agreement = CASES[case]
    subjects = suite.contexts(folder / name, data=str(folder / data))
    run = suite.run_suite(subjects, SamplingPlan(processes=0), only=["accuracy"])
    write_run(run, tmp_path / "r.json")
    reading = read(tmp_path / "r.json", "int8")
    assert reading["values"]["sqnr_db"] == pytest.approx(db, abs=0.01)
    assert reading["values"].get("agreement_ratio") == agreement
    assert ("hard_sqnr_db" in reading["values"]) is (case == "images")  # arrays have no hard split
    assert not [key for key in reading["values"] if "top1" in key]
    assert reading["notes"] == ["top-1 left out: the data have no labels; likeness to FP32 only"]
    assert read(tmp_path / "r.json", "fp32")["values"].keys() <= {"images_count", "hard_images_count"}
    assert call("report", tmp_path / "r.json", "--out", tmp_path / "r.html").exit_code == 0
    assert page_data([run])["tradeoff"]["points"] == []  # nothing to draw against speed


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_sweep_counts_likeness_in_shards(case, shards, folder, tmp_path):
    data, name, db, agreement = CASES[case]
    done = call("sweep", folder / name, "--evaluate", folder / data, "--shards", shards, "--out", tmp_path / "s")
    assert done.exit_code == 0, done.output
    reading = read(tmp_path / "s" / "sweep.json", "int8")
    assert reading["values"]["sqnr_db"] == pytest.approx(db, abs=0.01)
    assert reading["values"].get("agreement_ratio") == agreement
    assert "top1_ratio" not in reading["values"]
    assert reading["notes"] == ["top-1 left out: the data have no labels; likeness to FP32 only"]


def test_labels_that_are_there_are_used(folder, tmp_path):
    subjects = suite.contexts(folder / "colours", data=str(folder / "labelled"), precisions=["fp32", "int8"])
    one, two = (subject for subject in subjects if subject.subject.backend == "ort")
    run = suite.run_suite([one, two], SamplingPlan(processes=0), only=["accuracy"])
    values = [result.readings["accuracy"].values for result in run.results]
    assert [value["top1_ratio"] for value in values] == [1.0, 1.0]
    assert values[1]["sqnr_db"] == pytest.approx(SQNR, abs=0.01)


def test_random_weights_have_likeness_and_no_top1(folder, tmp_path):
    made = colours(tmp_path, weights="random")
    *_, last = suite.contexts(made.folder, data=str(folder / "labelled"), precisions=["int8"])
    reading = accuracy.measure(last)
    assert reading.values["sqnr_db"] == pytest.approx(SQNR, abs=0.01)
    assert "with random weights it means nothing" in reading.notes[0]


def test_several_outputs_are_rows_and_the_worst_counts():
    exact = np.random.default_rng(0).standard_normal((8, 5)).astype("f4")
    reference = {"near": exact, "far": exact, "equal": exact}
    outputs = {"near": 1.01 * exact, "far": 0.5 * exact, "equal": exact}
    sides = [Evaluated(8, one, one) for one in (outputs, reference, {**outputs, "far": exact[:7]})]
    features = accuracy.find("features")
    values, rows = accuracy._likeness(features, *sides[:2], DecodeContext())
    assert values["sqnr_db"] == pytest.approx(20 * math.log10(2), abs=0.01)
    assert {row["output"]: round(row["sqnr_db"]) for row in rows} == {"near": 40, "far": 6}
    with pytest.raises(DataError, match="'far' cannot be compared with FP32's"):
        accuracy._likeness(features, sides[2], sides[1], DecodeContext())


def test_gate_judges_accuracy_by_labels(folder):
    (pair,) = _common(folder / "colours", folder / "colours", "int8", 1, "", str(folder / "labelled"))[:1]
    findings, _, codes = _limits(*pair, ["accuracy"], 600)
    assert (findings[0].answer, codes) == ("same", [0])
    bare = suite.contexts(folder / "colours", data=str(folder / "plain"), precisions=["int8"])[0]
    findings, _, codes = _limits(bare, bare, ["accuracy"], 600)
    assert (findings[0].answer, codes) == ("cannot tell", [3])
    assert "base has no accuracy: top-1 left out: the data have no labels" in findings[0].why


GATE = ["gate", "colours", "--baseline", "colours"]
REFUSED = {
    "gate": ([*GATE, "--also", "accuracy", "--data", "plain"], 1, "--also accuracy needs labels; got plain"),
    "gate on arrays": ([*GATE, "--also", "accuracy", "--data", "pairs.npz"], 1, "--also accuracy needs labels"),
    "gate without a question": ([*GATE, "--data", "plain"], 2, "--data is for the accuracy"),
    "bench on other arrays": (
        ["bench", "pair", "--data", "other.npz", "--metrics", "size", "--out", "r.json"], 1, "not what pair takes"),
    "bench on images": (
        ["bench", "pair", "--data", "plain", "--out", "r.json"], 1, "pair takes no images; expected arrays: a"),
    "sweep on other arrays": (
        ["sweep", "pair", "--evaluate", "other.npz", "--out", "s"], 1, "not what pair takes"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_needs_labels_says_so_before_any_work(case, folder, monkeypatch):
    words, code, message = REFUSED[case]
    monkeypatch.chdir(folder)
    np.savez("other.npz", a=np.zeros((4, 3), "f4"), b=np.zeros((4, 3), "f4"))
    done = call(*words)
    assert (done.exit_code, message in done.stderr) == (code, True), done.output
    assert len(done.stderr.strip().splitlines()) == 1
    assert not {"r.json", "s", "weights"} & {path.name for path in folder.iterdir()}


def test_training_needs_labels(folder):
    with pytest.raises(DataError, match="training needs labels; got plain: "):
        before_training("class", str(folder / "plain"), "random", None)
    before_training("class", "digits", "random", None)


def test_a_budget_of_points_counts_changed_answers_of_unlabelled_images(tmp_path):
    model = small_cnn()
    spec = ModelSpec("small", (3, 16, 16), 10, weights="mine", preprocess=Preprocess((16, 16), 0))
    model.metadata_props.add(key=SPEC_KEY, value=spec.to_json())
    onnx.save(model, tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    (tmp_path / "plain").mkdir()
    for at in range(64):
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(tmp_path / "plain" / f"{at}.png")
    done = call("quantize", tmp_path / "m.onnx", "-o", tmp_path / "q.onnx", "--data", tmp_path / "plain", "--target",
                "ort-x86", "--images", 40, "--quick", "--budget", "100", "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "class" not in done.stderr
