"""Networks with several inputs: every input is fed, cut with the batch, and named where it is wrong."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgesmith.cli import main
from edgesmith.runtime import batch_axes, bundle, load
from edgesmith.runtime.backends._base import Session, Tensor
from edgesmith.runtime.errors import DataError, RunError
from edgesmith.runtime.serving import ReloadingModel, Stream, WorkerPool
from edgesmith.runtime.serving.triton import write_triton
from edgesmith.runtime.verify import replay
from support.several_inputs import IMAGES, NETS, head, spec_of, write_bundle

BATCHES = {"fixed 1": 1, "fixed 3": 3, "free": "N"}
AXES = {"boxes": 0, "alike": 0, "logits": 1, "places": None, "output": 0}


def right(kind, at):
    """Return the answer for one sample: without its batch axis where there is one."""
    function, arrays, *_ = NETS[kind]
    outputs = function(**{name: array[at : at + 1] for name, array in arrays.items()})
    return {name: value if AXES[name] is None else value.take(0, AXES[name]) for name, value in outputs.items()}


def same(outputs, expected):
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert np.shape(outputs[name]) == np.shape(value), name
        np.testing.assert_allclose(outputs[name], value, rtol=1e-5)


@pytest.mark.parametrize("form", BATCHES)
@pytest.mark.parametrize("kind", NETS)
def test_each_sample_is_answered_right_or_refused(kind, form, tmp_path):
    size = BATCHES[form]
    written = write_bundle(tmp_path, kind, size)
    assert bundle.verify(written, threads=1).passed
    with load(written, "ort", threads=1) as model:
        assert model.batch_axes == {name: AXES[name] for name in right(kind, 0)}
        for count in (1, 3, 5):
            if kind == "some" and form == "fixed 3":
                with pytest.raises(RunError, match="no batch axis"):
                    model(head(kind, count))
                continue
            answers = model(head(kind, count))
            assert len(answers) == count
            for at, answer in enumerate(answers):
                same(answer.outputs, right(kind, at))
            if kind == "some" and count != size and form != "free":
                with pytest.raises(RunError, match="no batch axis"):
                    model.run(head(kind, count))
            else:
                same(model.run(head(kind, count)), NETS[kind][0](**head(kind, count)))


def test_a_wrong_order_would_be_seen():
    """The comparison rejects samples of another place, and inputs that are swapped."""
    with pytest.raises(AssertionError):
        same(right("pair", 0), right("pair", 1))
    with pytest.raises(AssertionError):
        same(right("scaled", 0), NETS["scaled"][0](IMAGES[:1], np.ones((1, 2), "f4")))


GOOD = head("scaled", 3)
WRONG = {
    "an array for two inputs": (GOOD["image"], "names of the inputs are wrong; got image; expected image, scale"),
    "one is missing": ({"image": GOOD["image"]}, "names of the inputs are wrong"),
    "one too many": ({**GOOD, "more": GOOD["scale"]}, "names of the inputs are wrong"),
    "a type": ({**GOOD, "scale": GOOD["scale"].astype("f8")}, "'scale' has the wrong type; got float64"),
    "a list": ({**GOOD, "scale": GOOD["scale"].tolist()}, "'scale' has the wrong type; got list"),
    "a shape": ({**GOOD, "scale": GOOD["scale"][:, :1]}, "'scale' has the wrong shape"),
    "a rank": ({**GOOD, "scale": GOOD["scale"][0]}, "'scale' has the wrong shape"),
    "fewer of one": ({**GOOD, "scale": GOOD["scale"][:2]}, "'scale' has another number of samples than 'image'; got 2"),
    "more of one": ({**head("scaled", 2), "scale": GOOD["scale"]}, "'scale' has another number of samples"),
    "none": (head("scaled", 0), "the batch is empty"),
    "no finite number": ({**GOOD, "scale": GOOD["scale"] * np.nan}, "'scale' holds NaN or Inf"),
    "no array": ("scale", "scaled takes no images; expected arrays: image float32 .N, 1, 4, 6., scale float32 .N, 2."),
    "an image": (np.zeros((4, 6, 3), np.uint8), "names of the inputs are wrong"),
    "a list of images": ([np.zeros((4, 6, 3), np.uint8)], "scaled takes no images"),
}  # fmt: skip


@pytest.mark.parametrize("form", BATCHES)
def test_what_does_not_fit_is_refused_by_its_name(form, tmp_path):
    with load(write_bundle(tmp_path, "scaled", BATCHES[form]), "ort", threads=1) as model:
        for value, message in WRONG.values():
            with pytest.raises(DataError, match=message):
                model(value)
        same(model(GOOD)[2].outputs, right("scaled", 2))  # it stays usable


class Shared(Session):
    """A batch of two, and a table that is the same for every sample."""

    def __init__(self, size, rows=5):
        self.inputs = (Tensor("x", (size, 3), "float32"), Tensor("table", (rows, 3), "float32"))
        self.outputs = (Tensor("y", (size, rows), "float32"),)

    def _run(self, feeds):
        return {"y": feeds["x"] @ feeds["table"].T}


@pytest.mark.parametrize("size", [1, 2, 4, None])
def test_an_input_without_the_batch_is_fed_whole(size):
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((7, 3)).astype("f4"), "table": rng.standard_normal((5, 3)).astype("f4")}
    session, expected = Shared(size), feeds["x"] @ feeds["table"].T
    assert session.batched == ("x",)
    np.testing.assert_allclose(batch_axes.run(session, feeds, {"y": 0})["y"], expected, rtol=1e-6)
    for answer, row in zip(batch_axes.answers(session, feeds, {"y": 0}), expected, strict=True):
        np.testing.assert_allclose(answer["y"], row, rtol=1e-6)
    whole = {**feeds, "x": np.repeat(feeds["x"], 4, 0)}
    np.testing.assert_allclose(replay(session, whole)["y"], np.repeat(expected, 4, 0), rtol=1e-6)


def test_auto_measures_on_the_golden_inputs_and_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGESMITH_CACHE", str(tmp_path / "cache"))
    forms = (("fp32", "generic"), ("int8", "ort-x86"))
    with load(write_bundle(tmp_path, "looked_up", "N", forms=forms)) as model:
        same(model(head("looked_up", 1))[0].outputs, right("looked_up", 0))
        assert "measured here" in model.why()


# -- serving -----------------------------------------------------------------------------------------------------------


def test_pools_streams_and_reloading_models_take_arrays(tmp_path):
    written = write_bundle(tmp_path, "pair", 1)
    with load(written, "ort", threads=1) as model:
        with WorkerPool(model) as pool:
            same(pool.submit(head("pair", 2)).result()[1].outputs, right("pair", 1))
        samples = [{name: array[at : at + 1] for name, array in head("pair", 3).items()} for at in range(3)]
        frames = [*samples, head("pair", 2), np.zeros((4, 6, 3), np.uint8)]
        with Stream(model, frames) as stream:
            answers = list(stream)
        for at in range(3):
            same(answers[at].answer.outputs, right("pair", at))
        assert ["several samples" in str(answers[3].error), "takes no images" in str(answers[4].error)] == [True, True]
    with ReloadingModel(written.folder, device="ort", threads=1) as model:
        same(model(head("pair", 1))[0].outputs, right("pair", 0))


TRITON = {  # network, batch -> largest batch, dims of the second input
    ("scaled", "N"): (32, [2]), ("scaled", 1): (0, [1, 2]), ("sequence", "N"): (0, [-1, 4]),
    ("looked_up", "N"): (32, [1]),
}  # fmt: skip


@pytest.mark.parametrize("case", TRITON, ids=str)
def test_triton_lists_every_input_and_joins_only_what_can_be_joined(case, tmp_path, capsys):
    largest, dims = TRITON[case]
    write_triton(write_bundle(tmp_path, *case), tmp_path / "repository")
    (folder,) = (tmp_path / "repository").iterdir()  # neither preprocessing nor ensemble
    assert "takes no images: written without preprocessing and ensemble" in capsys.readouterr().err
    text = (folder / "config.pbtxt").read_text()
    assert f"max_batch_size: {largest}\n" in text
    first, second = NETS[case[0]][1]
    assert text.index(f'name: "{first}"') < text.index(f'name: "{second}"') < text.index("output {")
    kind = {"f": "TYPE_FP32", "i": "TYPE_INT64"}[NETS[case[0]][1][second].dtype.kind]
    assert f'name: "{second}"\n  data_type: {kind}\n  dims: [{", ".join(map(str, dims))}]' in text


# -- the command -------------------------------------------------------------------------------------------------------


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("count", [1, 5])
def test_run_answers_each_sample_of_a_file(count, tmp_path):
    written = write_bundle(tmp_path, "scaled", 1)
    np.savez(tmp_path / "in.npz", **head("scaled", count))
    done = call("run", written.folder, tmp_path / "in.npz", "--device", "ort", "--json")
    assert done.exit_code == 0, done.output
    value = json.loads(done.stdout)
    assert [row["outputs"] for row in value["images"]] == [{"boxes": [2]}] * count
    np.testing.assert_allclose([row["values"]["boxes"] for row in value["images"]],
                               NETS["scaled"][0](**head("scaled", count))["boxes"], rtol=1e-5)  # fmt: skip
    assert value["counts"] == {"answered": count, "failed": 0}
    names = {row["image"].removeprefix(str(tmp_path / "in.npz")) for row in value["images"]}
    assert names == ({""} if count == 1 else {f" {at}" for at in range(count)})


REFUSED = {
    "an image": (["image.png"], 1, "scaled takes no images; expected arrays: image float32 (N, 1, 4, 6), scale"),
    "a stream": (["--source", "image.png"], 1, "scaled takes no images"),
    "arrays of something else": (["other.npz"], 1, "not what scaled takes"),
    "one array": (["one.npy"], 1, "not what scaled takes"),
    "no arrays": (["text.npz"], 1, "cannot read"),
    "no file": (["none.npz"], 1, "cannot read"),
    "both": (["in.npz", "image.png"], 2, "answered alone"),
    "pictures of arrays": (["in.npz", "--out", "drawn"], 2, "answered alone, and nothing is drawn"),
}  # fmt: skip


def test_run_refuses_in_one_line_what_it_cannot_answer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path, "scaled", 1)
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save("image.png")
    np.savez("in.npz", **head("scaled", 2))
    np.savez("other.npz", image=IMAGES)
    np.save("one.npy", IMAGES)
    (tmp_path / "text.npz").write_text("no arrays")
    for words, code, message in REFUSED.values():
        done = call("run", "b", *words)
        assert (done.exit_code, message in done.stderr) == (code, True), done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "drawn").exists()


def test_a_spec_of_images_alone_takes_them():
    spec = spec_of("pair")
    assert not spec.takes_images
    assert spec.inputs_text == "a float32 (N, 1, 4, 6), b float32 (N, 1, 4, 6)"
