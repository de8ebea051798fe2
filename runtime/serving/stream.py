"""Ordered answers for a stream of frames: bounded queues, three drop policies, and a count of every dropped frame.

    with Stream(model, camera, policy="drop-oldest") as stream:
        for frame in stream:
            print(frame.index, frame.answer.top(1))
        print(stream.counts)

One thread reads and preprocesses, one computes; the iteration yields the answers. A frame that cannot be used has an
error instead of an answer. If the backend or the source fails, the stream raises the error after the earlier answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..batch_axes import count_samples
from ..common.closeable import Closeable
from ..errors import DataError, EdgesmithError, RunError, UsageError
from ..images.preprocess import as_image

if TYPE_CHECKING:
    from ..model import Answer, Model

POLICIES = ("block", "drop-oldest", "drop-newest")
_END = object()


@dataclass(frozen=True)
class Frame:
    """One frame: its index in the source, the image, uint8 (H, W, 3), or arrays, and the answer or the error."""

    index: int
    image: Any
    answer: Answer | None
    error: DataError | None = None


@dataclass
class Counts:
    """Counts of frames: read = answered + failed + dropped + in progress."""

    read: int = 0
    answered: int = 0
    failed: int = 0
    dropped: int = 0


class Stream(Closeable):
    """Run a model on a source of images.

    Args:
        model: A loaded model; the stream does not close it.
        source: Any iterable of images (arrays, paths, Pillow images); a camera or video is one (`frame_sources.py`).
            For a model that takes no images: of dicts of arrays by input name, one sample each.
        policy: What to do if the model is slower than the source: "block" makes the source wait, "drop-oldest" keeps
            the newest frames (live video), "drop-newest" keeps the frames that already wait.
        capacity: Maximum number of frames that wait for the model, and of answers that wait for the caller.

    Raises:
        UsageError: No such policy, or a capacity below 1.
    """

    def __init__(self, model: Model, source: Iterable[Any], *, policy: str = "block", capacity: int = 4) -> None:
        if policy not in POLICIES:
            raise UsageError(f"unknown policy {policy!r}", expected=", ".join(POLICIES))
        if capacity < 1:
            raise UsageError("the capacity is not positive", got=str(capacity), expected="1 or more")
        self.counts = Counts()
        self._model, self._source, self._policy = model, source, policy
        self._waiting: queue.Queue[Any] = queue.Queue(capacity)
        self._answers: queue.Queue[Any] = queue.Queue(capacity)
        self._stop = threading.Event()
        self._died: BaseException | None = None
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._read, self._compute)]
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order; if the loop is left early, the stream is closed.

        Raises:
            RunError: The backend or the source failed (after all earlier answers), or the stream was already iterated.
        """
        if self._threads[0].ident is not None:
            raise RunError("this stream was already iterated", do="make a new one")
        for thread in self._threads:
            thread.start()
        try:
            while (frame := self._take(self._answers)) is not _END:
                yield frame
        finally:  # also where the caller leaves the loop early
            self.close()
        if isinstance(self._died, EdgesmithError):
            raise self._died
        if self._died is not None:
            got = f"{type(self._died).__name__}: {self._died}"
            raise RunError("the source of frames failed", got=got, do="check the camera or file") from self._died

    def close(self) -> None:
        """Stop reading, and wait for the current frame; waiting frames are counted as dropped."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(timeout=10)
        for left in (self._waiting, self._answers):
            while not left.empty():
                self._drop(left.get_nowait())

    def _read(self) -> None:
        try:
            for index, image in enumerate(self._source):
                if self._stop.is_set():
                    return
                self._count("read")
                self._offer((index, *self._prepared(image)))
        except BaseException as error:
            self._died = error
        finally:
            self._put(self._waiting, _END)

    def _prepared(self, image: Any) -> tuple[Any, Any]:
        try:
            if isinstance(image, Mapping):
                if (count := count_samples(self._model.session, image)) != 1:
                    raise DataError("a frame holds several samples", got=str(count), expected="1")
                return image, image
            pixels = as_image(image)
            return pixels, self._model.preprocess([pixels])
        except DataError as error:
            return image, error

    def _offer(self, item: Any) -> None:
        if self._policy == "block":
            self._put(self._waiting, item)
            return
        while not self._stop.is_set():
            try:
                self._waiting.put_nowait(item)
                return
            except queue.Full:
                if self._policy == "drop-newest":
                    break
                self._drop_one()
        self._drop(item)

    def _drop_one(self) -> None:
        try:
            self._drop(self._waiting.get_nowait())
        except queue.Empty:
            return

    def _compute(self) -> None:
        try:
            while (item := self._take(self._waiting)) is not _END:
                self._put(self._answers, self._answered(*item))
        except BaseException as error:
            self._died = error
            self._stop.set()
        finally:
            self._put(self._answers, _END)

    def _answered(self, index: int, image: Any, batch: Any) -> Frame:
        if isinstance(batch, DataError):
            self._count("failed")
            return Frame(index, image, None, batch)
        try:
            size = None if isinstance(image, Mapping) else (image.shape[0], image.shape[1])
            answer = self._model.answers(batch, finite=True, sizes=[size])[0]
        except BaseException:
            self._count("failed")
            raise
        self._count("answered")
        return Frame(index, image, answer)

    def _put(self, line: queue.Queue[Any], item: Any) -> None:
        while not self._stop.is_set():
            try:
                line.put(item, timeout=0.05)
                return
            except queue.Full:
                continue
        self._drop(item)

    def _take(self, line: queue.Queue[Any]) -> Any:
        while True:
            try:
                return line.get(timeout=0.05)
            except queue.Empty:
                if self._stop.is_set():
                    return _END

    def _drop(self, item: Any) -> None:
        if item is not _END and not isinstance(item, Frame):
            self._count("dropped")

    def _count(self, what: str) -> None:
        with self._lock:
            setattr(self.counts, what, getattr(self.counts, what) + 1)
