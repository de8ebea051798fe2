"""Graph passes, precision and quantisation, from one ONNX file to a better one; `es.optimize(...)` runs the passes."""

from ..runtime.common.front_door import make_callable

make_callable(__name__, "optimizer", "optimize")
