"""Time of each operator in one inference; see `bench/measure/layer_profile.py`."""

from __future__ import annotations

from ..measure.context import MetricContext
from ..measure.layer_profile import tells_layers
from ..result import Reading

ON_REQUEST = True
COUNT = 20


def measure(context: MetricContext) -> Reading:
    """Return `sum_s` of all operators and `operators_count`; each operator is a row (layer, op, seconds, macs, …)."""
    tells_layers(context.target)
    with context.process() as process:
        rows = process.ask("layers", count=COUNT)["rows"]
    total = sum(row["seconds"] for row in rows)
    return Reading("layers", {"sum_s": total, "operators_count": float(len(rows))}, rows=tuple(rows))
