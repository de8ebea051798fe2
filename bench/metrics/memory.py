"""Peak memory of a fresh process, split by purpose, over time, and repeatable.

Address space randomisation is off (`setarch -R`) and malloc's thresholds are fixed if the system allows it; otherwise
the peak of the same inference varies by several megabytes. Source: getrusage(2), mallopt(3), proc(5).

    import      growth of the resident size while the backend's library is loaded
    weights     growth while the network is opened, up to the size of its file
    session     the rest of that growth: graph, packed weights, data of the backend
    arena       growth in the first call: the backend's arena, which holds the activations
    transient   peak minus the size that remains: memory allocated and freed while loading or in a call
"""

from __future__ import annotations

import itertools
from pathlib import Path

from ...runtime.errors import EdgesmithError
from ..measure import rss_sampler, sensors
from ..measure.context import MetricContext
from ..measure.process import fixed_layout
from ..result import Reading

CALLS = 10


def measure(context: MetricContext) -> Reading:
    """Return `peak_bytes` with its parts, and `gpu_bytes` by NVML after the calls if there is an NVIDIA GPU.

    The rows are the resident size over time (stage, seconds, resident_bytes).
    """
    watch = rss_sampler.Watch()
    try:
        with context.process(repeatable=True, started=watch.start) as process:
            peak = process.ask("peak", calls=CALLS)
            seen, on_cards = watch.stop(), sensors.card_bytes(process.pid)
            rss, stages = process.rss, process.stages
    except EdgesmithError as error:
        return Reading("memory", missing=str(error))
    finally:
        watch.stop()
    if peak["peak_bytes"] is None:
        return Reading("memory", missing="this system does not report a process's peak memory (/proc/self/status)")
    notes = (
        ()
        if fixed_layout()
        else ("address space randomisation could not be disabled; repeat the measurement to see the spread",)
    )
    artifact = Path(context.artifact)
    parts = attribution(rss, artifact.stat().st_size if artifact.is_file() else 0, peak["peak_bytes"])
    values = {"peak_bytes": float(peak["peak_bytes"]), **parts}
    if on_cards is not None:
        values["gpu_bytes"] = float(on_cards)
    return Reading("memory", values, notes=notes, rows=tuple(rss_sampler.rss_rows(seen, stages)))


def attribution(rss: dict[str, int], file_bytes: int, peak_bytes: int) -> dict[str, float]:
    """Split the growth of the resident size by purpose, in bytes; see the docstring of this module.

    Args:
        rss: `interpreter_bytes`, `import_bytes`, `load_bytes` and `first_call_bytes`.
        file_bytes: Size of the network's file.
        peak_bytes: The peak resident size.
    """
    order = ["interpreter_bytes", "import_bytes", "load_bytes", "first_call_bytes"]
    grown = {later: float(rss[later] - rss[earlier]) for earlier, later in itertools.pairwise(order)}
    weights = min(max(grown["load_bytes"], 0.0), float(file_bytes))
    return {
        "interpreter_bytes": float(rss["interpreter_bytes"]), **grown, "weights_bytes": weights,
        "session_bytes": grown["load_bytes"] - weights, "arena_bytes": grown["first_call_bytes"],
        "transient_bytes": float(max(0, peak_bytes - rss["first_call_bytes"])),
    }  # fmt: skip
