"""Files with a fixed batch of several: made free where each sample has the same outputs alone, else refused."""

import numpy as np
import onnx
import pytest

import edgesmith as es
from edgesmith.export.api import describe
from edgesmith.export.sources.fixed_batch import with_free_batch
from edgesmith.runtime.backends import ort
from edgesmith.runtime.errors import UsageError
from support.graphs import model

CONV = {"w": (5, 3, 3, 3)}
HEAD = "c = Conv(x, w) r = Relu(c) g = GlobalAveragePool(r) "


def shape(*sizes):
    return np.array(sizes, np.int64)


FREED = {  # graph, constants -> shapes of the outputs of one sample
    "a classifier": ("(float[4,3,8,8] x) => (float[4,5] y)", HEAD + "y = Flatten(g)", CONV, [(1, 5)]),
    "a Reshape to the batch": (
        "(float[4,3,8,8] x) => (float[4,5] y)", HEAD + "y = Reshape(g, s)", CONV | {"s": shape(4, 5)}, [(1, 5)],
    ),
    "a Reshape with a free part": (
        "(float[4,3,8,8] x) => (float[4,5] y)", HEAD + "y = Reshape(g, s)", CONV | {"s": shape(4, -1)}, [(1, 5)],
    ),
    "time first": (
        "(float[4,3,8,8] x) => (float[36,4,5] y)",
        "c = Conv(x, w) r = Reshape(c, s) y = Transpose<perm=[2,0,1]>(r)", CONV | {"s": shape(4, 5, 36)}, [(36, 1, 5)],
    ),
    "boxes of all samples in one axis": (
        "(float[4,3,8,8] x) => (float[144,5] y)",
        "c = Conv(x, w) t = Transpose<perm=[0,2,3,1]>(c) y = Reshape(t, s)", CONV | {"s": shape(-1, 5)}, [(36, 5)],
    ),
    "two inputs, two outputs": (
        "(float[2,3,8,8] x, float[2,2] k) => (float[2,5,1,1] y, float[2,2] z)",
        "c = Conv(x, w) y = GlobalAveragePool(c) z = Abs(k)", CONV, [(1, 5, 1, 1), (1, 2)],
    ),
}  # fmt: skip


def build(signature, body, constants):
    return model(f"{signature} {{ {body} }}", constants)


@pytest.mark.parametrize("case", FREED)
def test_each_sample_has_the_same_outputs_alone(case, tmp_path):
    signature, body, constants, expected = FREED[case]
    network = build(signature, body, constants)
    onnx.save(network, tmp_path / "net.onnx")
    before = network.SerializeToString()
    free, batch = with_free_batch(network, tmp_path / "net.onnx")
    assert network.SerializeToString() == before
    assert batch == network.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    onnx.checker.check_model(free, full_check=True)
    onnx.save(free, tmp_path / "free.onnx")
    with ort.open(tmp_path / "free.onnx") as session:
        for count in (1, 3):
            assert all(tensor.shape[0] is None for tensor in session.inputs)
            feeds = {tensor.name: np.ones((count, *tensor.shape[1:]), np.float32) for tensor in session.inputs}
            shapes = [output.shape for output in session.run(feeds).values()]
            assert count > 1 or shapes == expected
    fact = next(fact for fact in describe(tmp_path / "net.onnx").facts if fact.name == "batch")
    assert str(fact) == f"batch: {batch} (the file; it is made free: each sample has the same outputs alone)"


REFUSED = {
    "a mean over the batch": ("y = Sub(x, m)", "m = ReduceMean<keepdims=1>(x, a)", "output 'y' differs by"),
    "a softmax over the batch": ("y = Softmax<axis=0>(x)", "", "output 'y' differs by"),
    "a transposed batch": ("y = Reshape(t, s)", "t = Transpose<perm=[1,0,2,3]>(x)", "output 'y' "),
    "a constant of the batch": ("y = Add(x, b)", "", "output 'y' has the shape"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_samples_that_depend_on_each_other_are_refused(case, tmp_path):
    last, before, said = REFUSED[case]
    constants = {"a": shape(0), "s": shape(4, 3, 2, 2), "b": (4, 3, 2, 2)}
    onnx.save(build("(float[4,3,2,2] x) => (float[4,3,2,2] y)", f"{before} {last}", constants), tmp_path / "net.onnx")
    with pytest.raises(
        UsageError, match=f"the batch of 4 in .* cannot be made free; got 4x3x2x2; alone, {said}"
    ) as error:
        describe(tmp_path / "net.onnx")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dims", ["3,8,8", "1,3,8,8", "N,3,8,8"])
def test_other_batches_stay_as_they_are(dims, tmp_path):
    network = model(f"(float[{dims}] x) => (float[{dims}] y) {{ y = Neg(x) }}")
    assert with_free_batch(network, tmp_path / "net.onnx") == (network, 1)


def test_a_file_of_batch_four_ends_in_a_bundle_for_one_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    constants = CONV | {"s": shape(4, 5)}
    onnx.save(build("(float[4,3,8,8] x) => (float[4,5] y)", HEAD + "y = Reshape(g, s)", constants), "net.onnx")
    options = {"precision": "fp32", "target": "ort-x86", "calibration": 4}
    summary = es.export("net.onnx", data="random", **options)
    assert summary.written, summary
    with es.load("bundles/net", device="cpu") as network:
        sample = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
        outputs = network.run(sample)["y"]
    with ort.open("net.onnx") as session:
        whole = session.run({"x": np.concatenate([sample, sample])})["y"]
    np.testing.assert_allclose(outputs, whole[:2], rtol=1e-4, atol=1e-6)
