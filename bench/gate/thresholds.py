"""Gates for values that repeat exactly, such as size and kernels: comparison with a limit, without statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...runtime import tasks
from ...runtime.bundle.bundle import read_bundle
from ...runtime.engines.sidecar import read_sidecar
from ...runtime.errors import UsageError
from ..measure.workload import FILES
from ..result import Result
from .compare import EXIT, Answer

# metric: (value, how much worse it may get, relative or in points, the sign of worse, how to draw the change)
LIMITS = {
    "memory": ("peak_bytes", 0.02, "relative"),
    "size": ("file_bytes", 0.02, "relative"),
    "accuracy": ("", 0.0, "drop"),  # the metric of the task, and the points that it may lose
    "instructions": ("instructions_count", 0.01, "relative"),  # half a minute a file, under valgrind
}
KERNELS = "kernels"  # of the engines in two bundles, or two engines: none more
ENGINE = ".engine"


@dataclass(frozen=True)
class Limited:
    """Comparison of one value of base and new with its limit; answers and exit codes are those of `compare`."""

    metric: str
    answer: Answer
    base: float | None
    new: float | None
    limit: float
    why: str

    @property
    def exit_code(self) -> int:
        """0 within the limit, 1 beyond it, 3 if a value is missing."""
        return EXIT[self.answer]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def check_limit(metric: str, base: Result, new: Result, limit: float | None = None) -> Limited:
    """Compare one metric: memory and size may grow by 2 %, instructions by 1 %, top-1 may fall by 0.5 points.

    Args:
        metric: "memory", "size", "accuracy" or "instructions".
        base: Result of the base version.
        new: Result of the new version.
        limit: Replaces the default limit; a share (0.02: 2 %, or 2 points of accuracy).
    """
    name, usual, kind = LIMITS[metric]
    if kind == "drop":
        return _drop(metric, base, new, limit)
    allowed = usual if limit is None else limit
    before, after = base.value(metric, name), new.value(metric, name)
    if before is None or after is None:
        return Limited(metric, "cannot tell", before, after, allowed, _missing(metric, name, base, new))
    worse = after / before - 1
    why = f"{name} {before:.6g} -> {after:.6g}, {100 * worse:+.2f} % worse; allowed {100 * allowed:.2f}"
    return Limited(metric, _answer(worse, allowed), before, after, allowed, why)


def _drop(metric: str, base: Result, new: Result, limit: float | None) -> Limited:
    """Compare the metric of the task that either version has."""
    known = tasks.with_metric()
    sides = (base, new)
    task = next((one for one in known if any(side.value(metric, one.metric) is not None for side in sides)), known[0])
    allowed = task.max_drop / task.scale if limit is None else limit
    before, after = base.value(metric, task.metric), new.value(metric, task.metric)
    if before is None or after is None:
        return Limited(metric, "cannot tell", before, after, allowed, _missing(metric, task.metric, base, new))
    lost = task.lost(before, after)
    why = f"{task.metric} {before:.6g} -> {after:.6g}, {lost:+.2f} {task.points} worse; "
    why += f"allowed {task.scale * allowed:.2f}"
    return Limited(metric, _answer(lost / task.scale, allowed), before, after, allowed, why)


def _answer(worse: float, allowed: float) -> Answer:
    return "slower" if worse > allowed + 1e-12 else ("faster" if worse < -allowed else "same")


def _missing(metric: str, value: str, base: Result, new: Result) -> str:
    """Say why a metric's value is absent on either side."""
    reasons = []
    for name, result in (("base", base), ("new", new)):
        if result.value(metric, value) is None:
            reading = result.readings.get(metric)
            why = reading and (reading.missing or "; ".join(reading.notes) or f"no {value}")
            reasons.append(f"{name} has no {metric}: {why or 'not measured'}")
    return "; ".join(reasons)


def kernel_limits(base: Path, new: Path) -> list[Limited]:
    """Compare the number of kernels of each engine that both bundles have; it must not grow.

    Raises:
        UsageError: One of them is not a bundle.
    """
    for path in (base, new):
        if path.suffix in FILES and path.suffix != ENGINE:
            expected, do = "two bundles or two engines", "remove kernels from --also"
            raise UsageError(f"{path} has no engines", expected=expected, do=do)
    counts = [_counts(path) for path in (base, new)]
    common = [name for name in counts[1] if name in counts[0]]
    if not common:
        return [Limited(KERNELS, "cannot tell", None, None, 0.0, "the bundles have no engine in common")]
    return [_kernels(name, counts[0][name], counts[1][name]) for name in common]


def _counts(path: Path) -> dict[str, int]:
    """Return the kernels of each engine in a bundle, or of one engine file."""
    if path.suffix == ENGINE:
        return {"": read_sidecar(path).attestation.kernels}
    return {item.name: int(item.facts["kernels"]) for item in read_bundle(path).artefacts if "kernels" in item.facts}


def _kernels(name: str, before: int, after: int) -> Limited:
    answer: Answer = "slower" if after > before else ("faster" if after < before else "same")
    why = f"{f'engine {name}' if name else 'the engine'}: {before} -> {after} kernels; the number must not grow"
    return Limited(KERNELS, answer, float(before), float(after), 0.0, why)
