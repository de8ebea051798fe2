"""The session of a TensorRT engine, on an emulated GPU: memory, recorded graphs, shapes, errors. No GPU's results."""

import gc
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from edgesmith.runtime.backends import _compiled
from edgesmith.runtime.backends._engine import MOST_SHAPES, TrtSession
from edgesmith.runtime.errors import DataError, EdgesmithError, RunError
from support.cuda import COMPUTE_MS, LAYERS, TRT, Cuda, Engine


def images(batch=1, seed=0):
    return np.random.default_rng(seed).random((batch, 3, 4, 4), np.float32)


def wanted(x, gain=4.0):
    return gain * x.mean(axis=(2, 3))


def test_every_call_answers_for_its_own_images_recorded_or_not():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        for seed in range(5):
            np.testing.assert_allclose(session.run({"input": images(2, seed)})["output"], wanted(images(2, seed)), 1e-6)
        assert session.graphs_refused == ""
    assert cuda.launches == 4  # the first call of a shape is not recorded


def test_shapes_that_take_turns_keep_their_recordings():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        for seed in range(3):
            for batch in (1, 5, 2):
                x = images(batch, seed)
                np.testing.assert_allclose(session.run({"input": x})["output"], wanted(x), 1e-6)
    assert cuda.launches == 6


def test_an_answer_stays_when_the_next_call_comes():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        first = session.run({"input": images(1, 0)})["output"]
        session.run({"input": images(1, 1)})
        np.testing.assert_allclose(first, wanted(images(1, 0)), 1e-6)


def test_memory_is_bounded_and_given_back():
    cuda = Cuda()
    session = TrtSession(TRT, cuda, Engine(cuda, most=64))
    for batch in range(1, 3 * MOST_SHAPES):
        session.run({"input": images(batch)})
        session.run({"input": images(batch)})
    assert len(cuda.memory) == 2 * MOST_SHAPES
    assert len(cuda.graphs) == MOST_SHAPES
    session.close()
    gc.collect()
    assert (cuda.memory, cuda.pinned, cuda.graphs) == ({}, {}, {})
    with pytest.raises(RunError, match="closed"):
        session.run({"input": images()})


@pytest.mark.parametrize(
    ("captures", "capturable", "why"),
    [(False, True, "cudaStreamBeginCapture"), (True, False, "cannot capture")],
    ids=["CUDA refuses", "TensorRT-RTX refuses"],
)
def test_where_nothing_can_be_recorded_it_runs_as_it_is(captures, capturable, why):
    cuda = Cuda(captures=captures)
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        session._context.capturable = capturable
        for seed in range(4):
            np.testing.assert_allclose(session.run({"input": images(1, seed)})["output"], wanted(images(1, seed)), 1e-6)
        assert why in session.graphs_refused
    assert cuda.launches == 0


def test_without_graphs_nothing_is_recorded():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda), graphs=False) as session:
        for seed in range(3):
            np.testing.assert_allclose(session.run({"input": images(1, seed)})["output"], wanted(images(1, seed)), 1e-6)
    assert cuda.launches == 0


def test_bound_arrays_are_read_and_written_in_place():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        small, large = session.bind(1), session.bind(3)
        for seed in range(3):
            for bound, batch in ((small, 1), (large, 3)):
                bound.inputs["input"][:] = images(batch, seed)
                assert bound() is bound.outputs
                np.testing.assert_allclose(bound.outputs["output"], wanted(images(batch, seed)), 1e-6)
            x = images(2, seed)
            np.testing.assert_allclose(session.run({"input": x})["output"], wanted(x), 1e-6)
        kept = large.outputs["output"]
    last = kept.copy()
    with pytest.raises(RunError, match="closed"):
        large()
    del small, large, bound
    gc.collect()
    np.testing.assert_array_equal(kept, last)  # the host's memory lives as long as somebody looks at it
    assert not cuda.memory


def test_what_does_not_fit_into_the_gpu_is_an_error_and_the_session_goes_on():
    cuda = Cuda(limit=2000)
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        session.run({"input": images(2)})
        with pytest.raises(RunError, match="not enough GPU memory") as caught:
            session.run({"input": images(12)})
        assert "cudaErrorMemoryAllocation" in str(caught.value)
        assert "free on the GPU" in str(caught.value)
        np.testing.assert_allclose(session.run({"input": images(2)})["output"], wanted(images(2)), 1e-6)
        assert len(cuda.memory) == 2


@pytest.mark.parametrize(
    ("x", "error"),
    [(images(17), "outside the engine's profile"), (images(1)[:, :2], "wrong shape"), (images(1) * np.nan, "NaN")],
    ids=["beyond the profile", "two channels", "NaN"],
)
def test_bad_feeds_are_refused_and_the_session_goes_on(x, error):
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        session.run({"input": images()})
        with pytest.raises((DataError, RunError), match=error):
            session.run({"input": x})
        for seed in range(3):
            np.testing.assert_allclose(session.run({"input": images(1, seed)})["output"], wanted(images(1, seed)), 1e-6)


def test_threads_take_turns():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session, ThreadPoolExecutor(4) as pool:
        batches = [images(1 + seed % 3, seed) for seed in range(60)]
        answers = pool.map(lambda x: session.run({"input": x})["output"], batches)
        for x, y in zip(batches, answers, strict=True):
            np.testing.assert_allclose(y, wanted(x), 1e-6)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("calls_before", [0, 3])
def test_copies_and_computing_are_told_apart_by_events(graphs, calls_before):
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda), graphs=graphs) as session:
        for seed in range(calls_before):
            session.run({"input": images(3, seed)})
        for seed in range(2):
            split = session.timed({"input": images(3, seed)})
            assert split.copy_in_s == pytest.approx(1e-6 * images(3).nbytes)
            assert split.compute_s == pytest.approx(3e-3 * COMPUTE_MS)
            assert split.copy_out_s == pytest.approx(1e-6 * 3 * 3 * 4)
        x = images(3, 9)
        np.testing.assert_allclose(session.run({"input": x})["output"], wanted(x), 1e-6)
        assert not cuda.events
    assert not cuda.graphs


def test_layers_are_the_mean_of_the_calls_and_leave_the_session_as_it_was():
    cuda = Cuda()
    with TrtSession(TRT, cuda, Engine(cuda)) as session:
        found = session.layers({"input": images(2)}, count=5)
        assert found == pytest.approx({name: 2e-3 * COMPUTE_MS * share for name, share in LAYERS.items()})
        for seed in range(3):
            np.testing.assert_allclose(session.run({"input": images(2, seed)})["output"], wanted(images(2, seed)), 1e-6)


@pytest.mark.parametrize("ask", ["timed", "layers"])
def test_what_is_timed_is_checked_as_a_call_is(ask):
    cuda = Cuda()
    session = TrtSession(TRT, cuda, Engine(cuda))
    with pytest.raises(DataError, match="NaN"):
        getattr(session, ask)({"input": images() * np.nan})
    session.close()
    with pytest.raises(RunError, match="closed"):
        getattr(session, ask)({"input": images()})


class Cached(Engine):
    """Compiles on the first context, and says what it was given from an earlier process."""

    def create_runtime_config(self):
        cache = SimpleNamespace(given=None, serialize=lambda: b"compiled for this GPU")
        cache.deserialize = lambda blob: setattr(cache, "given", blob)
        self.cache = cache
        return SimpleNamespace(create_runtime_cache=lambda: cache, set_runtime_cache=lambda one: None)


def test_what_was_compiled_is_kept_for_the_next_process(tmp_path, monkeypatch):
    trt = SimpleNamespace(**vars(TRT), DynamicShapesKernelSpecializationStrategy=SimpleNamespace(EAGER=1))
    cuda, place = Cuda(), tmp_path / "engines" / "x.compiled"
    first, second = Cached(cuda), Cached(cuda)
    TrtSession(trt, cuda, first, cache=place).close()
    assert first.cache.given is None
    assert place.read_bytes() == b"compiled for this GPU"
    assert place.parent.stat().st_mode & 0o777 == 0o700
    TrtSession(trt, cuda, second, cache=place).close()
    assert second.cache.given == b"compiled for this GPU"

    def refuse(place):
        raise EdgesmithError("the cache belongs to another user")

    monkeypatch.setattr(_compiled, "private_folder", refuse)
    third = Cached(cuda)
    TrtSession(trt, cuda, third, cache=place).close()
    assert third.cache.given is None
