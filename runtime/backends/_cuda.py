"""What the TensorRT backend needs of CUDA: a stream, memory in pairs, and calls recorded as a CUDA graph.

A pair is page-locked memory on the host and as much on the GPU: copies between them are asynchronous and need no buffer
of the driver's. A CUDA graph holds the copies in, the engine's kernels and the copies out as one launch: small networks
are bound by the launches (CUDA C++ programming guide, chapters "Page-Locked Host Memory" and "CUDA Graphs").
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engines import gpu
from ..errors import RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIB = 1 << 20


class MemoryPair:
    """One tensor's memory: `array` on the host, page-locked, and `pointer` on the GPU.

    Args:
        cuda: cuda-python's runtime module.
        shape: Of the tensor.
        dtype: Of the tensor.

    Raises:
        RunError: The host's or the GPU's memory does not suffice.
    """

    def __init__(self, cuda: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._cuda, self.pointer = cuda, 0
        self.size = math.prod(shape) * dtype.itemsize
        self.pointer = int(_reserve(cuda, cuda.cudaMalloc, self.size, "GPU"))
        try:
            self.array: NDArray[Any] = _pinned(cuda, self.size).view(dtype).reshape(shape)
        except RunError:
            self.free()
            raise

    def copy_in(self, stream: Any) -> None:
        """Queue a copy from the host to the GPU."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        gpu.call(self._cuda.cudaMemcpyAsync, self.pointer, self.array.ctypes.data, self.size, kind, stream)

    def copy_out(self, stream: Any) -> None:
        """Queue a copy from the GPU to the host."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        gpu.call(self._cuda.cudaMemcpyAsync, self.array.ctypes.data, self.pointer, self.size, kind, stream)

    def free(self) -> None:
        """Give the GPU's memory back; the host's goes with the last array that looks at it."""
        if self.pointer:
            self._cuda.cudaFree(self.pointer)
            self.pointer = 0


def _pinned(cuda: Any, size: int) -> NDArray[np.uint8]:
    """Return page-locked bytes, which are freed when nothing refers to them any more."""
    flags = cuda.cudaHostAllocDefault
    address = int(_reserve(cuda, lambda count: cuda.cudaHostAlloc(count, flags), size, "page-locked host"))

    class Held(ctypes.c_uint8 * max(size, 1)):  # type: ignore[misc]
        """Memory that somebody else allocated; unlike a plain ctypes array it can be referred to weakly."""

    memory = Held.from_address(address)
    weakref.finalize(memory, cuda.cudaFreeHost, address).atexit = False
    return np.frombuffer(memory, np.uint8, size)


def _reserve(cuda: Any, function: Callable[[int], Any], size: int, what: str) -> Any:
    status, value = function(max(size, 1))
    if int(status) != 0:
        with contextlib.suppress(RunError):
            gpu.call(cuda.cudaGetLastError)  # an allocation that failed does not spoil the calls after it
        free, _ = _memory(cuda)
        raise RunError(
            f"there is not enough {what} memory", got=getattr(status, "name", str(status)),
            expected=f"{size / MIB:.1f} MiB" + (f"; {free / MIB:.0f} MiB free on the GPU" if free else ""),
            do="use a smaller batch, or end other processes on the GPU; see `nvidia-smi`",
        )  # fmt: skip
    return value


def _memory(cuda: Any) -> tuple[int, int]:
    """Return the GPU's free and total memory in bytes; (0, 0) where it does not say."""
    try:
        free, total = gpu.call(cuda.cudaMemGetInfo)
    except RunError:
        return 0, 0
    return int(free), int(total)


class Recording:
    """One CUDA graph: record once, launch often.

    Args:
        cuda: cuda-python's runtime module.
        stream: Where to record, and where to launch.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._graph: Any = None
        self._launchable: Any = None

    def record(self, queue: Callable[[], None]) -> str:
        """Record what `queue` puts into the stream, which does not run now.

        Returns:
            "" when it can be launched; else why not, and the stream is as it was.
        """
        cuda = self._cuda
        try:
            gpu.call(
                cuda.cudaStreamBeginCapture, self._stream, cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
            )
            try:
                queue()
            finally:
                status, graph = cuda.cudaStreamEndCapture(self._stream)
            if int(status) != 0:
                raise RunError("cudaStreamEndCapture failed", got=getattr(status, "name", str(status)))
            self._graph = graph
            self._launchable = gpu.call(cuda.cudaGraphInstantiate, graph, 0)
        except RunError as error:
            cuda.cudaGetLastError()
            self.free()
            return str(error)
        return ""

    def launch(self) -> None:
        """Queue what was recorded.

        Raises:
            RunError: CUDA refuses.
        """
        gpu.call(self._cuda.cudaGraphLaunch, self._launchable, self._stream)

    def free(self) -> None:
        """Give the graph back."""
        if self._launchable is not None:
            self._cuda.cudaGraphExecDestroy(self._launchable)
        if self._graph is not None:
            self._cuda.cudaGraphDestroy(self._graph)
        self._graph = self._launchable = None
