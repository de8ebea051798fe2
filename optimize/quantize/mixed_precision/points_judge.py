"""How many points of a task's metric one graph loses against another on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ....runtime.common.progress import note
from ....runtime.errors import DataError, UsageError
from ....runtime.tasks import DecodeContext, Task, find
from ....runtime.tasks.classify import TASK as CLASSIFY

if TYPE_CHECKING:
    from ....runtime.datasets import Dataset
    from ....runtime.spec import ModelSpec


@dataclass(frozen=True)
class PointsJudge:
    """A task, what its decoding needs, and the truths of the samples; without truths a changed answer is a lost one."""

    task: Task = CLASSIFY
    context: DecodeContext = field(default_factory=DecodeContext)
    truths: Any = None

    def lost(self, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> float:
        """Return the points that were lost, never below 0; of both graphs each output by name, (N, ...).

        Raises:
            DataError: An output does not have one row for each sample.
        """
        one, two = self._reduced(before), self._reduced(after)
        if self.truths is None:
            return 100 * (1 - (self.task.agreement(two, one, self.context) or 0.0))
        truths = self.truths[: len(next(iter(one.values())))]
        values = [self.task.score(side, truths, self.context).values[self.task.metric] for side in (one, two)]
        return max(0.0, self.task.lost(*values))

    def _reduced(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if self.task is CLASSIFY:
            return dict([next(iter(outputs.items()))])
        if len({len(value) for value in outputs.values()}) > 1:
            got = ", ".join(f"{name} {value.shape}" for name, value in outputs.items())
            expected, do = "one row of each output for each sample", "give the budget in dB"
            raise DataError("points cannot be told", got=got, expected=expected, do=do)
        count = len(next(iter(outputs.values())))
        parts = [
            self.task.reduce({name: value[at] for name, value in outputs.items()}, self.context) for at in range(count)
        ]
        return {name: [part[name] for part in parts] for name in parts[0]}


def judge_of(spec: ModelSpec | None, data: Dataset) -> PointsJudge:
    """Return whose points a budget means: the task's metric where the truths of the data are known and fit.

    Otherwise changed answers count, and it is said if the truths do not fit the network.
    """
    if spec is None or not (task := find(spec.task)).truth:
        return PointsJudge()
    truths = None
    if data.knows(task.truth):
        try:
            truths = data.truths_for(spec, task.truth)
        except UsageError as error:
            note(f"warning: {error}; changed answers count in place of {task.title}")
    return PointsJudge(task, spec.context(), truths)
