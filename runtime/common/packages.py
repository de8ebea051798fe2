"""Optional packages: imported on use; the error for a missing package has the command that installs it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType

from ..errors import NotAvailable

_EXTRA = {
    "torch": "export", "onnxscript": "export", "safetensors": "export",
    "onnx": "optimize", "onnx_graphsurgeon": "optimize", "onnxruntime": "ort",
    "openvino": "openvino", "cryptography": "sign", "tensorrt_rtx_bindings": "trt-rtx", "cuda": "trt-rtx",
    "ml_dtypes": "optimize", "cyclonedx": "optimize",
    "cv2": "video", "distributed": "cluster", "matplotlib": "figures", "pyarrow": "figures",
    "faster_coco_eval": "metrics",
}  # fmt: skip


def need(module: str) -> ModuleType:
    """Import an optional package with its telemetry disabled.

    Raises:
        NotAvailable: It is not installed; the message has the command that installs it.
    """
    try:
        with _without_telemetry(module.split(".")[0]):
            return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, error) from error


def require_package(module: str) -> None:
    """Raise an error if an optional package is not installed, without importing it.

    Raises:
        NotAvailable: It is not installed; the message has the command that installs it.
    """
    try:
        there = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        there = False
    if not there:
        raise _missing(module, ModuleNotFoundError(f"No module named {module!r}"))


@contextlib.contextmanager
def _without_telemetry(package: str) -> Iterator[None]:
    """Hide the telemetry package from OpenVINO's import, which would send a report over the network from a new process.

    It is an optional package, which OpenVINO replaces with a stub.
    """
    name = "openvino_telemetry"
    if package != "openvino" or package in sys.modules or name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(name, None)


def not_installed(error: ModuleNotFoundError) -> NotAvailable | None:
    """Return the error for a failed import of an optional package; None for other packages."""
    return _missing(error.name, error) if error.name and error.name.split(".")[0] in _EXTRA else None


def _missing(module: str, error: ImportError) -> NotAvailable:
    package = module.split(".")[0]
    extra = _EXTRA.get(package)
    command = f"pip install 'edgesmith[{extra}]'" if extra else f"pip install {package}"
    return NotAvailable(f"{package} is not installed", got=str(error), do=command)


def versions() -> dict[str, str]:
    """Return the version of Python and of every installed distribution, by name."""
    import platform
    from importlib import metadata

    installed = {str(one.metadata["Name"]).lower(): str(one.version) for one in metadata.distributions()}
    return {"python": platform.python_version(), **dict(sorted(installed.items()))}
