"""The only function that opens a session of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .packages import need

CPU = "CPUExecutionProvider"


def ort_session(
    source: str | Path | bytes,
    *,
    level: str = "ENABLE_ALL",
    threads: int = 0,
    arena: bool = True,
    entries: Mapping[str, str] | None = None,
    provider: str = CPU,
    log_level: int = 4,
    profile: str = "",
) -> Any:
    """Open an `onnxruntime.InferenceSession`.

    Args:
        source: A file, or the bytes of one.
        level: Graph optimisation level: the suffix of a `GraphOptimizationLevel.ORT_...`.
        threads: Threads within an operator; with 0 ONNX Runtime chooses.
        arena: Keep memory between calls, at most twice the size of the activations.
        entries: Session configuration entries.
        provider: The execution provider's name.
        log_level: 3 shows errors on stderr, 4 only fatal ones.
        profile: Prefix of the profile's file name; empty for no profile.

    Raises:
        NotAvailable: onnxruntime is not installed.
        ModelError: ONNX Runtime refuses the graph; `got` is its reason.
    """
    ort = need("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads, options.inter_op_num_threads = log_level, threads, 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    options.enable_cpu_mem_arena = options.enable_mem_pattern = arena
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    for key, value in (entries or {}).items():
        options.add_session_config_entry(key, value)
    graph = source if isinstance(source, bytes) else str(source)
    # From the CPU there is nothing to fall back to: ONNX Runtime would only print that it tries the same again.
    try:
        return ort.InferenceSession(graph, options, providers=[provider], enable_fallback=int(provider != CPU))
    except Exception as error:
        what = "ONNX Runtime refuses the graph" if isinstance(graph, bytes) else f"ONNX Runtime cannot load {graph}"
        raise ModelError(what, got=" ".join(str(error).split())[:300]) from error
