"""Accuracy on labelled images: top-1, top-5, by class, agreement with FP32 and SQNR of the worst output.

SQNR = 10·log10(Σ reference² / Σ (reference - output)²), in dB (Gray & Neuhoff, «Quantization», 1998), over an output.
Without labels there is no top-1: only the likeness to FP32, agreement and SQNR.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import DataError, EdgesmithError
from ...runtime.tasks import Task, find
from ..measure.context import MetricContext
from ..result import Reading

Array = NDArray[np.float32]
Outputs = Mapping[str, Array]
Values = dict[str, float]
Intervals = dict[str, tuple[float, float]]


def measure(context: MetricContext) -> Reading:
    """Return the task's scores (`top1_ratio`, `top5_ratio`), and compared with FP32 `agreement_ratio` and `sqnr_db`.

    Names on splits other than "test" begin with the split: `hard_top1_ratio`. Each class in the images is a row
    (split, class, images_count, top1_ratio); the lowest of a split is `worst_class_top1_ratio`. Of several outputs each
    is a row (split, output, sqnr_db).
    """
    if not context.evaluations:
        return Reading("accuracy", missing=context.no_evaluation or "no images were given")
    task = find(context.task)
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, Any]] = []
    for split, evaluate in context.evaluations.items():
        try:
            outputs, labels, reference = evaluate()
            scores, bounds, by_class = _judged(task, next(iter(outputs.values())), labels)
            likeness, by_output = _likeness(task, outputs, reference)
        except EdgesmithError as error:
            return Reading("accuracy", missing=str(error))
        prefix = "" if split == "test" else f"{split}_"
        rows += [{"split": split, **row} for row in (*by_class, *by_output)]
        values |= {prefix + name: value for name, value in {**scores, **likeness}.items()}
        intervals |= {prefix + name: bound for name, bound in bounds.items()}
    return Reading("accuracy", values, intervals, rows=tuple(rows), notes=left_out(context.unlabelled))


def left_out(why: str) -> tuple[str, ...]:
    """Return the note on what labels would have told; none where they judge (`why` is empty)."""
    return (f"top-1 left out: {why}; likeness to FP32 only",) if why else ()


def per_class(logits: Array, labels: NDArray[np.int64], task: str = "classify") -> list[dict[str, Any]]:
    """Return for each class in labels (N,) its index, its number of images and the share of correct answers."""
    right = find(task).correct(logits, labels)
    return [] if right is None else _by_class(right, labels)


def _by_class(right: NDArray[Any], labels: NDArray[np.int64]) -> list[dict[str, Any]]:
    return [
        {
            "class": int(one),
            "images_count": int((labels == one).sum()),
            "top1_ratio": float(right[labels == one].mean()),
        }
        for one in np.unique(labels)
    ]


def _judged(
    task: Task, output: Array, labels: NDArray[np.int64] | None
) -> tuple[Values, Intervals, list[dict[str, Any]]]:
    if labels is None:
        return {"images_count": float(len(output))}, {}, []
    values, intervals = task.score(output, labels)
    by_class = [] if (right := task.correct(output, labels)) is None else _by_class(right, labels)
    if by_class:
        values = {**values, "worst_class_top1_ratio": min(row["top1_ratio"] for row in by_class)}
    return values, intervals, by_class


def _likeness(task: Task, outputs: Outputs, reference: Outputs | None) -> tuple[Values, list[dict[str, Any]]]:
    """Return the agreement of the first output and the SQNR of the worst, and a row for each of several outputs.

    Raises:
        DataError: An output is not as long as FP32's.
    """
    if reference is None:
        return {}, []
    if odd := next((name for name, value in outputs.items() if value.shape != reference[name].shape), None):
        got, expected = (str(some[odd].shape) for some in (outputs, reference))
        raise DataError(f"output {odd!r} cannot be compared with FP32's", got=got, expected=expected)
    first = next(iter(outputs))
    share = task.agreement(outputs[first], reference[first])
    values: Values = {} if share is None else {"agreement_ratio": share}
    noise = {name: db for name, value in outputs.items() if (db := sqnr_db(reference[name], value)) is not None}
    values |= {"sqnr_db": min(noise.values())} if noise else {}
    return values, [{"output": name, "sqnr_db": db} for name, db in noise.items()] if len(outputs) > 1 else []


def score(output: Array, labels: NDArray[np.int64], task: str = "classify") -> tuple[Values, Intervals]:
    """Return a task's scores of an output (N, ...) against labels (N,), with Wilson intervals.

    Raises:
        DataError: The shapes do not match, there are no images, or a value is not finite.
    """
    return find(task).score(output, labels)


def sqnr_db(reference: Array, output: Array) -> float | None:
    """Return the signal-to-quantisation-noise ratio in dB; None when the outputs are equal (it is infinite)."""
    noise = float(np.square(reference.astype(np.float64) - output).sum())
    signal = float(np.square(reference.astype(np.float64)).sum())
    return 10 * math.log10(signal / noise) if noise and signal else None
