"""Streams keep order and count every frame; pools bound their queue; a live model follows its bundle."""

import asyncio
import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgesmith.runtime import load
from edgesmith.runtime.errors import DataError, RunError, UsageError
from edgesmith.runtime.serving.reload import ReloadingModel, WorkerPool
from edgesmith.runtime.serving.stream import Stream
from support.bundles import LABELS, SIDE, colour_bundle, picture
from support.patience import PATIENCE_S

RIGHT = (SIDE, SIDE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return colour_bundle(tmp_path_factory.mktemp("made") / "colours")


@pytest.fixture
def model(made):
    with load(made, device="ort", threads=1) as loaded:
        yield loaded


def frames(count):
    return [picture(LABELS[at % 3], RIGHT) for at in range(count)]


def labels(found):
    return [frame.answer.top(1)[0].label for frame in found if frame.answer]


class Held:
    """The session behind a model, held in its runs: `begun` says that one is under way, `go_on` lets all end.

    It fails at its run `dies_at`, as a GPU that falls off its bus does.
    """

    def __init__(self, model, monkeypatch, dies_at=None):
        self.begun, self.go_on = threading.Event(), threading.Event()
        self._original, self._runs, self._dies_at = model.session._run, 0, dies_at
        monkeypatch.setattr(model.session, "_run", self._run)

    def _run(self, feeds):
        self._runs += 1
        self.begun.set()
        assert self.go_on.wait(PATIENCE_S)
        if self._runs == self._dies_at:
            raise RunError("the device is gone")
        return self._original(feeds)


def balanced(counts):
    return counts.read == counts.answered + counts.failed + counts.dropped


def test_blocking_answers_every_frame_in_order(model):
    with Stream(model, frames(20), capacity=2) as stream:
        found = list(stream)
    assert [frame.index for frame in found] == list(range(20))
    assert labels(found) == [LABELS[at % 3] for at in range(20)]
    assert (stream.counts.read, stream.counts.answered, stream.counts.dropped) == (20, 20, 0)


@pytest.mark.parametrize("policy", ["drop-oldest", "drop-newest"])
def test_a_slow_model_drops_frames_and_counts_them(policy, model, monkeypatch):
    held = Held(model, monkeypatch)

    def camera():
        yield from frames(60)
        held.go_on.set()

    with Stream(model, camera(), policy=policy, capacity=2) as stream:
        found = list(stream)
    indices = [frame.index for frame in found]
    assert indices == sorted(set(indices))
    assert stream.counts.read == 60
    assert stream.counts.dropped >= 57  # all but the one under way and the two that wait
    assert balanced(stream.counts)
    assert labels(found) == [LABELS[at % 3] for at in indices]
    assert indices[-2:] == [58, 59] if policy == "drop-oldest" else indices[:2] == [0, 1]


def test_a_bad_frame_keeps_its_place(model):
    source = [*frames(2), np.zeros((3, 3)), "no/such.png", *frames(1)]
    with Stream(model, source) as stream:
        found = list(stream)
    assert [frame.index for frame in found] == [0, 1, 2, 3, 4]
    assert [isinstance(frame.error, DataError) for frame in found] == [False, False, True, True, False]
    assert (stream.counts.answered, stream.counts.failed) == (3, 2)


def test_a_backend_that_dies_ends_the_stream_with_its_error(model, monkeypatch):
    Held(model, monkeypatch, dies_at=4).go_on.set()
    found = []

    def endless():
        while True:
            yield picture("red", RIGHT)

    with Stream(model, endless(), capacity=2) as stream, pytest.raises(RunError, match="the device is gone"):
        found.extend(stream)
    assert [frame.index for frame in found] == [0, 1, 2]
    assert balanced(stream.counts)
    assert not any(thread.is_alive() for thread in stream._threads)
    assert model(picture("red")).top(1)[0].label == "red"


def test_a_camera_that_is_unplugged_ends_the_stream_after_its_frames(model):
    def camera():
        yield from frames(3)
        raise OSError("device not found")

    found = []
    with (
        Stream(model, camera()) as stream,
        pytest.raises(RunError, match="source of frames failed; got OSError: device"),
    ):
        found.extend(stream)
    assert [frame.index for frame in found] == [0, 1, 2]
    assert stream.counts.answered == 3


def test_leaving_early_stops_the_threads(model):
    with Stream(model, itertools.repeat(picture("red", RIGHT)), capacity=2) as stream:
        for frame in stream:
            if frame.index == 3:
                break
    assert not any(thread.is_alive() for thread in stream._threads)
    assert balanced(stream.counts)
    with pytest.raises(RunError, match="already iterated"):
        next(iter(stream))


def test_leaving_the_loop_alone_ends_the_threads(model):
    """Without a `with` block: nobody calls `close`."""
    stream = Stream(model, itertools.repeat(picture("red", RIGHT)), capacity=2)
    for frame in stream:
        if frame.index == 3:
            break
    assert not any(thread.is_alive() for thread in stream._threads)
    assert balanced(stream.counts)


def test_wrong_use_of_a_stream(model):
    with pytest.raises(UsageError, match="unknown policy 'drop'"):
        Stream(model, [], policy="drop")
    with pytest.raises(UsageError, match="capacity"):
        Stream(model, [], capacity=0)


def test_a_pool_answers_futures_and_awaits(model):
    with WorkerPool(model, workers=2, capacity=30) as pool:
        futures = [pool.submit(image) for image in frames(12)]
        assert [future.result(PATIENCE_S).top(1)[0].label for future in futures] == [LABELS[at % 3] for at in range(12)]

        async def ask():
            return await asyncio.wrap_future(pool.submit(picture("blue")))

        assert asyncio.run(ask()).top(1)[0].label == "blue"
        with pytest.raises(DataError):
            pool.submit("no/such.png").result(PATIENCE_S)
    with pytest.raises(RunError, match="this pool is closed"):
        pool.submit(picture("red"))


def test_a_full_pool_refuses_at_once_or_after_its_time(model, monkeypatch):
    held = Held(model, monkeypatch)
    with WorkerPool(model, capacity=1) as pool:
        pool.submit(picture("red"))
        assert held.begun.wait(PATIENCE_S)
        pool.submit(picture("red"))
        for timeout in (0, 0.01):
            with pytest.raises(RunError, match="the queue is full; got 1 calls waiting"):
                pool.submit(picture("red"), timeout=timeout)
        threading.Timer(0.05, held.go_on.set).start()
        assert pool.submit(picture("blue"), timeout=PATIENCE_S).result(PATIENCE_S).top(1)[0].label == "blue"


def test_every_future_ends_though_the_pool_is_closed_meanwhile(model, monkeypatch):
    """A call is queued after the threads ended, because `submit` had seen an open pool."""
    pool, real = WorkerPool(model, capacity=3), queue.Queue.put
    monkeypatch.setattr(queue.Queue, "put", lambda self, item, *rest, **more: (
        pool.close() if item is not None else None, real(self, item, *rest, **more))[1])  # fmt: skip
    future = pool.submit(picture("red"))
    with pytest.raises(RunError, match="this pool was closed"):
        future.result(PATIENCE_S)
    monkeypatch.undo()
    assert pool._calls.empty()


def test_closing_while_others_submit_leaves_no_future_open(model):
    for _ in range(20):
        pool, futures = WorkerPool(model, workers=2, capacity=4), []

        def submit(pool=pool, futures=futures):
            with contextlib.suppress(RunError):
                while True:
                    futures.append(pool.submit(picture("red"), timeout=None))

        threads = [threading.Thread(target=submit) for _ in range(3)]
        for thread in threads:
            thread.start()
        futures_before_close = pool.submit(picture("red"), timeout=None)
        pool.close()
        for thread in threads:
            thread.join()
        for future in (*futures, futures_before_close):
            assert future.exception(PATIENCE_S) is None or isinstance(future.exception(), RunError)


def test_a_pool_can_be_closed_by_the_answer_to_a_call(model):
    pool = WorkerPool(model, capacity=3)
    futures = [pool.submit(picture("red")) for _ in range(2)]
    futures[0].add_done_callback(lambda future: pool.close())
    assert [future.result(PATIENCE_S).top(1)[0].label for future in futures] == ["red", "red"]


def test_many_threads_share_one_model(model):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(model, frames(60)))
    assert [answer.top(1)[0].label for answer in answers] == [LABELS[at % 3] for at in range(60)]


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made.folder, tmp_path / "colours")


def test_a_live_model_follows_its_bundle(folder):
    with ReloadingModel(folder, device="ort", threads=1) as live:
        before, old = live(picture("green")), live.model
        assert live.refresh() is False
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"green"', '"verde"'))
        assert live(picture("green")).top(1)[0].label == before.top(1)[0].label == "green"
        assert live.refresh() is True
        assert live(picture("green")).top(1)[0].label == "verde"
        assert old.session.closed


def test_a_broken_replacement_changes_nothing(folder):
    with ReloadingModel(folder, device="ort", threads=1) as live:
        (folder / "manifest.json").write_text("{}")
        assert live.refresh() is False
        assert "manifest.json cannot be read" in str(live.problem)
        assert live(picture("red")).top(1)[0].label == "red"


def test_a_call_under_way_finishes_on_the_old_model(folder, monkeypatch):
    with ReloadingModel(folder, device="ort", threads=1) as live:
        old = live.model
        held, answers = Held(old, monkeypatch), []
        caller = threading.Thread(target=lambda: answers.append(live(picture("red"))))
        caller.start()
        assert held.begun.wait(PATIENCE_S)
        text = (folder / "manifest.json").read_text()
        (folder / "manifest.json").write_text(text.replace('"green"', '"verde"'))
        assert live.refresh() is True
        assert not old.session.closed
        held.go_on.set()
        caller.join()
        assert answers[0].top(1)[0].label == "red"
        assert old.session.closed


@pytest.mark.parametrize(("old", "new"), [("Pool", "WorkerPool"), ("Live", "ReloadingModel")])
def test_the_names_of_before_still_work_and_say_what_they_are_called_now(old, new):
    from edgesmith.runtime import serving

    with pytest.warns(DeprecationWarning, match=f"{old} is called {new} now"):
        assert getattr(serving, old) is getattr(serving, new)
    with pytest.raises(AttributeError):
        serving.Puddle  # noqa: B018


PREFORK = """
import os, sys
from edgesmith.runtime import load
from support.bundles import picture
children = []
for label in ("red", "blue", "green"):
    child = os.fork()
    if child == 0:
        with load(sys.argv[1], device="ort", threads=2) as model:
            os._exit(0 if model(picture(label)).top(1)[0].label == label else 1)
    children.append(child)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_each_process_of_a_prefork_server_loads_its_own_model(made):
    """As docs/runtime.md says: the runtime is imported before the fork, the model is loaded after it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = [sys.executable, "-c", PREFORK, str(made.folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
