"""Outputs whose first axis is not the batch: answered whole or per image, never cut along another axis."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgesmith.bench.sweep import sharded_accuracy
from edgesmith.runtime import batch_axes, bundle, load
from edgesmith.runtime.backends import null, ort
from edgesmith.runtime.backends._base import Session, Tensor
from edgesmith.runtime.errors import DataError, NotAvailable, RunError
from edgesmith.runtime.selection.candidates import open_file
from edgesmith.runtime.spec import ModelSpec, Preprocess
from edgesmith.runtime.verify import replay

IMAGES = np.random.default_rng(0).random((5, 1, 4, 6)).astype("f4")
SPEC = ModelSpec(
    "net", (1, 4, 6), 4, task="features",
    preprocess=Preprocess(crop=(4, 6), resize=0, mean=(0.5,), std=(0.5,), channels="GRAY"),
)  # fmt: skip


def crnn(images):
    """(time 6, batch, class 4)."""
    return {"logits": images[:, 0].transpose(2, 0, 1)}


def both(images):
    """A classifier's logits, batch first, and the same as (time, batch, class)."""
    return {"scores": images.mean((1, 3)), **crnn(images)}


def found(images):
    """The pixels above 0.9 of all images: (n, 4), as NonMaxSuppression gives boxes; n may be 0."""
    return {"boxes": np.argwhere(images > 0.9)}


def top(images):
    """The three greatest values of all: no batch axis, of fixed size."""
    return {"best": -np.sort(-images.reshape(-1))[:3]}


NETS = {
    "crnn": (crnn, "sq = Squeeze(input, one) logits = Transpose<perm=[2,0,1]>(sq)", {"logits": (6, "N", 4)}),
    "both": (both, "scores = ReduceMean<axes=[1,3],keepdims=0>(input) sq = Squeeze(input, one)"
             "logits = Transpose<perm=[2,0,1]>(sq)", {"scores": ("N", 4), "logits": (6, "N", 4)}),
    "found": (found, "more = Greater(input, high) at = NonZero(more) boxes = Transpose(at)", {"boxes": ("n", 4)}),
    "top": (top, "flat = Reshape(input, all) best, places = TopK(flat, three)", {"best": (3,)}),
}  # fmt: skip
# The batch as the file says it -> (of the input, of the outputs)
FORMS = {
    "fixed 1": (1, 1), "fixed 3": (3, 3), "free": ("N", "N"), "free, another name": ("N", "out_0"),
    "free, unnamed": ("", ""),
    "free, one written down": ("N", 1),
}  # fmt: skip


def net(path, kind, form):
    """Write one of NETS with one of FORMS."""
    _, text, outputs = NETS[kind]
    given, told = FORMS[form]
    consts = "<int64[1] one = {1}, float high = {0.9}, int64[1] all = {-1}, int64[1] three = {3}>"
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[1,1,4,6] input) => (float[1] y)'
    whole = onnx.parser.parse_model(f"{head} {consts} {{ {text} }}")
    graph = whole.graph
    graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, [given or None, 1, 4, 6]))
    del graph.output[:]
    for name, dims in outputs.items():
        kind_of = TensorProto.INT64 if name == "boxes" else TensorProto.FLOAT
        dims = [(told or None) if dim == "N" else dim for dim in dims]
        graph.output.add().CopyFrom(helper.make_tensor_value_info(name, kind_of, dims))
    onnx.save(whole, path)
    return path


def loaded(folder, kind, form, backend="ort", task="features"):
    path = net(folder / "net.onnx", kind, form)
    size = FORMS[form][0] if isinstance(FORMS[form][0], int) else 2
    with ort.open(path, threads=1) as session:
        golden = replay(session, {"input": IMAGES[:size]})
    spec = ModelSpec(**{**vars(SPEC), "task": task, "output_names": tuple(NETS[kind][2])})
    bundle.write(folder / "b", spec, [bundle.Item(path, golden=golden)], golden_inputs={"input": IMAGES[:size]})
    return load(folder / "b", backend, threads=1)


def right(kind, image):
    """Return what one image's answer must be: without its batch axis where it has one, else whole."""
    outputs = NETS[kind][0](image[None])
    axes = {"logits": 1, "scores": 0}
    return {name: value.take(0, axes[name]) if name in axes else value for name, value in outputs.items()}


def same(answer, expected):
    assert answer.outputs.keys() == expected.keys()
    for name, value in expected.items():
        assert answer.outputs[name].shape == value.shape, name
        np.testing.assert_allclose(answer.outputs[name], value, rtol=1e-5)


@pytest.mark.parametrize("backend", ["ort", "openvino"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", NETS)
def test_each_image_is_answered_right_or_refused(kind, form, backend, tmp_path):
    if backend == "openvino":
        pytest.importorskip("openvino")
    with loaded(tmp_path, kind, form, backend) as model:
        assert bundle.verify(model.bundle, threads=1).passed
        if form == "fixed 3" and kind in ("found", "top"):
            with pytest.raises(RunError, match="no batch axis, so 1 images cannot share a model with a batch of 3"):
                model(IMAGES[:1])
            same_outputs = model.run(IMAGES[:3])
            assert {name: value.shape for name, value in same_outputs.items()} == {
                name: value.shape for name, value in NETS[kind][0](IMAGES[:3]).items()
            }
            return
        for count in (1, 2, 3, 5):
            answers = model(IMAGES[:count])
            assert len(answers) == count
            for answer, image in zip(answers, IMAGES, strict=False):
                same(answer, right(kind, image))


@pytest.mark.parametrize("form", ["fixed 1", "fixed 3", "free"])
@pytest.mark.parametrize("kind", NETS)
def test_a_batch_is_run_right_or_refused(kind, form, tmp_path):
    with loaded(tmp_path, kind, form) as model:
        for count in (1, 2, 3, 5):
            joined = form == "free" or count == FORMS[form][0]
            if not joined and kind in ("found", "top"):
                with pytest.raises(RunError, match="has no batch axis"):
                    model.run(IMAGES[:count])
                continue
            outputs, expected = model.run(IMAGES[:count]), NETS[kind][0](IMAGES[:count])
            for name, value in expected.items():
                np.testing.assert_allclose(outputs[name], value, rtol=1e-5)
        with pytest.raises(DataError, match="empty"):
            model(IMAGES[:0])


@pytest.mark.parametrize("count", range(4))
def test_any_number_of_boxes_is_answered_whole(count, tmp_path):
    image = np.zeros((4, 6), np.uint8)
    image.reshape(-1)[:count] = 255
    with loaded(tmp_path, "found", "fixed 1") as model:
        assert model(image).outputs["boxes"].shape == (count, 4)
        several = model([image, image])
        assert [one.outputs["boxes"].shape for one in several] == [(count, 4)] * 2
        assert "output 'boxes': no batch axis" in model.why()


def spec_of(task):
    return ModelSpec("net", (3,), task=task, input_name="x")


class Declared(Session):
    """A session that says shapes and gives outputs of others."""

    def __init__(self, given, told, outputs):
        self.inputs, self.outputs = (Tensor("x", given, "float32"),), (Tensor("y", told, "float32"),)
        self._outputs = outputs

    def _run(self, feeds):
        return {"y": self._outputs(feeds["x"])}


def test_the_first_axis_of_a_free_size_is_the_batch_where_the_task_says_so():
    """A classifier of which only the input was fixed to one image."""
    session = Declared((1, 3), (None, 4), lambda x: np.zeros((1, 4)))
    assert batch_axes.axes(session, spec_of("classify")) == {"y": 0}
    assert batch_axes.axes(session, spec_of("features")) == {"y": None}


WRONG_SHAPES = {
    "a rank too many": ((1, 3), (1, 4), lambda x: np.zeros(4), (4,)),
    "another size": ((1, 3), (1, 4), lambda x: np.zeros((2, 4)), (2, 4)),
    "a number": ((1, 3), (), lambda x: np.float32(1) * np.ones(()), ()),
    "no boxes": ((1, 3), (None, 4), lambda x: np.zeros((0, 4)), (0, 4)),
}


@pytest.mark.parametrize("case", WRONG_SHAPES)
@pytest.mark.parametrize("task", ["classify", "features"])
def test_an_output_that_is_not_as_declared_is_answered_whole_or_refused(case, task):
    given, told, outputs, shape = WRONG_SHAPES[case]
    session = Declared(given, told, outputs)
    (answer,) = batch_axes.answers(
        session, {"x": np.zeros((1, 3), np.float32)}, batch_axes.axes(session, spec_of(task))
    )
    assert answer["y"].shape == shape
    free = Declared((None, 3), told, outputs)
    with pytest.raises(RunError, match="not have one part per image"):
        batch_axes.answers(free, {"x": np.zeros((3, 3), np.float32)}, {"y": 0})


@pytest.mark.parametrize("seed", range(40))
def test_random_outputs_are_taken_apart_along_their_batch(seed):
    """A random rank, place of the batch, batch of the file and number of images; sizes differ from the batch's."""
    rng = np.random.default_rng(seed)
    rest = tuple(int(n) for n in rng.integers(5, 9, rng.integers(1, 4)))
    axis = int(rng.integers(len(rest) + 1))
    size = [None, 1, 2, 4][rng.integers(4)]
    told = (*rest[:axis], size, *rest[axis:])
    weights = rng.standard_normal((3, int(np.prod(rest)))).astype("f4")
    session = Declared((size, 3), told, lambda x: np.moveaxis((x @ weights).reshape(-1, *rest), 0, axis))
    images = rng.standard_normal((int(rng.integers(1, 9)), 3)).astype("f4")
    axes = batch_axes.axes(session, spec_of("features"))
    assert axes == {"y": axis}
    answers = batch_axes.answers(session, {"x": images}, axes)
    assert len(answers) == len(images)
    for answer, image in zip(answers, images, strict=True):
        np.testing.assert_allclose(answer["y"], (image @ weights).reshape(rest), rtol=1e-5)
    whole = batch_axes.run(session, {"x": images}, axes)["y"]
    np.testing.assert_allclose(np.moveaxis(whole, axis, 0), (images @ weights).reshape(-1, *rest), rtol=1e-5)


def test_where_batches_cannot_be_tried_the_task_says(tmp_path):
    def one_only(x):
        if len(x) > 1:
            raise RunError("outside the profile")
        return np.zeros((1, 4))

    session = Declared((None, 3), (None, 4), one_only)
    assert batch_axes.axes(session, spec_of("classify")) == {"y": 0}
    assert batch_axes.axes(session, spec_of("features")) == {"y": None}


def test_the_null_backend_has_its_batch_first(tmp_path):
    text = '{"inputs": [{"name": "x", "shape": [null, 3], "dtype": "float32"}],'
    text += '"outputs": [{"name": "y", "shape": [null, 4], "dtype": "float32"}]}'
    (tmp_path / "net.null").write_text(text)
    with null.open(tmp_path / "net.null") as session:
        assert batch_axes.axes(session, spec_of("features")) == {"y": 0}


def test_accuracy_wants_a_row_for_each_image():
    spec = ModelSpec("x", (3,), 4, input_name="x", output_names=("y",))
    images = np.zeros((3, 3), np.float32)
    for given, outputs in (((None, 3), np.zeros((6, 3, 4))), ((None, 3), np.full((3, 4), np.nan))):
        session = Declared(given, (None, 4), lambda x, outputs=outputs: outputs)
        with pytest.raises(RunError, match="has no class scores"):
            sharded_accuracy.outputs(session, spec, images)
    with pytest.raises(RunError, match="no batch axis"):
        sharded_accuracy.outputs(Declared((1, 3), (6, 1, 4), lambda x: np.zeros((6, 1, 4))), spec, images)


def test_golden_outputs_of_runs_that_cannot_be_joined_are_refused():
    rows = iter(range(1, 9))
    session = Declared((1, 3), (1, None, 4), lambda x: np.zeros((1, next(rows), 4)))
    with pytest.raises(RunError, match="cannot be joined"):
        replay(session, {"x": np.zeros((2, 3), np.float32)})


# -- NaN and Inf -------------------------------------------------------------------------------------------------------

NONFINITE = {"NaN": "output = Log(flat)", "Inf": "output = Reciprocal(zero)", "-Inf": "output = Log(zero)"}


def poisonous(path, case):
    """Write a network that gives no finite number where the mean of an image is below 0; "zero" is then 0."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,1,4,6] input) => (float[N,1] output)
        {{ pooled = GlobalAveragePool(input) flat = Flatten(pooled) zero = Relu(flat) {NONFINITE[case]} }}""")
    onnx.save(model, path)
    return path


def negative(case):
    return -IMAGES[:2] if case == "NaN" else np.minimum(-IMAGES[:2], 0)


@pytest.mark.parametrize("case", NONFINITE)
def test_nan_and_inf_are_no_answer(case, tmp_path):
    path = poisonous(tmp_path / "net.onnx", case)
    with ort.open(path) as session:
        good, bad = (replay(session, {"input": images})["output"] for images in (IMAGES[:2], negative(case)))
    spec = ModelSpec(**{**vars(SPEC), "num_classes": 1})
    golden, inputs = {"output": good}, {"input": IMAGES[:2]}
    made = bundle.write(tmp_path / "b", spec, [bundle.Item(path, golden=golden)], golden_inputs=inputs)
    with load(made, "ort") as model:
        assert np.isfinite(model(IMAGES[:1])[0].logits).all()
        for call in (model, model.run, model.answers):
            with pytest.raises(RunError, match="output 'output' of net holds NaN or Inf"):
                call(negative(case))
        assert np.isfinite(model.run(IMAGES[:1])["output"]).all()  # it stays usable
    with load(made, "ort", allow_nonfinite=True) as model:
        np.testing.assert_array_equal(model.run(negative(case))["output"], bad)
        assert len(model(negative(case))) == 2
    with pytest.raises(DataError, match="golden array 'output' holds NaN or Inf"):
        bundle.write(tmp_path / "c", spec, [bundle.Item(path, golden={"output": bad})], golden_inputs=inputs)
    with pytest.raises(DataError, match="golden array 'input' holds NaN or Inf"):
        bundle.write(tmp_path / "c", spec, [bundle.Item(path)], golden_inputs={"input": IMAGES[:2] * np.nan})
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("recorded", ["finite", "not finite"])
def test_verify_fails_on_nan(recorded, tmp_path, monkeypatch):
    """Whether it was recorded (by an earlier version, which did not look) or comes out here only."""
    path = poisonous(tmp_path / "net.onnx", "NaN")
    golden = np.full((2, 1), np.nan if recorded == "not finite" else 1.0, np.float32)
    monkeypatch.setattr(bundle.archive.np, "isfinite", lambda array: np.ones(array.shape, bool))
    made = bundle.write(tmp_path / "b", SPEC, [bundle.Item(path, golden={"output": golden})],
                        golden_inputs={"input": -IMAGES[:2]})  # fmt: skip
    monkeypatch.undo()
    report = bundle.verify(made)
    assert report.verdict == "failed"
    assert "output 'output' holds NaN or Inf" in {replay.reason for replay in report.replays}


def test_an_output_that_was_not_recorded_counts_too(tmp_path):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]> g (float[N,1,4,6] input) => (float[N,1] output, float[N,1] other)
        { pooled = GlobalAveragePool(input) output = Flatten(pooled) minus = Neg(output) other = Log(minus) }""")
    onnx.save(model, tmp_path / "net.onnx")
    golden = {"output": IMAGES[:2].mean((1, 2, 3))[:, None]}
    made = bundle.write(tmp_path / "b", SPEC, [bundle.Item(tmp_path / "net.onnx", golden=golden)],
                        golden_inputs={"input": IMAGES[:2]})  # fmt: skip
    assert {replay.reason for replay in bundle.verify(made).replays} == {"output 'other' holds NaN or Inf"}


def test_named_dimensions_come_from_the_backends_that_know_them(tmp_path):
    path = net(tmp_path / "net.onnx", "crnn", "free")
    for backend in ("ort",):
        try:
            session = open_file(path, backend)
        except NotAvailable:
            continue
        with session:
            assert (session.inputs[0].names[0], session.outputs[0].names) == ("N", ("", "N", ""))
