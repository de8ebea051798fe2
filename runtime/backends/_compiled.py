"""Inputs and outputs of an engine, and the kernels that TensorRT-RTX compiles for it on the device."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from ..common.cache_folder import private_folder
from ..common.files import atomic_file
from ..errors import EdgesmithError, ModelError
from ._base import Tensor


class Compiled:
    """Execution contexts of an engine and, for TensorRT-RTX, a file that caches the compiled kernels.

    Args:
        trt: The TensorRT module.
        engine: The deserialised engine.
        path: Cache file of the kernels compiled for this GPU; written if it does not exist. None: no cache.
    """

    def __init__(self, trt: Any, engine: Any, path: Path | None) -> None:
        self._trt, self._engine, self._path = trt, engine, path
        self._kernels: Any = None

    def context(self) -> Any:
        """Return a context, or None if there is not enough memory.

        TensorRT-RTX compiles its kernels here, once, so that no later call waits for it.
        """
        engine = self._engine
        config = engine.create_runtime_config() if hasattr(engine, "create_runtime_config") else None
        if not hasattr(config, "create_runtime_cache"):
            return engine.create_execution_context()
        assert config is not None
        config.dynamic_shapes_kernel_specialization_strategy = self._trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if self._kernels is None:
            self._kernels = config.create_runtime_cache()
            if content := self._kept():
                self._kernels.deserialize(content)
        config.set_runtime_cache(self._kernels)
        return engine.create_execution_context(config)

    def _kept(self) -> bytes:
        """Return the cached kernels; they are code, so the folder must not be writable for other users."""
        if self._path is None:
            return b""
        with contextlib.suppress(EdgesmithError, OSError):
            private_folder(self._path.parent)
            return self._path.read_bytes()
        return b""

    def keep(self) -> None:
        """Write the kernels that TensorRT-RTX compiled; if that fails, it compiles again next time."""
        if self._kernels is None or self._path is None:
            return
        content = bytes(memoryview(self._kernels.serialize()))
        if content == self._kept():
            return
        with contextlib.suppress(EdgesmithError), atomic_file(self._path) as temporary:
            temporary.write_bytes(content)

    def free(self) -> None:
        """Release the engine and its kernels."""
        self._engine = self._kernels = None


def tensors(trt: Any, engine: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return the inputs and outputs of an engine.

    Raises:
        ModelError: A tensor has a type that NumPy does not have (BF16, FP8, INT4).
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    by_name = {name: _tensor(trt, engine, name) for name in names}
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return tuple(by_name[name] for name in inputs), tuple(by_name[name] for name in names if name not in inputs)


def _tensor(trt: Any, engine: Any, name: str) -> Tensor:
    kind = engine.get_tensor_dtype(name)
    try:
        dtype = np.dtype(trt.nptype(kind)).name
    except TypeError as error:
        raise ModelError(f"tensor {name!r} has a type that NumPy does not have", got=str(kind), do="cast it") from error
    return Tensor(name, tuple(dim if dim >= 0 else None for dim in engine.get_tensor_shape(name)), dtype)
