"""Serving a model: streams of frames, a worker pool, a model that reloads its bundle, frame sources, Triton.

    from edgesmith.runtime.serving import ReloadingModel, Stream, WorkerPool

Names are looked up on first access.
"""

import warnings
from importlib import import_module
from typing import Any

PUBLIC = {"Stream": "stream", "WorkerPool": "reload", "ReloadingModel": "reload"}
RENAMED = {"Pool": "WorkerPool", "Live": "ReloadingModel"}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    if name in RENAMED:
        warnings.warn(f"{name} is called {RENAMED[name]} now", DeprecationWarning, stacklevel=2)
    public = RENAMED.get(name, name)
    if public in PUBLIC:
        return getattr(import_module(f".{PUBLIC[public]}", __name__), public)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
