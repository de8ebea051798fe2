"""TensorRT engines of both flavours, through cuda-python: TensorRT-RTX and standard TensorRT 8.5 to 11.

An engine is executable code: the file's header (flavour, version, SM) is compared with this machine, and its digest
with the sidecar where one stands beside it, before it is deserialised: the file is read once, and the bytes that were
checked are those that run. Load only engines whose source you trust; the library's own check does not detect tampering.

The memory on the GPU grows to the largest shapes seen and is given back by `close`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import flavour, gpu, header, sidecar
from ..errors import BuildError, ModelError, NotAvailable, RunError
from ..files import existing_file
from ._base import Session, Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TrtSession(Session):
    """One engine, one execution context, one CUDA stream; calls from several threads take turns.

    Args:
        trt: The TensorRT module.
        runtime: cuda-python's runtime module.
        engine: The deserialised engine.
    """

    def __init__(self, trt: Any, runtime: Any, engine: Any) -> None:
        self._cuda, self._engine = runtime, engine
        self.inputs, self.outputs = tensors(trt, engine)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise RunError("TensorRT could not make an execution context", do="free GPU memory; see `nvidia-smi`")
        self._stream = gpu.call(runtime.cudaStreamCreate)
        self._memory: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        with self._lock:
            held = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
            for name, array in held.items():
                self._feed(name, array)
            results = {tensor.name: self._result(tensor) for tensor in self.outputs}
            if not self._context.execute_async_v3(int(self._stream)):
                raise RunError("TensorRT refused to run the engine", do="check the input shapes against its profile")
            for name, array in results.items():
                self._copy(array.ctypes.data, self._memory[name][0], array.nbytes, "cudaMemcpyDeviceToHost")
            gpu.call(self._cuda.cudaStreamSynchronize, self._stream)
            return results

    def _feed(self, name: str, array: NDArray[Any]) -> None:
        if not self._context.set_input_shape(name, array.shape):
            low, _, high = (tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, 0))
            raise RunError(f"input {name!r} is outside the engine's profile", got=str(array.shape),
                           expected=f"{low} to {high}", do="build it with another --batch or --shape")  # fmt: skip
        self._copy(self._space(name, array.nbytes), array.ctypes.data, array.nbytes, "cudaMemcpyHostToDevice")

    def _result(self, tensor: Tensor) -> NDArray[Any]:
        shape = tuple(self._context.get_tensor_shape(tensor.name))
        if -1 in shape:
            raise RunError(f"the shape of output {tensor.name!r} depends on the data", do="fix it in the graph")
        array = np.empty(shape, tensor.dtype)
        self._space(tensor.name, array.nbytes)
        return array

    def _space(self, name: str, size: int) -> int:
        """Return GPU memory for a tensor, at least `size` bytes, and tell the context where it is."""
        pointer, held = self._memory.get(name, (0, -1))
        if held < size:
            if pointer:
                del self._memory[name]
                gpu.call(self._cuda.cudaFree, pointer)
            pointer = int(gpu.call(self._cuda.cudaMalloc, max(size, 1)))
            self._memory[name] = (pointer, size)
            self._context.set_tensor_address(name, pointer)
        return pointer

    def _copy(self, target: int, source: int, size: int, kind: str) -> None:
        direction = getattr(self._cuda.cudaMemcpyKind, kind)
        gpu.call(self._cuda.cudaMemcpyAsync, target, source, size, direction, self._stream)

    def _close(self) -> None:
        with self._lock:
            for pointer, _ in self._memory.values():
                self._cuda.cudaFree(pointer)
            self._memory.clear()
            self._cuda.cudaStreamDestroy(self._stream)
            self._context = self._engine = None


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


def available() -> tuple[bool, str]:
    """Return whether an engine could run here: a TensorRT, cuda-python and a GPU; if not, what is missing."""
    found = [name for name in flavour.MODULES if flavour.installed(name)]
    if not found:
        return False, "TensorRT is not installed: " + " or ".join(flavour.INSTALL.values())
    try:
        sm = gpu.device_sm()
    except NotAvailable as error:
        return False, str(error)
    return True, f"{' and '.join(found)} TensorRT, GPU of SM {sm}"


def open(
    path: str | Path, *, threads: int | None = None, device: int = 0, content: bytes | None = None, **options: Any
) -> TrtSession:
    """Load an engine file; `threads` changes nothing.

    Args:
        path: The engine.
        threads: Ignored: the GPU schedules.
        device: Which GPU.
        content: Its bytes, to be loaded in place of the file.
        options: None is known.

    Raises:
        UsageError: There is no such file.
        ModelError: It is no engine, damaged, or not the one its sidecar describes.
        BuildError: It was built for another TensorRT, version or SM.
        NotAvailable: No TensorRT of its flavour, no cuda-python, or no GPU here.
        RunError: TensorRT refuses it, or the GPU's memory does not suffice.
    """
    path = Path(path)
    if content is None:
        content = existing_file(path, "engine").read_bytes()
    head = header.read(path, content)
    module = flavour.installed(head.flavour)
    if module is None:
        raise NotAvailable(f"{path} needs TensorRT ({head.flavour})", do=flavour.INSTALL[head.flavour])
    trt = flavour.load(module)
    header.check(path, sm=None, version=str(trt.__version__), flavour=head.flavour, content=content)
    sm = gpu.device_sm(device)
    header.check(path, sm=sm, version=None, content=content)
    _check_sidecar(path, sm, content)
    runtime = gpu.cudart()
    gpu.call(runtime.cudaSetDevice, device)
    return TrtSession(trt, runtime, _deserialised(trt, path, content))


def _check_sidecar(path: Path, sm: str, content: bytes) -> None:
    if not sidecar.path_of(path).is_file():
        return
    facts = sidecar.read(path)
    if facts.sha256 != (digest := hashlib.sha256(content).hexdigest()):
        raise ModelError(f"the engine {path} is not the one its sidecar describes", got=digest[:12],
                         expected=facts.sha256[:12], do="build it again")  # fmt: skip
    if facts.sm != sm and not any(flag.startswith("HARDWARE_") for flag in facts.flags):
        raise BuildError(f"{path} was built for another GPU", got=f"SM {facts.sm}", expected=f"SM {sm}",
                         do=f"`edgesmith build --sm {sm}`")  # fmt: skip


def _deserialised(trt: Any, path: Path, content: bytes) -> Any:
    log = _log(trt)
    engine = trt.Runtime(log).deserialize_cuda_engine(content)
    if engine is None:
        raise RunError(f"TensorRT refuses {path}", got="; ".join(log.errors[:1]), do="build it on this machine")
    return engine


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        """Keep the errors; the library prints nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= 1:
                self.errors.append(message)

    _KEPT.append(made := Log())
    return made


_KEPT: list[Any] = []  # a logger must outlive every engine of the process
