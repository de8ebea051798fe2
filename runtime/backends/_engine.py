"""A TensorRT engine as a session: host and GPU memory, one context, calls captured as CUDA graphs.

Each input shape has its own memory, for at most MOST_SHAPES shapes at once; `close` releases it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import gpu
from ..errors import RunError
from ._base import Session, fixed_shape
from ._compiled import Compiled, tensors
from ._cuda import MemoryPair, Recording
from ._timing import Split, Stopwatch, layer_clock

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SHAPES = 8


class TrtSession(Session):
    """One engine, one execution context, one CUDA stream; calls from several threads are serialised.

    The first call of a shape runs directly, the second is captured as a CUDA graph, and later calls launch the graph:
    one launch instead of one per kernel. `graphs_refused` is the reason if that is impossible.

    Args:
        trt: The TensorRT module.
        cuda: cuda-python's runtime module.
        engine: The deserialised engine.
        device: Index of the GPU.
        graphs: Capture CUDA graphs.
        cache: Cache file of the kernels that TensorRT-RTX compiled for this GPU; written if it does not exist.
    """

    def __init__(
        self, trt: Any, cuda: Any, engine: Any, *, device: int = 0, graphs: bool = True, cache: Path | None = None
    ) -> None:
        self._trt, self._cuda, self._engine, self._device = trt, cuda, engine, device
        self.inputs, self.outputs = tensors(trt, engine)
        self._compiled = Compiled(trt, engine, cache)
        self._context = self._compiled.context()
        if self._context is None:
            raise RunError("TensorRT could not create an execution context", do="free GPU memory; see `nvidia-smi`")
        self._stream = gpu.call(cuda.cudaStreamCreate)
        self.graphs_refused = "" if graphs else "not wanted"
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], EngineLayout] = OrderedDict()
        self._bound: list[EngineLayout] = []
        self._placed: EngineLayout | None = None
        self._lock = threading.Lock()

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            plan = self._filled(feeds)
            self._compute(plan)
            return {tensor.name: plan.pairs[tensor.name].array.copy() for tensor in self.outputs}

    def bind(self, batch: int = 1) -> BoundEngine:
        """Return a call with fixed, page-locked input and output arrays; see `BoundEngine`.

        Raises:
            UsageError: A dimension other than the batch is dynamic.
            RunError: The batch is outside the engine's profile, or there is not enough memory.
        """
        shapes = {tensor.name: fixed_shape(tensor, batch) for tensor in self.inputs}
        with self._lock:
            self._bound.append(plan := self._make_plan(shapes))
        return BoundEngine(self, plan)

    def timed(self, feeds: Mapping[str, NDArray[Any]]) -> Split:
        """Compute once and return seconds by the GPU's clock; copies are not part of the captured graph then.

        Raises:
            DataError, RunError: As `run`.
        """
        with self._ready(feeds) as plan:
            if plan.state == "new":
                self._compute(plan)
            self._place(plan)
            if plan.kernels is None and not self.graphs_refused:
                plan.kernels = Recording(self._cuda, self._stream)
                self.graphs_refused = self._unfit() or plan.kernels.record(self._enqueue)
            watch = Stopwatch(self._cuda, self._stream)
            try:
                watch.mark()
                self._copy_in(plan)
                watch.mark()
                self._enqueue() if self.graphs_refused or plan.kernels is None else plan.kernels.launch()
                watch.mark()
                self._copy_out(plan)
                watch.mark()
                return Split(*watch.seconds())
            finally:
                watch.free()

    def layers(self, feeds: Mapping[str, NDArray[Any]], count: int = 20) -> dict[str, float]:
        """Return seconds of each layer by its name in TensorRT: the mean of `count` calls after one warm-up call.

        TensorRT synchronises after each layer, so the sum is larger than the time of a call.

        Raises:
            DataError, RunError: As `run`; TensorRT has no memory for a second execution context.
        """
        with self._ready(feeds) as plan:
            self._compute(plan)
            context = self._compiled.context()
            if context is None:
                raise RunError("TensorRT could not create a second execution context", do="free GPU memory")
            clock = context.profiler = layer_clock(self._trt)
            self._shape(plan.shapes, context)
            _address(context, plan)
            for done in range(count + 1):
                self._enqueue(context)
                gpu.call(self._cuda.cudaStreamSynchronize, self._stream)
                if done == 0:
                    clock.spent.clear()
            return {name: 1e-3 * ms / count for name, ms in clock.spent.items()}

    @contextlib.contextmanager
    def _ready(self, feeds: Mapping[str, NDArray[Any]]) -> Iterator[EngineLayout]:
        """Check as `run` does, wait for other threads, and yield the memory with the inputs copied in."""
        self._admit(feeds)
        with self._lock:
            gpu.call(self._cuda.cudaSetDevice, self._device)
            yield self._filled(feeds)

    def _filled(self, feeds: Mapping[str, NDArray[Any]]) -> EngineLayout:
        plan = self._plan(feeds)
        for name, array in feeds.items():
            np.copyto(plan.pairs[name].array, array)
        return plan

    def _plan(self, feeds: Mapping[str, NDArray[Any]]) -> EngineLayout:
        """Return the memory for these shapes; the least recently used one is evicted."""
        key = tuple(feeds[tensor.name].shape for tensor in self.inputs)
        if key not in self._plans:
            while len(self._plans) >= MOST_SHAPES:
                self._drop(self._plans.popitem(last=False)[1])
            self._plans[key] = self._make_plan({name: array.shape for name, array in feeds.items()})
        self._plans.move_to_end(key)
        return self._plans[key]

    def _make_plan(self, shapes: Mapping[str, tuple[int, ...]]) -> EngineLayout:
        gpu.call(self._cuda.cudaSetDevice, self._device)
        self._placed = None
        self._shape(shapes)
        pairs: dict[str, MemoryPair] = {}
        try:
            for tensor in (*self.inputs, *self.outputs):
                shape = tuple(self._context.get_tensor_shape(tensor.name))
                if -1 in shape:
                    raise RunError(f"the shape of {tensor.name!r} depends on the data", do="fix it in the graph")
                pairs[tensor.name] = MemoryPair(self._cuda, shape, tensor.numpy)
        except RunError:
            for pair in pairs.values():
                pair.free()
            raise
        return EngineLayout(dict(shapes), pairs, Recording(self._cuda, self._stream))

    def _shape(self, shapes: Mapping[str, tuple[int, ...]], context: Any = None) -> None:
        for name, shape in shapes.items():
            if not (context or self._context).set_input_shape(name, shape):
                low, _, high = (tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, 0))
                raise RunError(f"input {name!r} is outside the engine's profile", got=str(shape),
                               expected=f"{low} to {high}", do="build it with another --batch or --shape")  # fmt: skip

    def _compute(self, plan: EngineLayout) -> None:
        """Copy in, compute, copy out, wait."""
        gpu.call(self._cuda.cudaSetDevice, self._device)
        if plan.state == "new" or self.graphs_refused:
            self._place(plan)
            self._queue(plan)
            plan.state = "warm" if plan.state == "new" else plan.state
        else:
            if plan.state == "warm":
                self._place(plan)
                self.graphs_refused = self._unfit() or plan.recording.record(lambda: self._queue(plan))
                if self.graphs_refused:
                    return self._compute(plan)
                plan.state = "recorded"
            plan.recording.launch()
        gpu.call(self._cuda.cudaStreamSynchronize, self._stream)
        return None

    def _unfit(self) -> str:
        """Return why TensorRT-RTX cannot capture now; "" if it can, or does not report it."""
        fits = getattr(self._context, "is_stream_capturable", lambda stream: True)(int(self._stream))
        return "" if fits else "TensorRT cannot capture this engine in a CUDA graph"

    def _place(self, plan: EngineLayout) -> None:
        """Set shapes and addresses in the context, unless they are already set."""
        if self._placed is plan:
            return
        self._placed = None
        self._shape(plan.shapes)
        _address(self._context, plan)
        self._placed = plan

    def _queue(self, plan: EngineLayout) -> None:
        self._copy_in(plan)
        self._enqueue()
        self._copy_out(plan)

    def _copy_in(self, plan: EngineLayout) -> None:
        for tensor in self.inputs:
            plan.pairs[tensor.name].copy_in(self._stream)

    def _copy_out(self, plan: EngineLayout) -> None:
        for tensor in self.outputs:
            plan.pairs[tensor.name].copy_out(self._stream)

    def _enqueue(self, context: Any = None) -> None:
        if not (context or self._context).execute_async_v3(int(self._stream)):
            raise RunError("TensorRT failed to run the engine", do="check the input shapes against its profile")

    def _drop(self, plan: EngineLayout) -> None:
        for recording in filter(None, (plan.recording, plan.kernels)):
            recording.free()
        for pair in plan.pairs.values():
            pair.free()
        if self._placed is plan:
            self._placed = None

    def _close(self) -> None:
        with self._lock:
            self._compiled.keep()
            for plan in (*self._plans.values(), *self._bound):
                self._drop(plan)
            self._plans.clear()
            self._cuda.cudaStreamDestroy(self._stream)
            self._context = self._engine = None
            self._compiled.free()


@dataclass
class EngineLayout:
    """Shapes, their memory, and the captured call; `state` is "new", then "warm", then "recorded"."""

    shapes: dict[str, tuple[int, ...]]
    pairs: dict[str, MemoryPair]
    recording: Recording
    state: str = "new"
    kernels: Recording | None = None  # without the copies, for `timed`


class BoundEngine:
    """Inputs and outputs without a copy on the host: write into `inputs`, call, read `outputs` before the next call.

    `inputs` and `outputs` map names to page-locked arrays. Values are not checked for NaN.
    """

    def __init__(self, session: TrtSession, plan: EngineLayout) -> None:
        self._session, self._plan = session, plan
        self.inputs, self.outputs = (
            {tensor.name: plan.pairs[tensor.name].array for tensor in tensors}
            for tensors in (session.inputs, session.outputs)
        )

    def __call__(self) -> dict[str, NDArray[Any]]:
        """Compute, and return `outputs`.

        Raises:
            RunError: The session is closed, or the GPU failed.
        """
        session = self._session
        with session._lock:
            if session.closed:
                raise RunError("this session is closed", do="load the bundle again")
            session._compute(self._plan)
        return self.outputs


def _address(context: Any, plan: EngineLayout) -> None:
    for name, pair in plan.pairs.items():
        context.set_tensor_address(name, pair.pointer)
