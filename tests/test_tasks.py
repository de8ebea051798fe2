"""One file per kind of task: each keeps its contract, and the toy of CONTRIBUTING.md works wherever a task is asked."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.bench import suite
from edgesmith.bench.metrics import accuracy
from edgesmith.cli import main
from edgesmith.export import measure
from edgesmith.export.settings import ExportSettings, Flow
from edgesmith.optimize.graph.graph_file import GraphFile
from edgesmith.runtime import bundle, datasets, load, tasks
from edgesmith.runtime.answer import Answer
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import DataError, UsageError
from edgesmith.runtime.serving import triton
from edgesmith.runtime.spec import ModelSpec
from edgesmith.runtime.verify import replay, verify
from support.bundles import SIDE, SPEC, golden_inputs
from support.contracts import planted, recipe, task_problems

TOY = recipe("Add a task")


@pytest.mark.parametrize("name", tasks.names())
def test_every_task_keeps_its_contract(name):
    assert task_problems(name) == []


BROKEN = {
    "no task": ("TASK = Count()", "TASK = Count", "TASK is not a Task"),
    "no docstring": ('"""The first output, rounded."""', "", "it is not documented"),
    "no metric": ('metric, title = "exact_ratio", "exact"', "", "a truth without a metric"),
    "another score": ('{"exact_ratio": float(', '{"other_ratio": float(', "its score has no share exact_ratio"),
    "a score in per cent": ("== truths).mean())", "== truths).mean() * 100)", "its score has no share exact_ratio"),
    "an interval of nothing": (".mean())})", '.mean())}, {"x": (0, 1)})', "an interval of no value"),
    "no output fits": ("== (1,)", "== (1, 2, 3, 4)", "no output fits it"),
    "arrays for JSON": ('{"count": self.decode(outputs, context)}', "{**outputs}", "what it shows cannot be written"),
    "two lines": ("{row['count']} objects", "{row['count']}\\n", "its line is"),
    "it stumbles": ("return int(", "return int(1 / 0 + ", "it raises ZeroDivisionError"),
    "never itself": ("(first(batch).round() == first(reference)", "(first(batch).round() != first(reference)",
                     "it does not agree with itself"),
    "always the same": ("(first(batch).round() == first(reference).round())", "(first(batch) == first(batch))",
                        "it agrees with anything"),
    "it draws nothing": ("def fits(", "def draw(self, image, answer): return image.copy()\n\n    def fits(",
                         "what it draws is not a picture"),
    "it draws in place": ("def fits(", "def draw(self, image, answer): image += 1; return image + 1\n\n    def fits(",
                          "it draws on the image itself"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_task_is_found(case, tmp_path):
    old, new, problem = BROKEN[case]
    assert old in TOY
    with planted(tasks, tmp_path / "p", TOY.replace(old, new)) as name:
        problems = task_problems(name)
    assert any(problem in one for one in problems), problems
    assert len(problems) <= 2  # what is not broken is not named


@pytest.fixture
def toy(tmp_path):
    """A task of one file, beside the others."""
    with planted(tasks, tmp_path / "plugins", TOY, "count", beside=True):
        assert task_problems("count") == []
        yield "count"
    assert "count" not in tasks.names()


def counting_net(path: Path, gain: float = 9.0) -> Path:
    """Write a network that answers `gain` times the mean of an image's pixels: 0 for black, 9 for white."""
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        counter (float[N, 3, {SIDE}, {SIDE}] input) => (float[N, 1] output)
        <float half = {{{gain / 2}}}, int64[3] axes = {{1, 2, 3}}> {{
            mean = ReduceMean<axes = [1, 2, 3], keepdims = 0>(input)
            one = Mul(mean, half)
            two = Add(one, half)
            output = Unsqueeze(two, at)
        }}""".replace("int64[3] axes = {1, 2, 3}", "int64[1] at = {1}")
    )
    onnx.save(model, path)
    return path


CLASSES = tuple(map(str, range(10)))


def shades(split: str) -> datasets.Dataset:
    """Ten even pictures, whose class is the number that the network answers."""
    images = np.stack([np.full((SIDE, SIDE, 3), round(255 * at / 9), np.uint8) for at in range(10)])
    return datasets.Dataset("shades", split, images, np.arange(10), CLASSES)


def test_a_new_task_is_one_file(toy, tmp_path, monkeypatch):
    """The file of CONTRIBUTING.md works in the spec, the runtime, `run`, `verify`, the bench and Triton's copy."""
    spec = dataclasses.replace(SPEC, name="counter", task=toy, labels=CLASSES, num_classes=10, weights="mine")
    assert ModelSpec.from_json(spec.to_json()) == spec
    with ort.open(counting_net(tmp_path / "c.onnx"), threads=1) as session:
        item = bundle.Item(tmp_path / "c.onnx", golden=replay(session, golden_inputs()))
    made = bundle.write(tmp_path / "counter", spec, [item], golden_inputs=golden_inputs())
    with load(made, device="ort") as model:
        answer = model(shades("test").images[7])
        assert (answer.decode(), answer.show()) == (7, {"count": 7})
        assert np.array_equal(answer.draw(shades("test").images[7]), shades("test").images[7])
        with pytest.raises(DataError, match="does not classify; got task count"):
            answer.top(1)
    Image.fromarray(shades("test").images[3]).save(tmp_path / "three.png")
    words = ["run", str(tmp_path / "counter"), str(tmp_path / "three.png"), "--device", "ort"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "3 objects" in done.output
    (row,) = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)["images"]
    assert row["count"] == 3
    assert {one.agreement for one in verify(made).replays if one.status == "passed"} == {1.0}
    monkeypatch.setattr(datasets, "load", lambda source, split, **options: shades(split))
    (context,) = (one for one in suite.contexts(tmp_path / "counter", data="shades") if one.subject.backend == "ort")
    assert accuracy.measure(context).values["exact_ratio"] == 1.0
    triton.write_triton(made, tmp_path / "models")
    assert list((tmp_path / "models").rglob("tasks/_base.py"))


def test_export_judges_a_new_task_by_its_own_metric(toy, tmp_path):
    flow = Flow(ExportSettings("lenet5", weights="mine.safetensors", targets=("ort-x86",)), lambda line: None)
    spec = dataclasses.replace(SPEC, task=toy, labels=CLASSES, num_classes=10)
    for split in ("test", "hard"):
        flow.data[split] = shades(split)
    flow.add("fp32", "fp32", "generic", GraphFile.read(counting_net(tmp_path / "a.onnx")))
    flow.add("int8-ort-x86", "int8", "ort-x86", GraphFile.read(counting_net(tmp_path / "b.onnx", 7.0)))
    for split in ("test", "hard"):
        measure._score(flow, flow.artefacts, spec, split, judged=True)
    fp32, int8 = flow.artefacts
    assert (fp32.results["test"]["exact"], int8.results["test"]["exact"]) == (100.0, 30.0)
    assert int8.results["test"]["agreement"] == pytest.approx(30.0)
    check = measure._accuracy_check(flow, spec, int8, fp32, "")
    assert check.passed is False
    assert check.detail.startswith("exact against FP32: test -70.00, hard -70.00 points")
    assert measure.kept(flow, spec, int8).lost_points == pytest.approx(70.0)


def test_verify_says_which_share_of_choices_is_equal(tmp_path):
    """Of classes of images and of pixels; a wrong answer does not agree."""
    maps = np.zeros((4, 3, 2, 2), np.float32)
    maps[:, 1] = 1.0
    other = maps.copy()
    other[:2, 2] = 2.0
    assert share("segment", other, maps) == 0.5
    assert share("classify", other[:, :, 0, 0], maps[:, :, 0, 0]) == 0.5
    assert share("classify", maps[:2], maps) is None
    assert [share(name, maps, maps) for name in ("localise", "features")] == [None] * 2


def share(name, one, two):
    task, context = tasks.find(name), tasks.DecodeContext()
    batches = []
    for side in (one, two):
        parts = [task.reduce({"y": values}, context) for values in side]
        batches.append({key: np.stack([part[key] for part in parts]) for key in parts[0]})
    return task.agreement(*batches, context)


TASKS = {
    "classify": (True, True, "class"), "segment": (True, True, "masks"), "localise": (True, False, ""),
    "reconstruct": (True, False, "image"), "features": (False, False, ""), "text": (False, False, "text"),
    "embed": (True, False, "identity"), "anomaly": (True, False, "anomalies"), "regress": (True, False, "values"),
    "multi_label": (True, False, "label sets"), "depth": (True, False, "depth"),
    "super_resolve": (True, False, "targets"), "keypoints": (True, False, "keypoints"),
    "detect": (True, False, "boxes"),
}  # fmt: skip


def test_the_tasks_are_these():
    facts = {name: (one.batch_first, one.has_classes, one.truth) for name in tasks.names()
             for one in [tasks.find(name)]}  # fmt: skip
    assert facts == TASKS


@pytest.mark.parametrize("name", ["clasify", "_base", "", "../spec"])
def test_what_is_no_task_is_refused(name):
    with pytest.raises(UsageError, match="unknown task"):
        tasks.find(name)


def test_outputs_that_do_not_fit_are_shown_by_their_shapes_and_not_drawn():
    answer = Answer({"a": np.zeros((2, 3)), "b": np.zeros(4)})
    assert answer.show()["outputs"] == {"a": [2, 3], "b": [4]}
    image = np.zeros((5, 5, 3), np.uint8)
    assert np.array_equal(answer.draw(image), image)
    with pytest.raises(DataError, match="does not classify"):
        answer.decode()
