"""Accuracy against the truth of each image: the task's metric, by class; agreement with FP32, SQNR of the worst output.

SQNR = 10·log10(Σ reference² / Σ (reference - output)²), in dB (Gray & Neuhoff, «Quantization», 1998), over an output.
Without truths there is no metric: only the likeness to FP32, agreement and SQNR.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import DataError, EdgesmithError
from ...runtime.tasks import DecodeContext, Score, Task, find
from ..measure.context import MetricContext
from ..measure.evaluation import Evaluated, same_sizes
from ..result import Reading

Values = dict[str, float]


def measure(context: MetricContext) -> Reading:
    """Return the task's scores (`top1_ratio`, `top5_ratio`), and compared with FP32 `agreement_ratio` and `sqnr_db`.

    Names on splits other than "test" begin with the split: `hard_top1_ratio`. Each class in the images is a row
    (split, class, images_count, and the task's metric); the worst of a split is `worst_class_top1_ratio`. Of several
    outputs each is a row (split, output, sqnr_db).
    """
    if not context.evaluations:
        return Reading("accuracy", missing=context.no_evaluation or "no images were given")
    task = find(context.task)
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, Any]] = []
    for split, evaluate in context.evaluations.items():
        try:
            answers, truths, reference = evaluate()
            score = _judged(task, answers, truths, context.decoding)
            likeness, by_output = _likeness(task, answers, reference, context.decoding)
        except EdgesmithError as error:
            return Reading("accuracy", missing=str(error))
        prefix = "" if split == "test" else f"{split}_"
        rows += [{"split": split, **row} for row in (*score.by_class, *by_output)]
        values |= {prefix + name: value for name, value in {**score.values, **likeness}.items()}
        intervals |= {prefix + name: bound for name, bound in score.intervals.items()}
    return Reading("accuracy", values, intervals, rows=tuple(rows), notes=left_out(context.unlabelled, task))


def left_out(why: str, task: Task) -> tuple[str, ...]:
    """Return the note on what truths would have told; none where they judge (`why` is empty)."""
    return (f"{task.title if task.metric else 'top-1'} left out: {why}; likeness to FP32 only",) if why else ()


def _judged(task: Task, answers: Evaluated, truths: Any, context: DecodeContext) -> Score:
    if truths is None:
        return Score({"images_count": float(answers.count)})
    score = task.score(answers.reduced, truths, context)
    if not score.by_class:
        return score
    worst = (min if task.higher_is_better else max)(row[task.metric] for row in score.by_class)
    return Score({**score.values, f"worst_class_{task.metric}": worst}, score.intervals, score.by_class)


def _likeness(
    task: Task, answers: Evaluated, reference: Evaluated | None, context: DecodeContext
) -> tuple[Values, list[dict[str, Any]]]:
    """Return the agreement and the SQNR of the worst output, and a row for each of several outputs.

    Raises:
        DataError: An output is not as long as FP32's.
    """
    if reference is None:
        return {}, []
    one, two = answers.raw, reference.raw
    share = task.agreement(answers.reduced, reference.reduced, context)
    odd = next((name for name in one if not same_sizes(two[name], one[name])), None)
    if odd is not None and share is None:
        got, expected = (str([np.shape(value) for value in some[odd][:3]]) for some in (one, two))
        raise DataError(f"output {odd!r} cannot be compared with FP32's", got=got, expected=expected)
    values: Values = {} if share is None else {"agreement_ratio": share}
    if odd is not None:
        return values, []  # as many rows as objects, and other ones
    noise = {name: db for name, value in one.items() if (db := sqnr_db(two[name], value)) is not None}
    values |= {"sqnr_db": min(noise.values())} if noise else {}
    return values, [{"output": name, "sqnr_db": db} for name, db in noise.items()] if len(one) > 1 else []


def sqnr_db(reference: Sequence[NDArray[Any]], output: Sequence[NDArray[Any]]) -> float | None:
    """Return the signal-to-quantisation-noise ratio in dB over N images; None when all are equal (it is infinite)."""
    signal = noise = 0.0
    for exact, value in zip(reference, output, strict=True):
        exact64 = np.asarray(exact, np.float64)
        signal += float(np.square(exact64).sum())
        noise += float(np.square(exact64 - value).sum())
    return 10 * math.log10(signal / noise) if noise and signal else None
