"""ONNX Runtime on an NVIDIA GPU, with its CUDA build: for GPUs without a matching TensorRT engine.

Tests cover `ort` on the CPU; this backend differs only in the provider and was never run on a GPU.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ..common.machine import gpu_possible
from ..common.packages import need
from . import ort


def available() -> tuple[bool, str]:
    """Return whether there are a GPU and ONNX Runtime's CUDA provider, and if not, what is missing."""
    if not gpu_possible():
        return False, "this machine has no NVIDIA GPU (no device file of one): this backend needs one"
    if importlib.util.find_spec("onnxruntime") is None:
        return False, "onnxruntime is not installed: pip install onnxruntime-gpu"
    if ort.PROVIDERS["cuda"] not in need("onnxruntime").get_available_providers():
        return False, "onnxruntime has no CUDA: pip install onnxruntime-gpu, in place of onnxruntime"
    return True, "onnxruntime with CUDA is installed"


def open(path: str | Path, *, threads: int | None = None, **options: Any) -> ort.OrtSession:
    """Load an ONNX file onto the GPU; see `ort.open`.

    Raises:
        UsageError: There is no such file.
        ModelError: ONNX Runtime cannot load it.
        NotAvailable: No CUDA provider, or it does not start here.
    """
    return ort.open(path, threads=threads, provider="cuda", **options)
