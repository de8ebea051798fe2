"""Edgesmith takes a convolutional network from PyTorch to the edge and proves, at each step, that nothing was lost.

    import edgesmith as es

    es.export("mobilenetv2")                             # the whole flow: a verified bundle
    es.optimize("net.onnx", "smaller.onnx")              # graph passes, compared with the source
    es.to_fp16("smaller.onnx", "net-fp16.onnx", images)  # images: float32 arrays (N, C, H, W)
    es.quantize("smaller.onnx", "net-int8.onnx", images, target="ort-x86")
    es.build_engine("net-fp16.onnx", "net.engine", sm="8.6", precision="fp16")
    model = es.load("bundles/mobilenetv2")
    es.verify("bundles/mobilenetv2")
    run = es.bench("bundles/mobilenetv2")
    es.compare(es.bench("old.onnx"), es.bench("new.onnx"))

Each returns a report whose repr is one line and which a notebook shows as a table. Nothing heavy is imported before it
is used. `export`, `optimize` and `bench` are packages too, whose call is the function.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .runtime.common import old_paths

if TYPE_CHECKING:
    from .bench.gate.compare import compare_runs as compare
    from .optimize.fp16.convert import to_fp16 as to_fp16
    from .optimize.quantize.post_training import quantize as quantize
    from .runtime.engines.build import build_engine as build_engine
    from .runtime.model import load as load
    from .runtime.verify import verify as verify

__version__ = "0.1.0"
__all__ = ["bench", "build_engine", "compare", "export", "load", "optimize", "quantize", "to_fp16", "verify"]
_FUNCTIONS = {
    "build_engine": ("runtime.engines.build", "build_engine"), "compare": ("bench.gate.compare", "compare_runs"),
    "load": ("runtime.model", "load"), "quantize": ("optimize.quantize.post_training", "quantize"),
    "to_fp16": ("optimize.fp16.convert", "to_fp16"), "verify": ("runtime.verify", "verify"),
}  # fmt: skip
_PACKAGES = ("bench", "export", "optimize")

old_paths.install(__name__)


def __getattr__(name: str) -> Any:
    """Import a public function, or a package that can be called, when it is first asked for."""
    if name in _PACKAGES:
        return import_module(f".{name}", __name__)
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(import_module(f".{module}", __name__), function)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
