"""The GPU of this machine, through cuda-python if it is installed."""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

from ..errors import NotAvailable, RunError


def cudart() -> Any:
    """Return cuda-python's runtime module: `cuda.bindings.runtime` (12.6 and later) or `cuda.cudart`.

    Raises:
        NotAvailable: cuda-python is not installed.
    """
    for name in ("cuda.bindings.runtime", "cuda.cudart"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise NotAvailable("cuda-python is not installed", do="pip install cuda-bindings")


def call(function: Any, *arguments: Any) -> Any:
    """Call a function of cuda-python's runtime and return its result without the status.

    Raises:
        RunError: The status is not success; the message names function and status.
    """
    status, *values = function(*arguments)
    if int(status) != 0:
        raise RunError(f"{function.__name__} failed", got=getattr(status, "name", str(status)), do="see `nvidia-smi`")
    return values[0] if len(values) == 1 else tuple(values)


def driver_cuda() -> str:
    """Return the newest CUDA that the driver supports, as "13.0"; "" without a driver or cuda-python."""
    return _version("cudaDriverGetVersion")


def library_cuda() -> str:
    """Return the CUDA of cuda-python's runtime, as "13.0"; "" if it is not installed."""
    return _version("cudaRuntimeGetVersion")


def _version(function: str) -> str:
    """Convert 12040 to "12.4"."""
    try:
        number = int(call(getattr(cudart(), function)))
    except (NotAvailable, RunError, RuntimeError):
        return ""
    return f"{number // 1000}.{number % 1000 // 10}" if number else ""


def device_name(device: int = 0) -> str:
    """Return the model of a GPU, or "" if it cannot be queried."""
    try:
        name = call(cudart().cudaGetDeviceProperties, device).name
    except (NotAvailable, RunError, RuntimeError):
        return ""
    return (name.decode() if isinstance(name, bytes) else str(name)).strip("\0")


def device_sm(device: int = 0) -> str:
    """Return the compute capability of a GPU as "8.6".

    Raises:
        NotAvailable: No driver or no such GPU; the message has the driver's answer.
    """
    try:
        runtime = cudart()
    except NotAvailable:
        return _driver_sm(device)
    try:
        count = call(runtime.cudaGetDeviceCount)
        if device >= count:
            raise NotAvailable(f"there is no GPU {device}", got=f"{count} GPUs")
        attributes = runtime.cudaDeviceAttr
        parts = (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
        major, minor = (call(runtime.cudaDeviceGetAttribute, part, device) for part in parts)
    except (RunError, RuntimeError) as error:
        reason = getattr(error, "got", "") or str(error)
        raise NotAvailable("no NVIDIA GPU can be used here", got=reason, do="see `nvidia-smi`") from error
    return f"{major}.{minor}"


def _driver_sm(device: int) -> str:
    """Query the driver directly if cuda-python is not installed (cuda.h: CUdevice_attribute 75 and 76)."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise NotAvailable("no NVIDIA GPU can be used here", got=str(error), do="install the driver") from error
    handle, parts = ctypes.c_int(), []
    status = driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(handle), device)
    for attribute in (75, 76):
        value = ctypes.c_int()
        status = status or driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        parts.append(str(value.value))
    if status:
        raise NotAvailable("no NVIDIA GPU can be used here", got=f"CUDA driver error {status}", do="see `nvidia-smi`")
    return ".".join(parts)
