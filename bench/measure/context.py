"""Input of a metric: the subject, how to open it, its timings, and how to evaluate it on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..result import Subject
from .interleave import Timings
from .workload import BenchTarget

# -> logits (N, classes) float32, labels (N,) int64, and the FP32 artefact's logits or None
Evaluation = Callable[[], tuple[Any, Any, Any]]


@dataclass(frozen=True)
class MetricContext:
    """One subject under measurement."""

    subject: Subject
    target: BenchTarget
    artifact: str
    timings: Timings = field(default_factory=Timings)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)  # by split
    no_evaluation: str = ""
    task: str = "classify"
    timeout_s: float = 120.0
