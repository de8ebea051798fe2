"""The outputs of networks on the images of a data set, one image after the other, in bounded memory.

Of each image is kept what the task needs to judge it (`Task.reduce`), and of the first images the outputs themselves,
as many as fit into RAW_BYTES: for the noise between two forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime import batch_axes
from ...runtime.backends._base import Session
from ...runtime.spec import ModelSpec
from ...runtime.tasks import find

RAW_BYTES = 1 << 28

Parts = list[dict[str, NDArray[Any]]]  # of each image: its outputs by name


@dataclass
class Evaluated:
    """What a network answered on N images.

    Attributes:
        count: N.
        reduced: By name what the task needs of each image: an array (N, ...), or a list of N arrays of several sizes.
        raw: By name the outputs of the first images, in the same form.
    """

    count: int
    reduced: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, Any] = field(default_factory=dict)


class AnswerCollector:
    """Runs open sessions of one network's forms on batches of its input, and keeps what is needed.

    Args:
        spec: The network's spec.
        sessions: Its forms.
    """

    def __init__(self, spec: ModelSpec, sessions: Sequence[Session]) -> None:
        self.spec, self.sessions, self.task = spec, sessions, find(spec.task)
        self.context = spec.context()
        self._axes = [batch_axes.axes(session, spec) for session in sessions]
        self._reduced: list[Parts] = [[] for _ in sessions]
        self._raw: list[Parts] = [[] for _ in sessions]
        self._room = [RAW_BYTES] * len(sessions)

    def run(
        self, batches: Iterable[Any], pool: Executor | None = None, done: Callable[[int], None] | None = None
    ) -> None:
        """Run batches through every session, several at once with a pool; `done` is told the images of each."""
        answered = pool.map(self._answers, batches) if pool else map(self._answers, batches)
        for answers in answered:
            for at, (raw, reduced) in enumerate(answers):
                self._reduced[at] += reduced
                for one in raw:
                    self._room[at] -= sum(value.nbytes for value in one.values())
                    if self._room[at] >= 0:
                        self._raw[at].append(one)
            if done:
                done(len(answers[0][1]))

    def results(self) -> list[Evaluated]:
        """Return what each session answered on all batches so far."""
        return [
            Evaluated(len(one), _joined(one), _joined(two)) for one, two in zip(self._reduced, self._raw, strict=True)
        ]

    def _answers(self, batch: Any) -> list[tuple[Parts, Parts]]:
        feeds, answers = self.spec.feeds(batch), []
        for session, of in zip(self.sessions, self._axes, strict=True):
            raw = [self._ordered(one) for one in batch_axes.answers(session, feeds, of)]
            answers.append((raw, [dict(self.task.reduce(one, self.context)) for one in raw]))
        return answers

    def _ordered(self, outputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs in the spec's order, floating point as float32."""
        return {
            name: value.astype(np.float32) if (value := np.asarray(outputs[name])).dtype.kind == "f" else value
            for name in self.spec.output_names
        }


def _joined(parts: Parts) -> dict[str, Any]:
    """Return the outputs of N images by name: an array (N, ...), or a list where their sizes differ."""
    names = parts[0] if parts else ()
    return {name: _stacked([part[name] for part in parts]) for name in names}


def _stacked(values: list[NDArray[Any]]) -> Any:
    return np.stack(values) if len({value.shape for value in values}) == 1 else values


def same_sizes(reference: Any, output: Any) -> bool:
    """Return whether two outputs of N images can be compared number by number."""
    return len(reference) == len(output) and all(
        np.shape(one) == np.shape(two) for one, two in zip(reference, output, strict=True)
    )
