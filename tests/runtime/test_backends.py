"""Every backend rejects what does not fit, stays usable afterwards, and agrees with an independent computation."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest

from edgesmith.runtime import backends
from edgesmith.runtime.backends import _base, null, ort
from edgesmith.runtime.common import plugins
from edgesmith.runtime.errors import DataError, ModelError, NotAvailable, RunError, UsageError
from support.bundles import SIDE, colour_net, golden_inputs
from support.graphs import model
from support.patience import PATIENCE_S

X = golden_inputs(2)["input"]


def expected(x, gain=4.0):
    return gain * x.astype(np.float64).mean(axis=(2, 3))


@pytest.fixture(params=["ort", "openvino"])
def engine(request):
    """Return each backend that computes ONNX files and is installed here."""
    module = plugins.load_plugin(backends, request.param, "backend")
    usable, reason = module.available()
    if not usable:
        pytest.skip(reason)
    return module


@pytest.fixture
def net(tmp_path):
    return colour_net(tmp_path / "colours.onnx")


def test_it_agrees_with_numpy_and_the_comparison_can_fail(engine, net):
    with engine.open(net, threads=1) as session:
        got = session.run({"input": X})["output"]
    np.testing.assert_allclose(got, expected(X), rtol=1e-5, atol=1e-6)
    assert np.abs(got - expected(X, 8.0)).max() > 0.01


def test_it_says_what_it_takes_and_gives(engine, net):
    with engine.open(net, threads=1) as session:
        assert session.inputs == (_base.Tensor("input", (None, 3, SIDE, SIDE), "float32"),)
        assert session.outputs == (_base.Tensor("output", (None, 3), "float32"),)


def test_optimised_or_not_the_answer_is_the_same(net):
    with ort.open(net, threads=2, optimise=False) as plain, ort.open(net, threads=1) as quick:
        np.testing.assert_allclose(plain.run({"input": X})["output"], quick.run({"input": X})["output"], atol=1e-6)


NAN, INF = X.copy(), X.copy()
NAN[1, 2, 3, 4], INF[0, 0, 0, 0] = np.nan, -np.inf
BAD_FEEDS = {
    "another name": ({"image": X}, "the names of the inputs are wrong; got image; expected input"),
    "nothing": ({}, "the names of the inputs are wrong; got none"),
    "one too many": ({"input": X, "more": X}, "the names of the inputs are wrong"),
    "float64": ({"input": X.astype(np.float64)}, "input 'input' has the wrong type; got float64"),
    "a list": ({"input": X.tolist()}, "has the wrong type; got list"),
    "NHWC": ({"input": X.transpose(0, 2, 3, 1)}, r"wrong shape; .*; do: transpose NHWC to NCHW"),
    "no batch": ({"input": X[0]}, r"wrong shape; .*; do: add the batch dimension"),
    "another size": ({"input": X[:, :, :8]}, r"got \(2, 3, 8, 16\); expected \(any, 3, 16, 16\)"),
    "an empty batch": ({"input": X[:0]}, "wrong shape"),
    "NaN": ({"input": NAN}, "holds NaN or Inf"),
    "Inf": ({"input": INF}, "holds NaN or Inf"),
    "NaN, not contiguous": ({"input": NAN[:, ::-1]}, "holds NaN or Inf"),
}


@pytest.mark.parametrize("case", BAD_FEEDS)
def test_bad_feeds_are_refused_and_the_session_goes_on(case, engine, net):
    feeds, message = BAD_FEEDS[case]
    with engine.open(net, threads=1) as session:
        with pytest.raises(DataError, match=message):
            session.run(feeds)
        np.testing.assert_allclose(session.run({"input": X})["output"], expected(X), rtol=1e-4, atol=1e-6)


def test_huge_but_finite_numbers_are_not_taken_for_inf():
    assert _base.is_finite(np.full((2, 3), 3e38, np.float32))
    assert _base.is_finite(np.array([1, 2]))


def test_what_is_not_contiguous_runs_too(engine, net):
    with engine.open(net, threads=1) as session:
        flipped = X[:, :, ::-1]
        np.testing.assert_allclose(session.run({"input": flipped})["output"], expected(X), rtol=1e-4, atol=1e-6)


def test_a_closed_session_says_so(engine, net):
    session = engine.open(net, threads=1)
    session.close()
    session.close()
    with pytest.raises(RunError, match="this session is closed"):
        session.run({"input": X})


BAD_FILES = {"empty": b"", "text": b"hello", "half": None}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_broken_file_is_a_model_error(case, engine, net):
    content = net.read_bytes()
    net.write_bytes(content[: len(content) // 2] if BAD_FILES[case] is None else BAD_FILES[case])
    with pytest.raises(ModelError, match="cannot load"):
        engine.open(net)


def test_openvino_reports_to_nobody(net):
    """Its import would send an event, from a process of its own."""
    pytest.importorskip("openvino")
    code = (
        "import sys, multiprocessing as m; from edgesmith.runtime.backends import openvino\n"
        "with openvino.open(sys.argv[1], threads=1): pass\n"
        "print([name for name in sys.modules if 'openvino_telemetry' in name], m.active_children())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(net)], capture_output=True, text=True, check=True)
    assert done.stdout == "[] []\n"


def test_wrong_use_of_ort(net, tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        ort.open(tmp_path / "nowhere.onnx")
    with pytest.raises(UsageError, match="threads"):
        ort.open(net, threads=0)
    with pytest.raises(NotAvailable, match="onnxruntime has no"):
        ort.open(net, provider="RocketExecutionProvider")


def test_threads_that_call_at_once_get_their_own_answers(engine, net):
    batches = [golden_inputs(3)["input"] * scale for scale in range(1, 9)]
    with engine.open(net, threads=1) as session, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda batch: session.run({"input": batch})["output"], batches * 5))
    for answer, batch in zip(answers, batches * 5, strict=True):
        np.testing.assert_allclose(answer, expected(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", ["N", 2])
def test_bound_arrays_stay_where_they_are_and_give_the_same(batch, tmp_path):
    with ort.open(colour_net(tmp_path / "x.onnx", batch), threads=1) as session:
        bound = session.bind(2)
        place = bound.outputs["output"]
        for scale in (1, -3):
            bound.inputs["input"][:] = scale * X
            assert bound()["output"] is place
            np.testing.assert_array_equal(place, session.run({"input": np.float32(scale) * X})["output"])
    with pytest.raises(RunError, match="closed"):
        bound()


def test_null_answers_zeros_of_the_declared_shapes(tmp_path):
    path = tmp_path / "null.json"
    path.write_text(json.dumps({
        "inputs": [{"name": "input", "shape": [None, 3, SIDE, SIDE], "dtype": "float32"}],
        "outputs": [{"name": "output", "shape": [None, 7], "dtype": "float16"}],
    }))  # fmt: skip
    with null.open(path) as session:
        out = session.run({"input": X})["output"]
        assert (out.shape, out.dtype, out.any()) == ((2, 7), np.float16, False)
    path.write_text('{"inputs": 7}')
    with pytest.raises(ModelError, match="is not a null model"):
        null.open(path)


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 3.4028235e38, -3.4028235e38]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8"])
@pytest.mark.parametrize("value", [*SPECIAL, -np.float32(np.frombuffer(b"\1\0\x80\xff", np.float32)[0])], ids=repr)
def test_what_is_finite_is_found_in_the_bits(dtype, value):
    with np.errstate(all="ignore"):
        x = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(dtype)
        x[1, 2, 3] = np.asarray(value).astype(dtype)
    for array in (x, x.transpose(2, 0, 1), x[:, ::-1, ::2], x[1, 2, 3:4], x[:0]):
        assert _base.is_finite(array) == bool(np.isfinite(array).all())
    assert _base.is_finite(np.asarray(x[1, 2, 3])) == bool(np.isfinite(x[1, 2, 3]))


AT_ONCE = """import sys, numpy as np
from concurrent.futures import ThreadPoolExecutor
from edgesmith.runtime.backends import openvino

def first(_):
    with openvino.open(sys.argv[1], threads=1) as session:
        session.run({"x": np.zeros((1, 3, 4, 4), np.float32)})

with ThreadPoolExecutor(4) as pool:
    list(pool.map(first, range(4)))
"""


def test_openvino_is_opened_first_by_several_threads_at_once(tmp_path):
    """Its bindings locked up in one process of eight when they were first used by two threads."""
    pytest.importorskip("openvino")
    onnx.save(model("(float[1, 3, 4, 4] x) => (float[1, 3, 4, 4] y) { y = Relu (x) }"), tmp_path / "m.onnx")
    for _ in range(3):
        subprocess.run([sys.executable, "-c", AT_ONCE, tmp_path / "m.onnx"], check=True, timeout=PATIENCE_S)
