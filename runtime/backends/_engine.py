"""A TensorRT engine as a session: memory in pairs, one context, calls recorded as CUDA graphs.

Each shape seen has memory of its own, of at most MOST_SHAPES shapes at once; `close` gives it back.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import gpu
from ..errors import EdgesmithError, ModelError, RunError
from ..files import atomic_file, private_folder
from ._base import Session, Tensor, fixed_shape
from ._cuda import Pair, Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_SHAPES = 8


class TrtSession(Session):
    """One engine, one execution context, one CUDA stream; calls from several threads take turns.

    The first call of a shape runs as it is, the second is recorded as a CUDA graph, and later ones launch that: one
    launch in place of one for each kernel. `graphs_refused` says why where that cannot be.

    Args:
        trt: The TensorRT module.
        cuda: cuda-python's runtime module.
        engine: The deserialised engine.
        device: Which GPU it is on.
        graphs: Record CUDA graphs.
        cache: A file of kernels that TensorRT-RTX compiled for this GPU earlier; written when it is new.
    """

    def __init__(
        self, trt: Any, cuda: Any, engine: Any, *, device: int = 0, graphs: bool = True, cache: Path | None = None
    ) -> None:
        self._cuda, self._engine, self._device = cuda, engine, device
        self.inputs, self.outputs = tensors(trt, engine)
        self._compiled: Any = None
        self._cache = cache
        self._context = self._make_context(trt, engine)
        if self._context is None:
            raise RunError("TensorRT could not make an execution context", do="free GPU memory; see `nvidia-smi`")
        self._stream = gpu.call(cuda.cudaStreamCreate)
        self.graphs_refused = "" if graphs else "not wanted"
        self._plans: OrderedDict[tuple[tuple[int, ...], ...], Plan] = OrderedDict()
        self._bound: list[Plan] = []
        self._placed: Plan | None = None
        self._lock = threading.Lock()

    def _make_context(self, trt: Any, engine: Any) -> Any:
        """Return a context; TensorRT-RTX compiles its kernels now and once, so that no call waits for it."""
        config = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
        if not hasattr(config, "create_runtime_cache"):
            return engine.create_execution_context()
        assert config is not None
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        self._compiled = config.create_runtime_cache()
        if content := self._kept():
            self._compiled.deserialize(content)
        config.set_runtime_cache(self._compiled)
        return engine.create_execution_context(config)

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            plan = self._plan(feeds)
            for name, array in feeds.items():
                np.copyto(plan.pairs[name].array, array)
            self._compute(plan)
            return {tensor.name: plan.pairs[tensor.name].array.copy() for tensor in self.outputs}

    def bind(self, batch: int = 1) -> Bound:
        """Return a call whose input and output arrays stay where they are, page-locked; see `Bound`.

        Raises:
            UsageError: A dimension other than the batch is dynamic.
            RunError: The batch is outside the engine's profile, or memory does not suffice.
        """
        shapes = {tensor.name: fixed_shape(tensor, batch) for tensor in self.inputs}
        with self._lock:
            self._bound.append(plan := self._make_plan(shapes))
        return Bound(self, plan)

    def _plan(self, feeds: Mapping[str, NDArray[Any]]) -> Plan:
        """Return the memory for these shapes; the one that was used least recently makes room."""
        key = tuple(feeds[tensor.name].shape for tensor in self.inputs)
        if key not in self._plans:
            while len(self._plans) >= MOST_SHAPES:
                self._drop(self._plans.popitem(last=False)[1])
            self._plans[key] = self._make_plan({name: array.shape for name, array in feeds.items()})
        self._plans.move_to_end(key)
        return self._plans[key]

    def _make_plan(self, shapes: Mapping[str, tuple[int, ...]]) -> Plan:
        gpu.call(self._cuda.cudaSetDevice, self._device)
        self._placed = None
        self._shape(shapes)
        pairs: dict[str, Pair] = {}
        try:
            for tensor in (*self.inputs, *self.outputs):
                shape = tuple(self._context.get_tensor_shape(tensor.name))
                if -1 in shape:
                    raise RunError(f"the shape of {tensor.name!r} depends on the data", do="fix it in the graph")
                pairs[tensor.name] = Pair(self._cuda, shape, tensor.numpy)
        except RunError:
            for pair in pairs.values():
                pair.free()
            raise
        return Plan(dict(shapes), pairs, Recording(self._cuda, self._stream))

    def _shape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                low, _, high = (tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, 0))
                raise RunError(f"input {name!r} is outside the engine's profile", got=str(shape),
                               expected=f"{low} to {high}", do="build it with another --batch or --shape")  # fmt: skip

    def _compute(self, plan: Plan) -> None:
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
        """Return why TensorRT-RTX would not have this recorded now; "" where it would, or does not say."""
        fits = getattr(self._context, "is_stream_capturable", lambda stream: True)(int(self._stream))
        return "" if fits else "TensorRT says that this engine cannot be captured"

    def _place(self, plan: Plan) -> None:
        """Tell the context the shapes and the addresses, unless they are what it was told last."""
        if self._placed is plan:
            return
        self._placed = None
        self._shape(plan.shapes)
        for name, pair in plan.pairs.items():
            self._context.set_tensor_address(name, pair.pointer)
        self._placed = plan

    def _queue(self, plan: Plan) -> None:
        for tensor in self.inputs:
            plan.pairs[tensor.name].copy_in(self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise RunError("TensorRT refused to run the engine", do="check the input shapes against its profile")
        for tensor in self.outputs:
            plan.pairs[tensor.name].copy_out(self._stream)

    def _drop(self, plan: Plan) -> None:
        plan.recording.free()
        for pair in plan.pairs.values():
            pair.free()
        if self._placed is plan:
            self._placed = None

    def _close(self) -> None:
        with self._lock:
            self._keep_compiled()
            for plan in (*self._plans.values(), *self._bound):
                self._drop(plan)
            self._plans.clear()
            self._cuda.cudaStreamDestroy(self._stream)
            self._context = self._engine = self._compiled = None

    def _kept(self) -> bytes:
        """Return what was compiled earlier; it is code, so only from a folder that nobody else may write."""
        if self._cache is None:
            return b""
        with contextlib.suppress(EdgesmithError, OSError):
            private_folder(self._cache.parent)
            return self._cache.read_bytes()
        return b""

    def _keep_compiled(self) -> None:
        """Write down what TensorRT-RTX compiled; where that cannot be written it compiles again next time."""
        if self._compiled is None or self._cache is None:
            return
        content = bytes(memoryview(self._compiled.serialize()))
        if content == self._kept():
            return
        with contextlib.suppress(EdgesmithError), atomic_file(self._cache) as temporary:
            temporary.write_bytes(content)


@dataclass
class Plan:
    """Shapes, their memory, and the call recorded for them; `state` is "new", then "warm", then "recorded"."""

    shapes: dict[str, tuple[int, ...]]
    pairs: dict[str, Pair]
    recording: Recording
    state: str = "new"


class Bound:
    """Inputs and outputs without a copy on the host: write into `inputs`, call, read `outputs` before the next call.

    `inputs` and `outputs` map names to page-locked arrays. Nothing is checked, so NaN goes through.
    """

    def __init__(self, session: TrtSession, plan: Plan) -> None:
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


def tensors(trt: Any, engine: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what an engine takes and gives.

    Raises:
        ModelError: A tensor has a type that NumPy lacks (BF16, FP8, INT4).
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    made = {name: _tensor(trt, engine, name) for name in names}
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return tuple(made[name] for name in inputs), tuple(made[name] for name in names if name not in inputs)


def _tensor(trt: Any, engine: Any, name: str) -> Tensor:
    kind = engine.get_tensor_dtype(name)
    try:
        dtype = np.dtype(trt.nptype(kind)).name
    except TypeError as error:
        raise ModelError(f"tensor {name!r} has a type that NumPy lacks", got=str(kind), do="cast it") from error
    return Tensor(name, tuple(dim if dim >= 0 else None for dim in engine.get_tensor_shape(name)), dtype)
