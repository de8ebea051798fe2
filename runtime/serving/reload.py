"""A worker pool with a bounded queue, and a model that reloads its bundle after a change.

with WorkerPool(model, workers=2, capacity=8) as pool:
    future = pool.submit("photo.png")          # concurrent.futures.Future; `await asyncio.wrap_future(future)`
with ReloadingModel("bundles/mobilenetv2") as model:
    model(image); model.refresh()
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundle.manifest import NAME
from ..common.closeable import Closeable
from ..errors import EdgesmithError, RunError, UsageError
from ..model import load

if TYPE_CHECKING:
    from ..model import Model


class WorkerPool(Closeable):
    """Threads that call a model; if the queue is full, `submit` raises an error, so memory is bounded.

    Args:
        model: A loaded model; the pool does not close it.
        workers: Number of threads; one or two for a CPU backend that uses all cores.
        capacity: Maximum number of waiting calls.

    Raises:
        UsageError: A number below 1.
    """

    def __init__(self, model: Model, *, workers: int = 1, capacity: int = 8) -> None:
        if min(workers, capacity) < 1:
            raise UsageError("a number is not positive", got=f"workers {workers}, capacity {capacity}", expected="1 up")
        self._model = model
        self._calls: queue.Queue[tuple[Future[Any], Any] | None] = queue.Queue(capacity)
        self._closed = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, images: Any, timeout: float | None = 0.0) -> Future[Any]:
        """Queue a call of the model and return its Future, which has the result or exception of the call.

        Args:
            images: As for `Model.__call__`.
            timeout: Seconds to wait for a place in the queue; None waits without limit.

        Raises:
            RunError: The queue is full, or the pool is closed.
        """
        if self._closed:
            raise RunError("this pool is closed", do="make a new one")
        future: Future[Any] = Future()
        try:
            self._calls.put((future, images), block=timeout != 0, timeout=timeout or None)
        except queue.Full as error:
            got = f"{self._calls.maxsize} calls waiting"
            raise RunError("the queue is full", got=got, do="wait for answers, or submit less often") from error
        if not any(thread.is_alive() for thread in self._threads):  # closed since the check above
            self._fail_waiting()
        return future

    def close(self) -> None:
        """Finish the waiting calls, then end the threads; calls that are submitted meanwhile end with a RunError."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._calls.put(None)
        if threading.current_thread() not in self._threads:  # as in a callback of a Future
            for thread in self._threads:
                thread.join()
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        """End the calls that no thread will take."""
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None and call[0].set_running_or_notify_cancel():
                    call[0].set_exception(RunError("this pool was closed", do="make a new one"))

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            future, images = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._model(images))
            except BaseException as error:
                future.set_exception(error)


class ReloadingModel(Closeable):
    """A model that is reloaded if its bundle changes; running calls finish on the old model.

    Args:
        path: The bundle's folder or .zip.
        settings: Arguments of `model.load`.
    """

    def __init__(self, path: str | Path, **settings: Any) -> None:
        self.path, self._settings = Path(path), settings
        self._lock = threading.Lock()
        self._users: dict[int, int] = {}
        self._stamp, self._model = self._loaded()
        self.problem: EdgesmithError | None = None

    @property
    def model(self) -> Model:
        """The current model."""
        return self._model

    def __call__(self, images: Any, *, channels: str = "RGB") -> Any:
        """Call the model; see `Model.__call__`."""
        with self._borrowed() as model:
            return model(images, channels=channels)

    def refresh(self) -> bool:
        """Load the bundle again if it was replaced, and return whether it was.

        If the new bundle cannot be loaded, because its files are still being copied or for another reason, the earlier
        model is kept, `problem` is the reason, and the next call tries again.
        """
        if self._look() == self._stamp:
            return False
        try:
            stamp, new = self._loaded()
        except EdgesmithError as error:
            self.problem = error
            return False
        with self._lock:
            old, self._model, self.problem, self._stamp = self._model, new, None, stamp
            idle = not self._users.get(id(old))
        if idle:
            old.close()
        return True

    def close(self) -> None:
        """Close the model."""
        self._model.close()

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[Model]:
        with self._lock:
            model = self._model
            self._users[id(model)] = self._users.get(id(model), 0) + 1
        try:
            yield model
        finally:
            with self._lock:
                self._users[id(model)] -= 1
                last = not self._users[id(model)]
                if last:
                    del self._users[id(model)]
                retired = last and model is not self._model
            if retired:
                model.close()

    def _loaded(self) -> tuple[str, Model]:
        """Load the model, and return it with the stamp of what was loaded."""
        stamp = self._look()
        model = load(self.path, **self._settings)
        return model.bundle.digest if self.path.is_dir() else stamp, model

    def _look(self) -> str:
        """Return a value that changes with the bundle: its manifest's digest, or the time and size of a .zip."""
        with contextlib.suppress(OSError):
            if self.path.is_dir():
                return hashlib.sha256((self.path / NAME).read_bytes()).hexdigest()
            status = self.path.stat()
            return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
        return ""
