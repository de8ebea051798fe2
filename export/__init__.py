"""The flow that `make export` runs: from a torch module to a verified bundle; `es.export(...)` calls it."""

from ..runtime.common.front_door import make_callable

make_callable(__name__, "api", "export")
