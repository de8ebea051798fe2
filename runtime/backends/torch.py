"""PyTorch, as a reference while developing: computes an ONNX file operator by operator, on the CPU or an NVIDIA GPU.

It shares no kernel with ONNX Runtime or OpenVINO, so that a third opinion exists where those two differ, and it runs on
GPUs that no TensorRT here knows. It is never chosen: name it, `load(bundle, device="torch")`. On a GPU the calls of one
shape are recorded as a CUDA graph.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ModelError, NotAvailable, RunError, UsageError
from ..external import checked_source
from ..packages import need
from ._base import Session, Tensor, brief, check_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray


class TorchSession(Session):
    """A graph of torch functions; calls from several threads take turns.

    Args:
        model: The ONNX model.
        device: "cpu" or "cuda".

    Raises:
        ModelError: An operator has no counterpart here.
    """

    def __init__(self, model: Any, device: str) -> None:
        from . import _torch_ops

        self._torch, self._ops = need("torch"), _torch_ops
        graph = model.graph
        onnx = need("onnx")
        self._constants = {
            item.name: _torch_ops.tensor(onnx.numpy_helper.to_array(item), device) for item in graph.initializer
        }
        self.inputs = tuple(_declared(onnx, item) for item in graph.input if item.name not in self._constants)
        self.outputs = tuple(_declared(onnx, item) for item in graph.output)
        opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 1)
        self._steps = [_torch_ops.step(onnx, node, opset, device) for node in graph.node]
        self._last = _last_uses(self._steps, [tensor.name for tensor in self.outputs])
        self._device, self._lock = device, threading.Lock()
        self._recorded: tuple[Any, ...] | None = None
        self._seen: Any = None

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        torch = self._torch
        with self._lock, torch.inference_mode():
            try:
                given = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
                found = self._compute(given) if self._device == "cpu" else self._launch(given)
                return {name: value.to("cpu").numpy().copy() for name, value in found.items()}
            except Exception as error:
                raise RunError("PyTorch failed", got=brief(error)) from error

    def _compute(self, given: dict[str, Any]) -> dict[str, Any]:
        values = {**self._constants, **given}
        for number, (function, inputs, outputs, where) in enumerate(self._steps):
            try:
                made = function(*[values[name] if name else None for name in inputs])
            except Exception as error:
                raise RuntimeError(f"{where}: {error}") from error
            values.update(zip(outputs, made if isinstance(made, (tuple, list)) else (made,), strict=False))
            for name in self._last[number]:
                values.pop(name, None)
        return {tensor.name: values[tensor.name] for tensor in self.outputs}

    def _launch(self, given: dict[str, Any]) -> dict[str, Any]:
        """Compute on the GPU: twice as it is (libraries choose their kernels), then recorded."""
        torch, shapes = self._torch, {name: tuple(value.shape) for name, value in given.items()}
        if self._recorded is None or self._recorded[0] != shapes:
            placed = {name: value.to(self._device) for name, value in given.items()}
            if self._seen != shapes:
                self._seen, self._recorded = shapes, None
                return self._compute(placed)
            graph = torch.cuda.CUDAGraph()
            self._compute(placed)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                found = self._compute(placed)
            self._recorded = (shapes, graph, placed, found)
        _, graph, placed, found = self._recorded
        for name, value in given.items():
            placed[name].copy_(value)
        graph.replay()
        torch.cuda.synchronize()
        return dict(found)

    def _close(self) -> None:
        with self._lock:
            self._constants, self._steps, self._recorded = {}, [], None


def _declared(onnx: Any, item: Any) -> Tensor:
    kind = item.type.tensor_type
    shape = tuple(dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim)
    names = tuple(dim.dim_param for dim in kind.shape.dim)
    return Tensor(item.name, shape, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name, names)


def _last_uses(steps: list[Any], kept: list[str]) -> list[list[str]]:
    """Return for each step what nobody reads after it."""
    last: dict[str, int] = {}
    for number, (_, inputs, outputs, _) in enumerate(steps):
        last.update(dict.fromkeys((*inputs, *outputs), number))
    freed: list[list[str]] = [[] for _ in steps]
    for name, number in last.items():
        if name not in kept:
            freed[number].append(name)
    return freed


def available() -> tuple[bool, str]:
    """Return whether torch and onnx are installed, and if not, how to install them."""
    missing = [name for name in ("torch", "onnx") if importlib.util.find_spec(name) is None]
    if missing:
        return False, f"{' and '.join(missing)} not installed: pip install 'edgesmith[export]'"
    return True, "torch is installed: a reference, never chosen by itself"


def open(
    path: str | Path,
    *,
    threads: int | None = None,
    provider: str = "cpu",
    content: bytes | None = None,
    **options: Any,
) -> TorchSession:
    """Load an ONNX file.

    Args:
        path: The file.
        threads: Threads of torch in the whole process; None leaves them as they are.
        provider: "cpu" or "cuda".
        content: Its bytes, to be loaded in place of the file.
        options: None is known.

    Raises:
        UsageError: There is no such file, or `threads` is below 1.
        ModelError: It is no ONNX file, or has operators that are not known here.
        NotAvailable: torch or onnx is not installed, or there is no GPU for "cuda".
    """
    torch, onnx = need("torch"), need("onnx")
    source = checked_source(path, content)
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)
    if provider not in ("cpu", "cuda"):
        raise UsageError(f"unknown provider {provider!r}", expected="cpu or cuda")
    if provider == "cuda" and not torch.cuda.is_available():
        raise NotAvailable("torch sees no GPU", do="install a CUDA build of torch, and a driver")
    try:
        model = onnx.load_model_from_string(source) if isinstance(source, bytes) else onnx.load(source)
        onnx.checker.check_model(model)
    except Exception as error:
        raise ModelError(f"{path} is no ONNX file", got=brief(error)) from error
    return TorchSession(model, provider)
