"""Accuracy on labelled images: top-1, top-5, by class, agreement with FP32 and SQNR of the logits.

SQNR = 10·log10(Σ reference² / Σ (reference - output)²), in dB (Gray & Neuhoff, «Quantization», 1998), over all logits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtime.errors import EdgesmithError
from ...runtime.tasks import Task, find
from ..measure.context import MetricContext
from ..result import Reading

Array = NDArray[np.float32]
Values = dict[str, float]
Intervals = dict[str, tuple[float, float]]


def measure(context: MetricContext) -> Reading:
    """Return the task's scores (`top1_ratio`, `top5_ratio`), and compared with FP32 `agreement_ratio` and `sqnr_db`.

    Names on splits other than "test" begin with the split: `hard_top1_ratio`. Each class in the images is a row
    (split, class, images_count, top1_ratio); the lowest of a split is `worst_class_top1_ratio`.
    """
    if not context.evaluations:
        return Reading("accuracy", missing=context.no_evaluation or "no labelled images were given")
    task = find(context.task)
    values: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, Any]] = []
    for split, evaluate in context.evaluations.items():
        try:
            output, labels, reference = evaluate()
            scores, bounds = _one(task, output, labels, reference)
        except EdgesmithError as error:
            return Reading("accuracy", missing=str(error))
        prefix = "" if split == "test" else f"{split}_"
        if by_class := per_class(output, labels, context.task):
            scores["worst_class_top1_ratio"] = min(row["top1_ratio"] for row in by_class)
        rows += [{"split": split, **row} for row in by_class]
        values |= {prefix + name: value for name, value in scores.items()}
        intervals |= {prefix + name: bound for name, bound in bounds.items()}
    return Reading("accuracy", values, intervals, rows=tuple(rows))


def per_class(logits: Array, labels: NDArray[np.int64], task: str = "classify") -> list[dict[str, Any]]:
    """Return for each class in labels (N,) its index, its number of images and the share of correct answers."""
    right = find(task).correct(logits, labels)
    return (
        []
        if right is None
        else [
            {
                "class": int(one),
                "images_count": int((labels == one).sum()),
                "top1_ratio": float(right[labels == one].mean()),
            }
            for one in np.unique(labels)
        ]
    )


def _one(task: Task, output: Array, labels: NDArray[np.int64], reference: Array | None) -> tuple[Values, Intervals]:
    values, intervals = task.score(output, labels)
    if reference is not None:
        if (share := task.agreement(output, reference)) is not None:
            values["agreement_ratio"] = share
        if (db := sqnr_db(reference, output)) is not None:
            values["sqnr_db"] = db
    return values, intervals


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
