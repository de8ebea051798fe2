"""Deployment targets, one file per target: `ort_x86.py` is the target "ort-x86".

A file holds one literal row (`_row.TargetRow`). The runtime reads the backends, the order of preference and
whether ONNX Runtime only simulates the files; `optimize` reads the passes and the Q/DQ rules, `export` the precisions
and the TensorRT flavour. A new target is one file here; every command and the table in the docs use it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from ..common import plugins
from ..errors import UsageError
from ._row import TargetRow

# Places in the order of preference on a CPU, least first: INT8 for this machine has its row's place, 10 to 40.
FP32, MIXED_HERE, INT8_ELSEWHERE, MIXED, FP16, OTHER = 50, 55, 60, 70, 80, 90


def names(has: Callable[[TargetRow], object] | None = None) -> list[str]:
    """List the targets, sorted: all of them, or those whose row has the given field."""
    known = [stem.replace("_", "-") for stem in plugins.plugin_names(sys.modules[__name__])]
    return [name for name in known if has is None or has(row(name))]


def row(name: str) -> TargetRow:
    """Return a target's row.

    Raises:
        UsageError: No such target.
    """
    if name not in names():
        raise unknown("target", name, names())
    target: TargetRow = plugins.load_plugin(sys.modules[__name__], name.replace("-", "_"), "target").ROW
    return target


def unknown(kind: str, name: str, known: list[str]) -> UsageError:
    """Return the error for an unknown target."""
    near = plugins.did_you_mean(name, known) or "choose one of these"
    return UsageError(f"unknown {kind} {name!r}", expected=", ".join(known), do=near)


def find(name: str) -> TargetRow | None:
    """Return the row of a target in a manifest; None for an engine's "sm86" and for unknown targets."""
    return row(name) if name in names() else None


def is_here(name: str) -> bool:
    """Return whether this machine is of the target's type, so that its files can be timed."""
    target = find(name)
    return target is not None and target.is_here()


def is_simulated(name: str, backend: str = "ort") -> bool:
    """Return whether ONNX Runtime only simulates a target's kernels: correct, computed as written, and slow."""
    target = find(name)
    return target is not None and backend == "ort" and target.is_simulated()


def cpu_place(precision: str, name: str, backend: str) -> int:
    """Return the place of a file in the order of preference on this CPU, lowest first."""
    target = find(name)
    place = target.int8_place(backend, INT8_ELSEWHERE) if target else INT8_ELSEWHERE
    mixed = MIXED_HERE if place < FP32 else MIXED
    return {"int8": place, "fp32": FP32, "mixed": mixed, "fp16": FP16}.get(precision, OTHER)
