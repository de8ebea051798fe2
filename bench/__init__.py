"""How fast, how big and how accurate is it here; and did it get slower? `es.bench(...)` measures."""

from ..runtime.common.front_door import make_callable

make_callable(__name__, "suite", "bench")
