"""Packages that are optional: imported where they are used, and named with their remedy where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import NotAvailable

_EXTRA = {
    "torch": "export", "onnxscript": "export", "safetensors": "export",
    "onnx": "optimize", "onnx_graphsurgeon": "optimize", "onnxruntime": "ort",
    "openvino": "openvino", "cryptography": "sign", "tensorrt_rtx_bindings": "trt-rtx", "cuda": "trt-rtx",
    "cv2": "video", "distributed": "cluster", "matplotlib": "figures", "pyarrow": "figures",
}  # fmt: skip


def need(module: str) -> ModuleType:
    """Import an optional package.

    Raises:
        NotAvailable: It is not installed; the message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = _EXTRA.get(module.split(".")[0])
        command = f"pip install 'edgesmith[{extra}]'" if extra else f"pip install {module}"
        raise NotAvailable(f"{module} is not installed", got=str(error), do=command) from error


def versions() -> dict[str, str]:
    """Return the version of Python and of every installed distribution, by name: a lock of what made something."""
    import platform
    from importlib import metadata

    found = {str(one.metadata["Name"]).lower(): str(one.version) for one in metadata.distributions()}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}
