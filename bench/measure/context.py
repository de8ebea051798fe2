"""Input of a metric: the subject, how to open it, its timings, and how to evaluate it on data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...runtime.tasks import DecodeContext
from ..result import Subject
from .evaluation import Evaluated
from .interleave import Timings
from .process import Process
from .workload import BenchTarget

# -> what the subject answered, the truths of the N images or None, and what the FP32 artefact answered or None
Evaluation = Callable[[], tuple[Evaluated, Any, "Evaluated | None"]]


@dataclass(frozen=True)
class MetricContext:
    """One subject under measurement; `unlabelled` is why truths cannot judge its answers, "" where they can.

    A process that gives no answer for `timeout_s` seconds, or until the time `end` of the clock (ns), is killed.
    """

    subject: Subject
    target: BenchTarget
    artifact: str
    timings: Timings = field(default_factory=Timings)
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)  # by split
    no_evaluation: str = ""
    unlabelled: str = ""
    task: str = "classify"
    decoding: DecodeContext = field(default_factory=DecodeContext)
    timeout_s: float = 120.0
    end: int | None = None

    def process(self, **options: Any) -> Process:
        """Start a fresh process with the target open, within the limits; the options are those of `Process`."""
        return Process(self.target, timeout_s=self.timeout_s, end=self.end, **options)
