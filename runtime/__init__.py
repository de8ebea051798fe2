"""The part that runs on the device: needs numpy, and Pillow for image files; does not load torch or onnx.

    from edgesmith.runtime import load
    model = load("bundles/mobilenetv2")
    model(image).top(5)

Heavy modules are imported on first use: `load` and `Model` are looked up on first access.
"""

import os
from typing import TYPE_CHECKING, Any

# Read by ONNX Runtime when it is imported; else it keeps a device id and events, and reports them to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from .model import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
