"""Measurement of latency, memory, size and accuracy, and comparison of versions; `es.bench(...)` measures."""

from ..runtime.common.front_door import make_callable

make_callable(__name__, "suite", "bench")
