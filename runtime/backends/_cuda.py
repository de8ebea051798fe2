"""CUDA for the TensorRT backend: a stream, host and GPU memory, and calls captured as a CUDA graph.

A pair is page-locked memory on the host and memory of equal size on the GPU: copies between them are asynchronous and
need no driver buffer. A CUDA graph contains copy in, the engine's kernels and copy out in one launch: launches limit
small networks (CUDA C++ programming guide, chapters "Page-Locked Host Memory" and "CUDA Graphs").
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
        shape: Shape of the tensor.
        dtype: Dtype of the tensor.

    Raises:
        RunError: There is not enough memory on the host or the GPU.
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
        """Release the GPU memory; the host memory is freed with the last array that uses it."""
        if self.pointer:
            self._cuda.cudaFree(self.pointer)
            self.pointer = 0


def _pinned(cuda: Any, size: int) -> NDArray[np.uint8]:
    """Return page-locked bytes, which are freed with their last reference."""
    flags = cuda.cudaHostAllocDefault
    address = int(_reserve(cuda, lambda count: cuda.cudaHostAlloc(count, flags), size, "page-locked host"))

    class Held(ctypes.c_uint8 * max(size, 1)):  # type: ignore[misc]
        """Memory allocated elsewhere; unlike a ctypes array it supports weak references."""

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
    """Return the GPU's free and total memory in bytes; (0, 0) if it does not report them."""
    try:
        free, total = gpu.call(cuda.cudaMemGetInfo)
    except RunError:
        return 0, 0
    return int(free), int(total)


class Recording:
    """One CUDA graph: captured once, launched many times.

    Args:
        cuda: cuda-python's runtime module.
        stream: The stream to capture and to launch in.
    """

    def __init__(self, cuda: Any, stream: Any) -> None:
        self._cuda, self._stream = cuda, stream
        self._graph: Any = None
        self._launchable: Any = None

    def record(self, queue: Callable[[], None]) -> str:
        """Capture the work that `queue` puts into the stream; it does not run now.

        Returns:
            "" if the graph can be launched; otherwise the reason, and the stream is unchanged.
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
        """Queue a launch of the graph.

        Raises:
            RunError: CUDA returned an error.
        """
        gpu.call(self._cuda.cudaGraphLaunch, self._launchable, self._stream)

    def free(self) -> None:
        """Release the graph."""
        if self._launchable is not None:
            self._cuda.cudaGraphExecDestroy(self._launchable)
        if self._graph is not None:
            self._cuda.cudaGraphDestroy(self._graph)
        self._graph = self._launchable = None
